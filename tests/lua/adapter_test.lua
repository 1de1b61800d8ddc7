-- Tests of the Lua client's LuaSocket part against a scripted relay on a loopback port that the system chose. From the
-- top of the project: lua5.1 tests/lua/adapter_test.lua
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
    if w.client.sock then socket.select({ w.client.sock }, nil, 0.1) end
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
  local peer = accept(w)
  equal(line(peer), HELLO)
  return peer, w.slept[#w.slept]
end

local function close(w, peer)
  if w.client.sock then w.client.sock:close() end
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
  local real = w.client.sock
  w.client.sock = setmetatable({
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
  local real, taken, turn = w.client.sock, {}, 0
  w.client.sock = {
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
  equal(w.client:write(every_byte), true)
  equal(table.concat(taken), every_byte)
  w.client.sock = real
  close(w)
end)

case("a relay that takes no byte holds the program for write_timeout at most", function()
  local w = world{ real = { "clock" }, write_timeout = 0.05 }
  local peer = opened(w)
  local session, count = w.client.session, 0
  while w.client:touch({ id = ("A"):rep(900) }) do count = count + 1 end
  equal({ count > 0, session.over.why }, { true, "could not write: timeout" })
  w.client:step(0)
  equal(w.client.session, nil)
  close(w, peer)
end)

-------------------------------------------------------------------------------------------------------------- dialogue

case("PING is answered while idle", function()
  local w = world()
  local peer = opened(w)
  peer:send("PING\n")
  drive(w, function() return socket.select({ peer }, nil, 0)[1] end, "PONG")
  equal(line(peer), "PONG")
  close(w, peer)
end)

case("refusals and errors become NACK, and the next message is served", function()
  local outcomes = {
    A = function() return nil, "no stock", 30 end, B = function() error("broken", 0) end, C = function() return false end,
    D = function() return 7 end, E = function() return true end,
  }
  local w
  w = world{ on_message = function(msg) w.got[#w.got + 1] = msg return outcomes[msg.id]() end }
  local peer = opened(w)
  for _, id in ipairs{ "A", "B", "C", "D", "E" } do peer:send("MSG id=" .. id .. " =7\nprivate\n") end
  drive(w, function() return w.got[5] end, "five messages")
  equal({ line(peer), line(peer), line(peer), line(peer):sub(1, 16), line(peer) },
    { "NACK delay=30 id=A reason=no%20stock", "NACK id=B reason=broken", "NACK id=C", "NACK id=D reason", "ACK id=E" })
  local all = table.concat(w.said, "\n")
  equal({ all:find("private", 1, true), all:find(TOKEN, 1, true) }, {})
  close(w, peer)
end)

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

case("a broken connection is opened again after 0.5 s to 1 s", function()
  for jitter, wanted in pairs{ [0] = 0.5, [1] = 1 } do
    local w = world()
    w.jitter = jitter
    for _ = 1, 3 do -- each OK makes the waits start afresh
      local peer = opened(w)
      peer:close()
      dropped(w)
      equal(w.client.pause.span, wanted)
      w.now = w.now + wanted
    end
    close(w)
  end
end)

case("failures in a row wait longer, up to 30 s; OK makes it start afresh", function()
  local w = world()
  w.jitter = 1
  local port = select(2, w.listener:getsockname())
  w.listener:close()
  local waits = {}
  for at = 1, 8 do
    w.client:step(1000)
    waits[at] = w.client.pause.span
  end
  equal(waits, { 1, 2, 4, 8, 16, 30, 30, 30 })
  equal(w.slept, { 1, 2, 4, 8, 16, 30, 30 })
  w.jitter = 0
  w.client:step(1000)
  equal(w.client.pause.span, 0.5, "the jitter reaches down to 0.5 s")
  w.listener = assert(socket.bind("127.0.0.1", tonumber(port)))
  w.listener:settimeout(DEADLINE)
  w.client:step(1000)
  local peer = accept(w)
  equal(line(peer), HELLO)
  peer:send(OK)
  drive(w, function() return w.client.session.open end, "OK")
  w.jitter = 1
  peer:close()
  dropped(w)
  equal(w.client.pause.span, 1)
  close(w)
end)

case("step() with no time does not sleep through the pause, and touch() without a connection does nothing", function()
  local w = world()
  equal(w.client:touch({ id = "A" }), false)
  opened(w):close()
  dropped(w)
  for _ = 1, 5 do equal(w.client:step(0), true) end
  equal({ w.client.session, w.now }, { nil, 1000000 })
  w.now = w.now + 0.5
  w.client:step(0)
  equal(w.client.session ~= nil, true)
  close(w)
end)

case("BYE: the asked wait is kept, and at most half of it added", function()
  for jitter, wanted in pairs{ [0] = 5, [1] = 7.5 } do
    local w = world()
    w.jitter = jitter
    local peer = opened(w)
    peer:send("MSG id=A =0\n\nBYE reason=takeover retry=5\n")
    dropped(w)
    equal({ line(peer), (peer:receive(1)) }, { "ACK id=A" })
    local _, slept = reconnected(w)
    equal(slept, wanted)
    equal(w.said[#w.said], ("warn the relay said BYE: takeover; next try in %.1f s"):format(wanted))
    close(w, peer)
  end
end)

case("a refused token is an error for the operator and a wait of 30 s at least; it is never shown", function()
  local w = world()
  w.client:step(0)
  local peer = accept(w)
  line(peer)
  peer:send("ERR code=bad-token fatal=1 msg=the%20token%20is%20wrong\n")
  peer:close()
  dropped(w)
  equal(w.said, { "error the relay said bad-token: the token is wrong; next try in 30.0 s" })
  local again, slept = reconnected(w)
  equal(slept, 30)
  close(w, again)
end)

case("a full relay is tried again soon", function()
  local w = world()
  w.client:step(0)
  local peer = accept(w)
  peer:send("ERR code=limit fatal=1 msg=full\n")
  dropped(w)
  equal(w.client.pause.span, 0.5)
  close(w, peer)
end)

case("a broken frame and a line too long close the connection", function()
  for _, bytes in ipairs{ "MSG  id=A\n", ("x"):rep(1025), "MSG id=A =9999999999\n", "MSG id=A =1\nab" } do
    local w = world()
    local peer = opened(w)
    peer:send(bytes)
    dropped(w)
    equal({ #w.got, w.said[2]:match("the relay sent a broken frame") }, { 0, "the relay sent a broken frame" })
    close(w, peer)
  end
end)

case("what was read but not handled before the connection was lost is thrown away", function()
  local w
  w = world{ on_message = function(msg) w.got[#w.got + 1] = msg w.client.sock:close() end }
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

case("2.5 heartbeats of silence end the connection, and not a moment earlier", function()
  local w = world()
  local peer = opened(w)
  w.now = w.now + 49.9
  w.client:step(0)
  equal(w.client.session ~= nil, true)
  peer:send("PING\n")
  drive(w, function() return w.client.quiet.at == w.now end, "PING")
  w.now = w.now + 49.9
  w.client:step(0)
  equal(w.client.session ~= nil, true)
  w.now = w.now + 0.2
  w.client:step(0)
  equal(w.client.session, nil)
  equal(w.said[2], "warn nothing heard from the relay for 50 s; next try in 0.5 s")
  close(w, peer)
end)

case("bytes that wait in the socket are no silence, however late the turn", function()
  local w = world()
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  socket.select({ w.client.sock }, nil, DEADLINE)
  w.now = w.now + 100000
  w.client:step(0)
  drive(w, function() return w.got[1] end, "the message")
  equal(line(peer), "ACK id=A")
  close(w, peer)
end)

case("time spent in a handler is not the relay's silence", function()
  local w
  w = world{ on_message = function(msg) w.now = w.now + 100000 w.got[#w.got + 1] = msg end }
  local peer = opened(w)
  peer:send("MSG id=A =0\n\n")
  drive(w, function() return w.got[1] end, "the message")
  for _ = 1, 3 do w.client:step(0) end
  equal(w.client.session ~= nil, true)
  close(w, peer)
end)

case("a relay that accepts and says nothing is left after connect_timeout", function()
  local w = world()
  w.client:step(0)
  local peer = accept(w)
  w.now = w.now + 4.9
  w.client:step(0)
  equal(w.client.session ~= nil, true)
  w.now = w.now + 0.2
  w.client:step(0)
  equal(w.client.session, nil)
  close(w, peer)
end)

case("a clock that is set back delays nothing by more than its own span", function()
  local w = world()
  opened(w):close()
  dropped(w)
  w.now = w.now - 86400
  w.client:step(0.5)
  equal({ w.slept, w.client.session ~= nil }, { { 0.5 }, true })
  close(w)
end)

case("the program's math.random is left alone, and jitter differs between clients", function()
  local kept = math.random
  rawset(math, "random", function() error("used") end)
  local seen = {}
  local ok, why = pcall(function()
    for at = 1, 4 do
      local w = world{ real = { "random" } }
      seen[at] = w.client.options.random()
      for _ = 1, 1000 do
        local number = w.client.options.random()
        equal(number > 0 and number < 1, true, tostring(number))
      end
      close(w)
    end
  end)
  rawset(math, "random", kept)
  equal({ ok, why }, { true })
  equal(seen[1] ~= seen[2] and seen[2] ~= seen[3] and seen[3] ~= seen[4], true)
end)

---------------------------------------------------------------------------------------------------------------- closing

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

case("wrong options are refused at once, without showing the token", function()
  local function refused(change)
    local o = { host = "127.0.0.1", port = 1, id = "a", token = TOKEN, on_message = function() end }
    for key, value in pairs(change) do o[key] = value end
    local ok, why = pcall(payrelay.connect, o)
    return not ok and not tostring(why):find(TOKEN, 1, true)
  end
  for _, change in ipairs{
    { host = 7 }, { port = "x" }, { id = "" }, { id = "a b" }, { id = ("a"):rep(65) }, { token = 5 }, { token = TOKEN:rep(5) },
    { max = -1 }, { max = 1025 }, { max = 1.5 }, { max = "16" }, { on_message = 5 },
  } do equal(refused(change), true, check.show(change)) end
  equal(refused{}, false)
end)

------------------------------------------------------------------------------------------------------ as users start it

-- The interpreter that runs this file.
local at = 0
while arg[at - 1] do at = at - 1 end
local lua = arg[at]

case("a whole program: backend.lua serves, comes back after BYE, and stops", function()
  local listener = assert(socket.bind("127.0.0.1", 0))
  listener:settimeout(DEADLINE)
  local port = select(2, listener:getsockname())
  local program = assert(io.popen(("%s tests/lua/backend.lua 127.0.0.1 %s game-01 ack 2>&1"):format(lua, port)))
  local w = { listener = listener }
  local peer = accept(w)
  equal(line(peer), "HELLO 1 id=game-01 max=16")
  peer:send(OK .. "MSG id=A try=1 h=0 =9\nWikipedia\n")
  equal(line(peer), "ACK id=A")
  peer:send("MSG id=B try=2 h=3 =259\nabc" .. every_byte .. "\nPING\nBYE reason=drain retry=0\n")
  equal({ line(peer), line(peer) }, { "ACK id=B", "PONG" })
  equal((peer:receive(1)), nil)
  peer:close()
  peer = accept(w)
  equal(line(peer), "HELLO 1 id=game-01 max=16")
  peer:send(OK .. "MSG id=C =4\nstop\n")
  equal({ line(peer), line(peer) }, { "BYE", "ACK id=C" })
  peer:close()
  local printed = program:read("*a")
  program:close()
  listener:close()
  local wanted = {
    "READY", "GOT A 9 11e60398 try=1", "GOT B 256 adf67f81 try=2", "READY", "CLOSED",
  }
  local found = {}
  for text in printed:gmatch("[^\n]+") do if not text:find("^payrelay ") then found[#found + 1] = text end end
  equal(found, wanted)
end)

case("the other modes of backend.lua do as they say", function()
  local modes = {
    { "echo-hex", "ACK id=A", "HEX A 00ff0d0a" },
    { "'nack:no stock'", "NACK id=A reason=no%20stock", "NACKED A" },
    { "error", "NACK id=A reason=the%20handler%20failed,%20as%20it%20was%20told%20to", "RAISED A" },
    { "slow:0", "TOUCH id=A", "GOT A 4 03250117 try=1" },
  }
  for _, mode in ipairs(modes) do
    local listener = assert(socket.bind("127.0.0.1", 0))
    listener:settimeout(DEADLINE)
    local port = select(2, listener:getsockname())
    local program = assert(io.popen(("%s tests/lua/backend.lua 127.0.0.1 %s game-01 %s t0ken 3 2>/dev/null"):format(lua, port, mode[1])))
    local peer = accept{ listener = listener }
    equal(line(peer), "HELLO 1 id=game-01 max=3 token=t0ken")
    peer:send(OK .. "MSG id=A =4\n\0\255\r\n\nMSG id=B =4\nstop\n")
    equal(line(peer), mode[2])
    if mode[1] == "slow:0" then for _ = 1, 9 do equal(line(peer), "TOUCH id=A") end equal(line(peer), "ACK id=A") end
    equal({ line(peer), line(peer) }, { "BYE", "ACK id=B" })
    peer:close()
    local printed = program:read("*a")
    program:close()
    listener:close()
    equal(printed, "READY\n" .. mode[3] .. "\nCLOSED\n")
  end
end)

check.done()
