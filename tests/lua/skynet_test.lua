-- Tests of the client's skynet adapter over a fake of skynet's API (fake_skynet.lua) and a scripted relay on a loopback port
-- that the system chose. From the top of the project: lua5.4 tests/lua/skynet_test.lua

if _VERSION == "Lua 5.1" and not rawget(_G, "jit") then -- which cannot yield through pcall; skynet is Lua 5.4
  print("skynet does not run on plain Lua 5.1")
  print("0 passed, 0 failed")
  return
end

package.path = "clients/lua/?.lua;tests/lua/?.lua;" .. package.path
local skynet = require("fake_skynet")
local payrelay = require("payrelay")
local check = require("check")
local luasocket = require("socket")
local case, equal = check.case, check.equal

local DEADLINE = 20 -- real seconds that anything on loopback may take; reached by failures only
local OK = "OK id=game-01 node=pay-1-0a1b2c session=7 heartbeat=%s max_body=1048576\n"

local every_byte = {}
for byte = 0, 255 do every_byte[byte + 1] = string.char(byte) end
every_byte = table.concat(every_byte)

-- Turns of the world until the condition holds.
local function drive(w, condition, what)
  local limit = luasocket.gettime() + DEADLINE
  while not condition() do
    if luasocket.gettime() > limit then error("waited in vain for " .. what .. "; log: " .. check.show(w.said), 2) end
    skynet.step(0.05)
    if skynet.errors[1] then error(table.remove(skynet.errors), 2) end
  end
end

