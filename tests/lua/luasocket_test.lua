-- Tests of the client's LuaSocket adapter against a scripted relay on a loopback port that the system chose. From the
-- top of the project: lua5.1 tests/lua/luasocket_test.lua
--
-- Client and relay take turns in this one program, so each case decides who has seen what. The client's clock and sleep
-- are the case's own: waits of minutes pass at once. What must wait for the network waits for a readable socket.

package.path = "clients/lua/?.lua;tests/lua/?.lua;" .. package.path
local payrelay = require("payrelay")
local check = require("check")
local socket = require("socket")
local case, equal = check.case, check.equal

local DEADLINE = 20 -- real seconds that anything on loopback may take; reached by failures only

local TOKEN = ("5ec4e7ab"):rep(8)
local OK = "OK id=game-01 node=pay-1-0a1b2c session=7 heartbeat=20 max_body=1048576\n"
local HELLO = "HELLO 1 id=game-01 max=16 token=" .. TOKEN

local every_byte = {}
for byte = 0, 255 do every_byte[byte + 1] = string.char(byte) end
every_byte = table.concat(every_byte)

------------------------------------------------------------------------------------------------------------- the world

-- A listening relay, a client for it that has opened nothing yet, and what the client said and slept.
local function world(options)
  local w = { now = 1000000, slept = {}, said = {}, got = {}, jitter = 0 }
  w.listener = assert(socket.bind("127.0.0.1", 0))
  w.listener:settimeout(DEADLINE)
  local _, port = w.listener:getsockname()
  local o = {
    host = "127.0.0.1", port = tonumber(port), id = "game-01", token = TOKEN,
    clock = function() return w.now end,
    sleep = function(seconds) w.slept[#w.slept + 1] = seconds w.now = w.now + seconds end,
    random = function() return w.jitter end,
    on_log = function(level, text) w.said[#w.said + 1] = level .. " " .. text end,
    on_message = function(msg) w.got[#w.got + 1] = msg end,
  }
  for key, value in pairs(options or {}) do o[key] = value end
  for _, real in ipairs(o.real or {}) do o[real] = nil end
  w.client = payrelay.connect(o)
  return w
end

-- Turns of the client until the condition holds.
local function drive(w, condition, what)
  local limit = socket.gettime() + DEADLINE
  while not condition() do
    if socket.gettime() > limit then error("waited in vain for " .. what .. "; log: " .. check.show(w.said), 2) end
    if w.client.session then socket.select({ w.client.session.sock }, nil, 0.1) end
    w.client:step(0)
  end
end

-- The next line that the client sent, by single bytes: "*l" would hide a CR.
local function line(peer)
  local bytes = {}
  repeat
    local byte = assert(peer:receive(1))
    bytes[#bytes + 1] = byte
  until byte == "\n"
  return table.concat(bytes, "", 1, #bytes - 1)
end

local function accept(w)
  local peer = assert(w.listener:accept())
  peer:settimeout(DEADLINE)
  peer:setoption("tcp-nodelay", true)
  return peer
end

-- A client that is connected and has been told OK; returns the relay's end.
local function opened(w)
  w.client:step(0)
  local peer = accept(w)
  equal(line(peer), HELLO)
  assert(peer:send(OK))
  drive(w, function() return w.client.session and w.client.session.open end, "OK")
  return peer
end

local function dropped(w)
  drive(w, function() return not w.client.session end, "the end of the connection")
end

-- Sleeps out the pause; the client has then connected again.
local function reconnected(w)
  local before = #w.slept
  w.client:step(1000)
  equal(#w.slept, before + 1, "one pause")
  w.client:step(0)
  local peer = accept(w)
  equal(line(peer), HELLO)
  return peer, w.slept[#w.slept]
end

local function close(w, peer)
  if w.client.session then w.client.session.sock:close() end
  if peer then peer:close() end
  w.listener:close()
end

----------------------------------------------------------------------------------------------------------------- bytes

case("a message of all bytes arrives and is acknowledged", function()
  local w = world()
  local peer = opened(w)
  peer:send(payrelay.core.encode("MSG", { id = "A", try = 1, h = 4 }, "\r\n\r\n" .. every_byte))
  drive(w, function() return w.got[1] end, "the message")
  equal({ w.got[1].head, w.got[1].body }, { "\r\n\r\n", every_byte })
  equal(line(peer), "ACK id=A")
  close(w, peer)
end)

case("half a line, half a body, and turns in which nothing comes lose nothing", function()
  local w = world()
  local peer = opened(w)
  local text = "MSG id=A try=1 h=0 =6\nab\r\n\0c\n"
  local sent = 0
  for _, size in ipairs{ 5, 12, 4, 1, 3, 1, 2, 2 } do
    peer:send(text:sub(sent + 1, sent + size))
    sent = math.min(sent + size, #text)
    local consumed = #"MSG id=A try=1 h=0 =6\n"
    drive(w, function()
      local parser = w.client.session.parser
      return w.got[1] or parser.size + (parser.frame and consumed or 0) == sent
    end, "byte " .. sent)
    for _ = 1, 3 do w.client:step(0) end
    equal(w.got[1] ~= nil, sent == #text)
  end
  equal(w.got[1].body, "ab\r\n\0c")
  equal(line(peer), "ACK id=A")
  close(w, peer)
end)

case("a body of 1 MiB arrives", function()
  local w = world()
  local peer = opened(w)
  local body = every_byte:rep(4096)
  local text, from = payrelay.core.encode("MSG", { id = "A" }, body), 1
  peer:settimeout(0)
  drive(w, function()
    if from <= #text then
      local last, _, partial = peer:send(text, from)
      from = (last or partial) + 1
    end
    return w.got[1]
  end, "the message")
  equal(w.got[1].body == body, true)
  peer:settimeout(DEADLINE)
  equal(line(peer), "ACK id=A")
  close(w, peer)
end)

case("no read asks for no bytes, and none by lines", function()
  local w = world()
  local peer = opened(w)
  local asked = {}
  local real = w.client.session.sock
  w.client.session.sock = setmetatable({
    receive = function(_, what) asked[#asked + 1] = what return real:receive(what) end,
    settimeout = function(_, ...) return real:settimeout(...) end,
    send = function(_, ...) return real:send(...) end,
    close = function() return real:close() end,
    getfd = function() return real:getfd() end,
    dirty = function() return real:dirty() end,
  }, {})
  peer:send("MSG id=A =0\n\nMSG id=B =0\n\n")
  drive(w, function() return w.got[2] end, "two messages")
  equal({ w.got[1].body, w.got[2].body, line(peer), line(peer) }, { "", "", "ACK id=A", "ACK id=B" })
  equal(#asked > 0, true)
  for _, what in ipairs(asked) do equal(type(what) == "number" and what >= 1, true, tostring(what)) end
  close(w, peer)
end)

case("what the socket takes in parts is written whole, and in order", function()
  local w = world()
  opened(w)
  local real, taken, turn = w.client.session.sock, {}, 0
  w.client.session.sock = {
    settimeout = function() end,
    send = function(_, bytes, from)
      turn = turn + 1
      if turn % 3 == 0 then return nil, "timeout", from - 1 end -- nothing
      local last = math.min(from + turn - 1, #bytes)
      taken[#taken + 1] = bytes:sub(from, last)
      if turn % 3 == 1 and last < #bytes then return nil, "timeout", last end
      return last
    end,
  }
  w.client.session:send_frame("PING", { text = every_byte })
  equal(table.concat(taken), payrelay.core.encode("PING", { text = every_byte }))
  w.client.session.sock = real
  close(w)
end)

case("a relay that takes no byte holds the program for write_timeout at most", function()
  local w = world{ real = { "clock" }, write_timeout = 0.05 }
  local peer = opened(w)
  local session, count = w.client.session, 0
  while session:send_frame("TOUCH", { id = ("A"):rep(900) }) do count = count + 1 end
  equal({ count > 0, session.over.why }, { true, "could not write: timeout" })
  w.client:step(0)
  equal(w.client.session, nil)
  close(w, peer)
end)

-------------------------------------------------------------------------------------------------------------- dialogue

case("run() or step() from within a handler is refused, not entered", function()
  local w
  w = world{ on_message = function() w.client:step(0) end }
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  drive(w, function() return w.said[2] end, "the refusal")
  local answer = payrelay.core.unescape(line(peer))
  equal({ answer:match("^NACK id=A"), answer:match("run%(%) or step.*$") }, { "NACK id=A", "run() or step() from within a handler" })
  close(w, peer)
end)

---------------------------------------------------------------------------------------------------------- reconnecting

case("step() with no time does not sleep through the pause", function()
  local w = world()
  opened(w):close()
  dropped(w)
  for _ = 1, 5 do equal(w.client:step(0), true) end
  equal({ w.client.session, w.now }, { nil, 1000000 })
  w.now = w.now + 0.5
  w.client:step(0)
  equal(w.client.session ~= nil, true)
  close(w)
end)

case("what was read but not handled before the connection was lost is thrown away", function()
  local w
  w = world{ on_message = function(msg) w.got[#w.got + 1] = msg w.client.session.sock:close() end }
  local peer = opened(w)
  peer:send("MSG id=A =0\n\nMSG id=B =0\n\n")
  dropped(w)
  local again = reconnected(w)
  again:send(OK .. "PING\n")
  drive(w, function() return w.client.session.open end, "OK")
  equal({ line(again), #w.got }, { "PONG", 1 })
  close(w, again)
  peer:close()
end)

---------------------------------------------------------------------------------------------------------------- silence

case("bytes that wait in the socket are no silence, however late the turn", function()
  local w = world()
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  socket.select({ w.client.session.sock }, nil, DEADLINE)
  w.now = w.now + 100000
  w.client:step(0)
  drive(w, function() return w.got[1] end, "the message")
  equal(line(peer), "ACK id=A")
  close(w, peer)
end)

case("close() says BYE, answers what crossed it, and ends when the relay closes", function()
  local w = world()
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  peer:shutdown("send")
  w.client:close()
  equal({ line(peer), line(peer), (peer:receive(1)) }, { "BYE", "ACK id=A" })
  equal({ w.client:step(0), #w.got, w.said[#w.said] }, { false, 1, "info closed" })
  w.client:run()
  close(w, peer)
end)

case("close() waits close_timeout at most for a relay that does not close", function()
  local w = world{ real = { "clock", "sleep" }, close_timeout = 0.05 }
  local peer = opened(w)
  w.client:close()
  equal(w.client:step(0), false)
  equal(line(peer), "BYE")
  close(w, peer)
end)

case("close() from within a handler: run() waits close_timeout at most for the relay", function()
  local w
  w = world{ real = { "clock", "sleep" }, close_timeout = 0.05, on_message = function() w.client:close() end }
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  local before = socket.gettime()
  w.client:run()
  equal(socket.gettime() - before < 10, true, "far less than the 50 s of silence")
  equal({ line(peer), line(peer) }, { "BYE", "ACK id=A" })
  close(w, peer)
end)

case("close() from within a handler: it is ACKed, and run() returns", function()
  local w
  w = world{ on_message = function() w.client:close() end }
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  peer:shutdown("send")
  w.client:run()
  equal({ line(peer), line(peer), (peer:receive(1)) }, { "BYE", "ACK id=A" })
  close(w, peer)
end)

case("close() before anything was opened, or between two connections, opens nothing", function()
  local w = world()
  w.client:close()
  equal(w.client:step(0), false)
  w.listener:settimeout(0)
  equal(w.listener:accept(), nil)
  close(w)
  w = world()
  opened(w):close()
  dropped(w)
  w.client:close()
  equal(w.client:step(0), false)
  close(w)
end)

---------------------------------------------------------------------------------------------------------------- options

case("host and port are needed, and payrelay.connect is LuaSocket's", function()
  for _, change in ipairs{ { host = 7 }, { port = "x" } } do
    local o = { host = "127.0.0.1", port = 1, id = "a", on_message = function() end }
    for key, value in pairs(change) do o[key] = value end
    equal(pcall(payrelay.connect, o), false, check.show(change))
  end
  equal(payrelay.connect, payrelay.luasocket.connect)
end)

check.done()