-- A listening relay and a client that runs; w.peer is the relay's end, w.heard what came there.
local function world(options)
  local w = { said = {}, got = {}, heard = "" }
  w.listener = assert(luasocket.bind("127.0.0.1", 0))
  w.listener:settimeout(0)
  local o = {
    host = "127.0.0.1", port = tonumber((select(2, w.listener:getsockname()))), id = "game-01",
    on_log = function(level, text) w.said[#w.said + 1] = level .. " " .. text end,
    on_message = function(msg) w.got[#w.got + 1] = msg end,
  }
  for key, value in pairs(options or {}) do o[key] = value end
  w.client = payrelay.skynet.connect(o)
  w.client:run()
  return w
end

local function accept(w)
  drive(w, function() w.peer = w.listener:accept() return w.peer end, "a connection")
  w.peer:settimeout(0)
  w.heard = ""
end

-- Turns until the client has said this next.
local function expect(w, text)
  drive(w, function()
    local bytes, _, partial = w.peer:receive(65536)
    w.heard = w.heard .. (bytes or partial)
    return #w.heard >= #text
  end, text)
  equal(w.heard:sub(1, #text), text)
  w.heard = w.heard:sub(#text + 1)
end

local function expect_closed(w)
  drive(w, function()
    local bytes, why, partial = w.peer:receive(65536)
    w.heard = w.heard .. (bytes or partial)
    return why == "closed"
  end, "the end of the connection")
end

local function opened(options, heartbeat)
  local w = world(options)
  accept(w)
  expect(w, "HELLO 1 id=game-01 max=16\n")
  w.peer:send(OK:format(heartbeat or 20))
  drive(w, function() return w.client.session and w.client.session.open end, "OK")
  return w
end

local function finish(w)
  w.client:close()
  expect(w, "BYE\n")
  w.peer:close()
  drive(w, function() return w.client:closed() and skynet.open_sockets() == 0 end, "the end")
  w.listener:close()
end

case("all bytes, empty bodies and lines that end in CR LF arrive, and are acknowledged", function()
  local w = opened()
  w.peer:send(payrelay.core.encode("MSG", { id = "A", h = 4 }, "\r\n\r\n" .. every_byte))
  w.peer:send("PING\r\nMSG id=B =0\r\n\nMSG id=C =1\n\r\n")
  drive(w, function() return w.got[3] end, "three messages")
  equal({ w.got[1].head, w.got[1].body, w.got[2].body, w.got[3].body }, { "\r\n\r\n", every_byte, "", "\r" })
  expect(w, "PONG\n") -- the reader's own word comes before those of the forks
  expect(w, "ACK id=A\nACK id=B\nACK id=C\n")
  finish(w)
end)

case("random bodies in random pieces arrive whole", function()
  local seed = tonumber(os.getenv("PAYRELAY_SEED")) or os.time()
  print("random pieces: PAYRELAY_SEED=" .. seed)
  local random = check.random(seed)
  local w, wanted, text = opened(), {}, {}
  for at = 1, 30 do
    local bytes = {}
    for byte = 1, random(0, 1) * random(0, 4000) do bytes[byte] = string.char(random(0, 255)) end
    wanted[at] = table.concat(bytes)
    text[at] = payrelay.core.encode("MSG", { id = "M" .. at }, wanted[at])
  end
  text = table.concat(text)
  local at = 1
  while at <= #text do
    local size = random(1, 3000)
    w.peer:settimeout(DEADLINE)
    assert(w.peer:send(text:sub(at, at + size - 1)))
    w.peer:settimeout(0)
    at = at + size
    skynet.step(0)
  end
  drive(w, function() return w.got[30] end, "all messages")
  for each = 1, 30 do equal(w.got[each].body == wanted[each], true, "message " .. each) end
  drive(w, function()
    local bytes, _, partial = w.peer:receive(65536)
    w.heard = w.heard .. (bytes or partial)
    return select(2, w.heard:gsub("\n", "")) == 30
  end, "30 ACKs")
  w.heard = ""
  finish(w)
end)

case("a body that takes longer than 2.5 heartbeats is no silence", function()
  local w = opened(nil, 0.2)
  local text = payrelay.core.encode("MSG", { id = "A" }, every_byte)
  local piece = math.ceil(#text / 4)
  for at = 1, #text, piece do
    w.peer:send(text:sub(at, at + piece - 1))
    -- The client asks after 1.5 heartbeats without a byte, so four pieces take six.
    if at + piece <= #text then expect(w, "PING\n") end
  end
  expect(w, "ACK id=A\n")
  equal({ w.got[1].body == every_byte, #w.said }, { true, 1 })
  w.listener:close()
  w.peer:close()
  w.client:close()
end)

case("a peer that ends no line is left after 1,024 bytes, before OK and after it", function()
  for _, what in ipairs{ "", OK:format(20) } do
    local w = world()
    accept(w)
    expect(w, "HELLO 1 id=game-01 max=16\n")
    w.peer:send(what .. ("x"):rep(1025))
    expect_closed(w)
    equal(w.said[#w.said]:match("broken frame: ([^;]*)"), "a line of more than 1024 bytes")
    w.client:close()
    w.listener:close()
  end
  local w = world()
  accept(w)
  expect(w, "HELLO 1 id=game-01 max=16\n")
  w.peer:send("MSG id=A =1025\n")
  expect_closed(w)
  equal(w.said[1]:match("broken frame: ([^;]*)"), "1025 bytes of data, and 1024 are allowed")
  w.client:close()
  w.listener:close()
end)

case("small frames are not held back for larger ones", function()
  skynet.nodelay = {}
  local w = opened()
  equal(skynet.nodelay, { w.client.session.fd })
  finish(w)
end)

case("skynet 1.0 has its modules under other names", function()
  local found = {}
  for _, name in ipairs{ "skynet.socket", "skynet.socketdriver" } do
    found[name], package.loaded[name] = package.loaded[name], nil
  end
  local luasockets = package.loaded.socket
  package.loaded.socket, package.loaded.socketdriver = found["skynet.socket"], found["skynet.socketdriver"]
  local ok, why = pcall(function()
    local w = opened()
    w.peer:send("MSG id=A =0\n\n")
    expect(w, "ACK id=A\n")
    finish(w)
  end)
  for name, module in pairs(found) do package.loaded[name] = module end
  package.loaded.socket, package.loaded.socketdriver = luasockets, nil
  equal({ ok, why }, { true })
end)

case("an error while reading ends the connection, and the client comes again", function()
  local w = opened{ backoff_min = 0.01, backoff_max = 0.02 }
  local read = skynet.socket.read
  skynet.socket.read = function() skynet.socket.read = read error("assertion failed!", 0) end
  w.peer:send("PING\n")
  expect_closed(w)
  equal(w.said[2]:match("^error an error in the client: assertion failed!"), "error an error in the client: assertion failed!")
  accept(w)
  expect(w, "HELLO 1 id=game-01 max=16\n")
  w.peer:send(OK:format(20))
  drive(w, function() return w.client:connected() end, "OK")
  finish(w)
end)

case("send gives ok and the code, close(true) waits, in any coroutine of the service", function()
  local w = opened()
  local told
  skynet.fork(function() told = { w.client:send("game-02", "hi") } end)
  expect(w, "SEND ref=1 to=game-02 =2\nhi\n")
  w.peer:send("ERR code=offline ref=1 msg=x\n")
  drive(w, function() return told end, "the answer")
  equal(told, { nil, "offline" })
  local ended
  skynet.fork(function() ended = w.client:close(true) end)
  expect(w, "BYE\n")
  equal(ended, nil)
  w.peer:close()
  drive(w, function() return ended end, "the end")
  w.listener:close()
end)

case("a callback that waits for ever delays no message", function()
  local w = opened{ on_data = function() skynet.wait({}) end }
  w.peer:send("DATA from=b =1\nx\nDATA from=b =1\nx\nMSG id=A =0\n\nPING\n")
  expect(w, "PONG\nACK id=A\n")
  finish(w)
end)

case("handlers run beside each other; a slow one is touched; an error is a NACK", function()
  local w
  local go_on = {}
  w = opened{ on_message = function(msg)
    if msg.id == "B" then error("broken", 0) end
    skynet.wait(go_on)
    w.client:touch(msg)
    skynet.wait(go_on)
    return true
  end }
  w.peer:send("MSG id=A =0\n\nMSG id=B =7\nprivate\nPING\n")
  expect(w, "PONG\nNACK id=B reason=broken\n")
  skynet.wakeup(go_on)
  expect(w, "TOUCH id=A\n")
  skynet.wakeup(go_on)
  expect(w, "ACK id=A\n")
  equal(table.concat(w.said):find("private"), nil)
  finish(w)
end)

case("a relay that is silent is left by the watchdog, although no read has a timeout", function()
  local w = opened(nil, 0.2)
  expect(w, "PING\n")
  expect_closed(w)
  equal(w.said[2]:match("nothing heard for 0.5 s"), "nothing heard for 0.5 s")
  drive(w, function() return skynet.open_sockets() == 0 end, "the socket's end")
  accept(w) -- and it has come again
  expect(w, "HELLO 1 id=game-01 max=16\n")
  w.peer:send(OK:format(20))
  drive(w, function() return w.client.session and w.client.session.open end, "OK")
  finish(w)
end)

case("the last ACK after a BYE is written before the socket is closed", function()
  local go_on, at_work = {}, false
  local w = opened{ on_message = function()
    at_work = true
    skynet.wait(go_on)
    return true
  end }
  w.peer:send("MSG id=A =0\n\nBYE reason=drain retry=60\n")
  drive(w, function() return at_work and w.client.session.bye end, "the BYE")
  skynet.wakeup(go_on)
  expect(w, "ACK id=A\n")
  expect_closed(w)
  drive(w, function() return skynet.open_sockets() == 0 end, "the socket's end")
  equal(w.client.retry_timer.span >= 60, true)
  w.client:close()
  drive(w, function() return w.client:closed() end, "the end")
  w.listener:close()
end)

case("a relay that is not there is tried again", function()
  local w = { said = {} }
  local listener = assert(luasocket.bind("127.0.0.1", 0))
  local port = tonumber((select(2, listener:getsockname())))
  listener:close()
  w.client = payrelay.skynet.connect{
    host = "127.0.0.1", port = port, id = "game-01", on_message = print, backoff_min = 0.01, backoff_max = 0.02,
    on_log = function(_, text) w.said[#w.said + 1] = text end,
  }
  w.client:run()
  drive(w, function() return w.said[3] end, "three failures")
  equal(w.said[3]:match("^could not connect to 127.0.0.1:" .. port), "could not connect to 127.0.0.1:" .. port)
  w.client:close()
  equal(w.client:closed(), true)
end)

case("the log goes to skynet's, without bodies and tokens", function()
  skynet.said = {}
  local w = world{ token = "5ec4e7", on_log = false }
  accept(w)
  w.peer:send("ERR code=bad-token fatal=1 msg=wrong\n")
  drive(w, function() return skynet.said[1] end, "the log")
  equal(skynet.said[1]:match("^payrelay error: the relay said bad%-token: wrong"), "payrelay error: the relay said bad-token: wrong")
  equal(table.concat(skynet.said):find("5ec4e7"), nil)
  w.client:close()
  w.listener:close()
end)

case("the example serves", function()
  local w = { said = {}, listener = assert(luasocket.bind("127.0.0.1", 0)) }
  w.listener:settimeout(0)
  skynet.environment = { payrelay_port = select(2, w.listener:getsockname()), payrelay_token = "t0ken" }
  skynet.said = {}
  dofile("clients/lua/examples/skynet.lua")
  accept(w)
  expect(w, "HELLO 1 id=game-01 max=16 token=t0ken\n")
  w.peer:send(OK:format(20) .. "MSG id=A try=1 route=r =5\nhello\n")
  expect(w, "ACK id=A\n")
  equal(skynet.said[#skynet.said], "A try 1 route r body hello")
  w.listener:close()
end)

case("the example for a game: services, order, errors, a hot update", function()
  local listener = assert(luasocket.bind("127.0.0.1", 0))
  local w = { said = skynet.said, listener = listener }
  listener:settimeout(0)
  skynet.environment = { payrelay_port = select(2, listener:getsockname()) }
  local folder = "clients/lua/examples/skynet/"
  skynet.luaservice, package.path = folder .. "?.lua", folder .. "?.lua;" .. package.path
  local gate
  skynet.fork(function() gate = skynet.newservice("payrelay_gate") end)
  accept(w)
  expect(w, "HELLO 1 id=game-01 max=16\n")
  w.peer:send(OK:format(20))
  local function call(...)
    local made, args = {}, { ... }
    skynet.fork(function() made.result = { skynet.call(gate, "lua", args[1], args[2], args[3]) } end)
    return made
  end
  local function message(id, body) w.peer:send(payrelay.core.encode("MSG", { id = id, try = 1, route = "r" }, body)) end
  -- Two of one player, one of another: in the player's order, beside each other. A retry is booked once.
  skynet.said = {}
  message("A", "player=7&order=A-1")
  message("B", "player=7&order=A-2")
  message("C", "player=8&order=B-1")
  message("D", "player=7&order=A-1")
  message("E", "player=7&amount=1")
  message("F", "nobody")
  local heard, lines = {}, 0
  drive(w, function()
    local bytes, _, partial = w.peer:receive(65536)
    for line in (bytes or partial):gmatch("(.-)\n") do
      heard[line:match("id=(%u)")] = line
      lines = lines + 1
    end
    return lines == 6
  end, "six answers")
  equal(heard, {
    A = "ACK id=A", B = "ACK id=B", C = "ACK id=C", D = "ACK id=D",
    E = "NACK delay=-1 id=E reason=the%20body%20names%20no%20order",
    F = "NACK delay=-1 id=F reason=the%20body%20names%20no%20player",
  })
  local booked = {}
  for _, line in ipairs(skynet.said) do
    if line:find("^player 7") then booked[#booked + 1] = line end
  end
  equal(booked, { "player 7: order A-1 booked by version 1", "player 7: order A-2 booked by version 1" })
  -- New code, on the same connection; a broken file leaves the old one.
  local rules = package.loaded.pay_rules
  package.preload.pay_rules = function() error("a typing error", 0) end
  local broken = call("reload")
  drive(w, function() return broken.result end, "the answer")
  equal({ broken.result[1], package.loaded.pay_rules == rules }, { nil, true })
  package.preload.pay_rules = function()
    local fresh = assert(loadfile(folder .. "pay_rules.lua"))()
    fresh.version = 2
    return fresh
  end
  local reloaded = call("reload")
  drive(w, function() return reloaded.result end, "the answer")
  equal({ reloaded.result, skynet.cleared >= 2 }, { { true }, true })
  message("G", "player=7&order=A-3")
  expect(w, "ACK id=G\n")
  equal(skynet.said[#skynet.said], "player 7: order A-3 booked by version 2")
  -- Other services use the client by calls.
  local sent = call("send", "game-02", "hi")
  expect(w, "SEND ref=1 to=game-02 =2\nhi\n")
  w.peer:send("ERR code=offline ref=1 msg=x\n")
  drive(w, function() return sent.result end, "the answer")
  equal(sent.result, { nil, "offline" })
  local stopped = call("stop")
  expect(w, "BYE\n")
  w.peer:close()
  drive(w, function() return stopped.result end, "the end")
  equal(stopped.result, { true })
  listener:close()
  package.preload.pay_rules, package.loaded.pay_rules = nil, nil
end)

check.done()
