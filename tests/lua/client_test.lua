-- Tests of what every adapter shares: the dialogue, when to connect, what is remembered, the bus verbs. Without a socket,
-- through the push adapter: this file is the network and the clock. From the top of the project: lua5.1 tests/lua/client_test.lua

package.path = "clients/lua/?.lua;tests/lua/?.lua;" .. package.path
local payrelay = require("payrelay")
local check = require("check")
local case, equal = check.case, check.equal

local TOKEN = ("5ec4e7ab"):rep(8)
local OK = "OK id=game-01 node=pay-1-0a1b2c session=7 heartbeat=20 max_body=1048576\n"

local every_byte = {}
for byte = 0, 255 do every_byte[byte + 1] = string.char(byte) end
every_byte = table.concat(every_byte)

-- A client that has said HELLO, and what it sent since then, logged and closed. w.session is the newest session;
-- w.refuse makes connecting fail, w.broken makes writing fail, w.stuck holds whoever writes (in a coroutine).
local function world(options)
  local w = { now = 1000000, sent = {}, said = {}, got = {}, jitter = 0, closed = 0, connects = 0 }
  local o = {
    id = "game-01", clock = function() return w.now end, random = function() return w.jitter end,
    on_log = function(level, text) w.said[#w.said + 1] = level .. " " .. text end,
    on_message = function(msg) w.got[#w.got + 1] = msg end,
    open = function(session)
      w.session, w.connects = session, w.connects + 1
      if w.refuse then session:broke(w.refuse) elseif not w.hanging then session:opened() end
    end,
    write = function(_, bytes)
      if w.broken then return nil, w.broken end
      w.sent[#w.sent + 1] = bytes
      if w.stuck then coroutine.yield() end
      return true
    end,
    close = function() w.closed = w.closed + 1 end,
  }
  for key, value in pairs(options or {}) do o[key] = value end
  w.client = payrelay.push.connect(o)
  w.client:tick()
  w.hello = table.remove(w.sent)
  return w
end

-- The same, after OK.
local function opened(options)
  local w = world(options)
  w.session:feed(OK)
  return w
end

-- What was sent since the last look.
local function sent(w)
  local all = table.concat(w.sent)
  w.sent = {}
  return all
end

---------------------------------------------------------------------------------------------------------------- dialogue

case("HELLO says version, id, token and credit", function()
  equal(world{ token = ("ab"):rep(32), max = 4 }.hello, "HELLO 1 id=game-01 max=4 token=" .. ("ab"):rep(32) .. "\n")
  equal(world().hello, "HELLO 1 id=game-01 max=16\n")
  equal({ payrelay.PROTOCOL, type(payrelay.VERSION) }, { 1, "string" })
end)

case("OK opens it once and tells on_connect", function()
  local heard = {}
  local w = world{ on_connect = function(info) heard[#heard + 1] = info.session end }
  w.session:feed(OK .. OK)
  equal({ w.session.open, w.session.heartbeat, heard }, { true, 20, { "7" } })
  equal(w.said, { "info connected as game-01 to pay-1-0a1b2c, session 7" })
end)

case("a failing on_connect or on_log harms nothing", function()
  local w = opened{
    on_connect = function() error("mine") end, on_log = function() error("mine") end, on_message = function() error("mine", 0) end,
  }
  w.session:feed("MSG id=A =0\n\n")
  equal({ sent(w), w.session.over }, { "NACK id=A reason=mine\n" })
end)

case("MSG reaches the handler whole and is acknowledged", function()
  local w = opened()
  local head = "POST /notify/game-01 HTTP/1.1\r\ncontent-type: text/xml\r\n"
  w.session:feed(payrelay.core.encode("MSG", {
    id = "01JD8XK4ZQ3V5T7W9Y0A2B4C6D", try = 2, route = "/notify/{id}", verified = "alipay", event = "o 7", at = "1764000000000", h = #head,
  }, head .. every_byte))
  equal(w.got, { {
    id = "01JD8XK4ZQ3V5T7W9Y0A2B4C6D", try = 2, route = "/notify/{id}", verified = "alipay", event = "o 7", at = 1764000000000,
    head = head, body = every_byte,
  } })
  equal(sent(w), "ACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D\n")
end)

case("what the relay has opened is marked", function()
  local w = opened()
  w.session:feed("MSG id=A verified=wechatpay-v3:opened =0\n\nMSG id=B verified=wechatpay-v3 =0\n\n")
  equal({ w.got[1].verified, w.got[1].opened, w.got[2].verified, w.got[2].opened }, { "wechatpay-v3", true, "wechatpay-v3" })
end)

case("an empty body is an empty string", function()
  local w = opened()
  w.session:feed("MSG id=A try=1 h=0 =0\n\n" .. "MSG id=B try=1 h=4 =4\n\r\n\r\n\n")
  equal({ w.got[1].head, w.got[1].body, w.got[2].head, w.got[2].body }, { "", "", "\r\n\r\n", "" })
  equal(sent(w), "ACK id=A\nACK id=B\n")
end)

case("a refusal is NACKed and logged without the body or the token", function()
  local w = opened{ token = "5ec4e7", on_message = function() return nil, "no\nstock", 3 end }
  w.session:feed("MSG id=A =6\nsecret\n")
  equal(sent(w), "NACK delay=3 id=A reason=no%0Astock\n")
  local all = table.concat(w.said, "\n")
  equal(w.said[2], "warn refused A: no; stock")
  equal({ all:find("secret", 1, true), all:find("5ec4e7", 1, true) }, {})
end)

case("PING is answered, PONG and unknown verbs with their data are passed over", function()
  local w = opened()
  w.session:feed("PING\nPONG\nJUGGLE balls=3 =12\nMSG id=X =0\n\n" .. "PING\n")
  equal({ sent(w), w.session.over, #w.got }, { "PONG\nPONG\n", nil, 0 })
end)

case("verbs are verbs only: the session's own functions are not", function()
  local w = opened()
  w.session:feed("FEED\nSAY\nFINISH\nHELLO\n")
  equal(w.session.over, nil)
end)

case("BYE ends it with the wait that was asked for", function()
  local w = opened()
  w.session:feed("MSG id=A =0\n\nBYE reason=takeover retry=5\nMSG id=B =0\n\n")
  equal({ sent(w), w.session.over }, { "ACK id=A\n", { why = "the relay said BYE: takeover", retry = 5 } })
  equal({ w.closed, w.client.session, w.client.retry_timer.span }, { 1, nil, 5 })
end)

case("ERR is logged; a fatal one ends it, and all but limit need an operator", function()
  local w = opened()
  w.session:feed("ERR code=unknown-id id=A msg=not%20in%20flight\n")
  equal({ w.session.over, w.said[2] }, { nil, "warn the relay said unknown-id: not in flight" })
  for _, code in ipairs{ "bad-hello", "bad-token", "not-allowed", "bad-frame", "never-heard-of" } do
    w = world()
    w.session:feed("ERR code=" .. code .. " fatal=1 msg=no\n")
    equal(w.session.over, { why = "the relay said " .. code .. ": no", slow = true })
    equal({ w.client.retry_timer.span, w.said }, { 30, { "error the relay said " .. code .. ": no; next try in 30.0 s" } })
  end
  w = world()
  w.session:feed("ERR code=limit fatal=1 msg=full\n")
  equal({ w.session.over, w.client.retry_timer.span }, { { why = "the relay said limit: full", slow = false }, 0.5 })
end)

case("a broken frame ends it; what came before was handled", function()
  local w = opened()
  w.session:feed("MSG id=A =0\n\nmsg id=B\nMSG id=C =0\n\n")
  equal({ sent(w), w.session.over.why }, { "ACK id=A\n", "the relay sent a broken frame: no verb" })
  for _, broken in ipairs{ "MSG try=1 =0\n\n", "MSG id=" .. ("!"):rep(999) .. " =0\n\n", "MSG id=A h=-1 =0\n\n", "MSG id=A h=x =0\n\n" } do
    w = opened()
    w.session:feed(broken)
    equal({ sent(w), w.session.over.why }, { "", "the relay sent a broken MSG" })
  end
  w = opened()
  w.session:feed("MSG id=A h=99999999999999999999 =3\nabc\n")
  equal(w.session.over, nil)
end)

case("a failed write ends it: nothing further is handled, and the lost ACK is logged", function()
  local w = opened()
  w.broken = "closed"
  w.session:feed("MSG id=A =0\n\nMSG id=B =0\n\n")
  equal({ #w.got, w.session.over.why, w.closed }, { 1, "could not write: closed", 1 })
  equal(w.said[2], "warn the connection was lost before the ACK of A; expect the event again")
end)

case("after a failed write, a BYE or a fatal ERR that had come already still decides the wait", function()
  for text, over in pairs{
    ["BYE reason=takeover retry=5\n"] = { why = "the relay said BYE: takeover", retry = 5 },
    ["ERR code=bad-frame fatal=1 msg=no\n"] = { why = "the relay said bad-frame: no", slow = true },
    ["PING\nERR code=unknown-id msg=no\n"] = { why = "could not write: closed" },
  } do
    local w = opened()
    w.broken = "closed"
    w.session:feed("MSG id=A =0\n\nMSG id=B =0\n\n" .. text)
    equal({ #w.got, w.session.over }, { 1, over })
  end
end)

case("what is over stays over for its first reason, and says nothing more", function()
  local w = opened()
  w.session:finish("first", 5)
  w.session:finish("second")
  w.session:broke("third")
  w.session:feed("PING\n")
  equal({ w.session:send_frame("PING"), w.session.over, sent(w), w.closed }, { nil, { why = "first", retry = 5 }, "", 1 })
end)

case("TOUCH from within a handler goes out before its ACK, and after it no more", function()
  local w, kept
  w = opened{ on_message = function(msg) kept = msg equal(w.client:touch(msg), true) end }
  w.session:feed("MSG id=A =0\n\n")
  equal({ sent(w), w.client:touch(kept), w.client:touch({ id = "A" }) }, { "TOUCH id=A\nACK id=A\n", false, false })
end)

------------------------------------------------------------------------------------------------ handlers that wait

-- A world whose handlers run in coroutines, as with every adapter but LuaSocket; w.parked[id] goes on with what is given.
local function parked(options)
  local w
  options = options or {}
  options.on_message = function(msg)
    w.got[#w.got + 1] = msg.id
    w.parked[msg.id] = coroutine.running()
    return coroutine.yield()
  end
  w = opened(options)
  w.parked, w.going = {}, {}
  w.client.adapter = setmetatable({
    coroutines = true,
    spawn = function(run) w.going[#w.going + 1] = coroutine.create(run) assert(coroutine.resume(w.going[#w.going])) end,
    protected = function(run, ...) return true, run(...) end, -- plain Lua 5.1 cannot yield through pcall
  }, { __index = w.client.adapter })
  function w.answer(id, ...) assert(coroutine.resume(w.parked[id], ...)) end
  return w
end

case("handlers run beside each other, and PING is answered meanwhile", function()
  local w = parked()
  w.session:feed("MSG id=A =0\n\nMSG id=B =0\n\nPING\n")
  equal({ w.got, sent(w) }, { { "A", "B" }, "PONG\n" })
  w.answer("B", true)
  w.answer("A", nil, "no stock")
  equal(sent(w), "ACK id=B\nNACK id=A reason=no%20stock\n")
end)

case("after BYE what is in flight is answered, then it is over", function()
  local w = parked()
  w.session:feed("MSG id=A =0\n\nMSG id=B =0\n\nBYE reason=drain retry=1\n")
  w.answer("A", true)
  equal({ sent(w), w.session.over }, { "ACK id=A\n" })
  w.answer("B", true)
  equal({ sent(w), w.session.over, w.closed }, { "ACK id=B\n", { why = "the relay said BYE: drain", retry = 1 }, 1 })
end)

case("if the relay closes first, its BYE still decides the wait, and the ACK is not carried over", function()
  local w = parked()
  w.session:feed("MSG id=A =0\n\nBYE reason=takeover retry=5\n")
  w.session:broke("closed")
  equal({ w.session.over.retry, w.client.retry_timer.span }, { 5, 5 })
  w.now = w.now + 5
  w.client:tick()
  w.session:feed(OK)
  sent(w)
  w.answer("A", true)
  equal({ sent(w), w.said[#w.said] }, { "", "warn the connection was lost before the ACK of A; expect the event again" })
end)

case("more handlers than twice the credit are refused, not started", function()
  local w = parked{ max = 2 }
  for id in ("ABCDE"):gmatch(".") do w.session:feed("MSG id=" .. id .. " =0\n\n") end
  equal({ w.got, sent(w) }, { { "A", "B", "C", "D" }, "NACK id=E reason=busy:%204%20handlers%20are%20at%20work\n" })
  w.answer("A", true)
  w.session:feed("MSG id=F =0\n\n")
  equal(w.got[5], "F")
end)

case("who says something while another writes is taken along, in order", function()
  local w = opened()
  w.stuck = true
  local writer = coroutine.create(function() w.session:send_frame("PING") end)
  coroutine.resume(writer)
  w.session:send_frame("ACK", { id = "A" })
  w.session:send_frame("ACK", { id = "B" })
  equal(sent(w), "PING\n")
  coroutine.resume(writer)
  equal(sent(w), "ACK id=A\nACK id=B\n")
  coroutine.resume(writer)
  equal({ coroutine.status(writer), w.session.writing }, { "dead" })
end)

case("a write that takes longer than write_timeout ends it", function()
  local w = opened()
  w.stuck = true
  coroutine.resume(coroutine.create(function() w.session:send_frame("PING") end))
  w.now = w.now + 9.9
  w.client:tick()
  equal(w.session.over, nil)
  w.now = w.now + 0.2
  w.client:tick()
  equal(w.session.over.why, "the connection broke: the relay took no byte for 10 s")
end)

---------------------------------------------------------------------------------------------- callbacks that wait

-- A world with coroutines whose callbacks wait until w.go_on() is called; w.began lists which began.
local function held(options)
  local began, waiting = {}, nil
  local function callback(name)
    return function(...)
      began[#began + 1] = name .. " " .. tostring((select(select("#", ...), ...)))
      waiting = coroutine.running()
      coroutine.yield()
    end
  end
  options = options or {}
  options.on_data, options.on_gap = callback("data"), options.on_gap or callback("gap")
  local w = parked(options)
  w.began, w.callback = began, callback
  function w.go_on() assert(coroutine.resume(waiting)) end
  return w
end

case("a callback that does not return delays callbacks only, and they keep their order", function()
  local w = held()
  w.client:subscribe("news", w.callback("event"))
  w.session:feed("DATA from=b =1\n1\nEVENT ch=news =1\n2\nDATA from=b =1\n3\nERR code=busy ch=news msg=x\n")
  sent(w)
  w.session:feed("PING\nMSG id=A =0\n\n")
  w.answer("A", true)
  equal({ w.began, sent(w) }, { { "data 1" }, "PONG\nACK id=A\n" })
  for _ = 1, 3 do w.go_on() end
  equal(w.began, { "data 1", "event news", "data 3", "gap busy" })
end)

case("on_connect is such a callback", function()
  local w = parked()
  w.client.options.on_connect = function() coroutine.yield() end
  w.session:broke("closed")
  w.now = w.now + 1
  w.client:tick()
  sent(w)
  w.session:feed(OK .. "PING\nMSG id=A =0\n\n")
  w.answer("A", true)
  equal(sent(w), "PONG\nACK id=A\n")
end)

case("a callback that does not return for a heartbeat is logged, once", function()
  local w = held()
  w.session:feed("DATA from=b =1\n1\n")
  w.now = w.now + 19.9
  w.client:tick()
  equal(#w.said, 1)
  for _ = 1, 3 do
    w.now = w.now + 1
    w.client:tick()
  end
  w.go_on()
  equal({ w.said[2], w.said[3], w.said[4] },
    { "warn on_data has not returned for 20 s, and the callbacks after it wait", "info on_data has returned" })
end)

case("a callback that does not return does not keep the client from reconnecting", function()
  local w = held()
  w.session:feed("DATA from=b =1\n1\n")
  w.session:broke("closed")
  w.now = w.now + 1
  w.client:tick()
  w.session:feed(OK .. "MSG id=A =0\n\n")
  equal({ w.connects, w.got }, { 2, { "A" } })
end)

case("what waits for a callback has a bound; what is dropped is counted and told", function()
  local gaps = {}
  local w = held{ on_gap = function(channel, code) gaps[#gaps + 1] = channel .. " " .. code end }
  w.client:subscribe("news", w.callback("event"))
  w.session:feed(("DATA from=b =1\n1\n"):rep(1025) .. ("EVENT ch=news =1\n2\n"):rep(3))
  equal({ w.client.callbacks.last - w.client.callbacks.first + 1, w.said[2], w.said[3] },
    { 1024, "warn 1024 callbacks wait for on_data: what other backends send is dropped" })
  for _ = 1, 1024 do w.go_on() end
  equal({ #w.began, w.said[3], gaps }, { 1024, "warn 4 messages of other backends were dropped", { "news busy" } })
  w.session:feed("EVENT ch=news =1\n2\n")
  equal(w.began[1025], "event news")
  w = held()
  for _ = 1, 10 do w.session:feed(payrelay.core.encode("DATA", { from = "b" }, ("x"):rep(1048576))) end
  equal({ w.client.callbacks.bytes, w.client.callbacks.dropped }, { 4 * 1048576, 6 })
end)

case("on_state tells changes only", function()
  local states = {}
  local w = opened{ on_state = function(state, why) states[#states + 1] = state .. ": " .. tostring(why) end }
  w.refuse = "refused"
  for _ = 1, 3 do
    w.session:broke("closed")
    w.now = w.now + 60
    w.client:tick()
  end
  w.refuse, w.now = nil, w.now + 60
  w.client:tick()
  w.session:feed(OK)
  w.client:close()
  w.session:broke("closed")
  equal(states, { "connected: nil", "disconnected: the connection broke: closed", "connected: nil", "closed: nil" })
end)

case("connected() is true while messages can come", function()
  local w = world()
  local seen = { w.client:connected() }
  local function look() seen[#seen + 1] = w.client:connected() end
  w.session:feed(OK .. "PING\n")
  look()
  w.session:broke("closed")
  look()
  w = parked()
  w.session:feed("MSG id=A =0\n\n")
  w.session:feed("BYE reason=drain retry=1\n")
  seen[#seen + 1] = w.client:connected()
  equal(seen, { false, true, false, false })
end)

case("pause() and resume() change the credit, on later connections too", function()
  local w = world{ max = 4 }
  w.client:pause()
  w.session:feed(OK)
  equal(sent(w), "RDY max=0\n")
  w.client:pause()
  equal(sent(w), "")
  w.session:broke("closed")
  w.now = w.now + 1
  w.client:tick()
  equal(sent(w), "HELLO 1 id=game-01 max=0\n")
  w.session:feed(OK)
  w.client:resume()
  equal(sent(w), "RDY max=4\n")
end)

case("an error is logged with its traceback, and NACKed with its text alone", function()
  local function deep() error("the database is away") end
  local w = opened{ on_message = function() deep() end }
  w.session:feed("MSG id=A =6\nsecret\n")
  local reason = sent(w):match("^NACK id=A reason=(%S+)\n$")
  equal(payrelay.core.unescape(reason):match("^tests/lua/client_test.lua:%d+: the database is away$") ~= nil, true, reason)
  local logged = w.said[2]
  equal(logged:find("^error the handler failed with A: .*the database is away; stack traceback:.*in .*deep") ~= nil, true, logged)
  equal({ logged:find("xpcall", 1, true), logged:find("secret", 1, true), logged:find("\n", 1, true) }, {})
end)

case("an error of the client's own, or of what it stands on, ends the connection and not the program", function()
  local w = world{ open = function() error("no such host", 0) end }
  equal({ w.said[1]:match("^error an error in the client: no such host"), w.said[2] },
    { "error an error in the client: no such host", "warn could not connect: no such host; next try in 0.5 s" })
  w = opened{ max = 1 }
  w.client.adapter = setmetatable({ spawn = function() error("no more memory", 0) end }, { __index = w.client.adapter })
  w.session:feed("MSG id=A =0\n\n")
  equal(w.session.over.why, "the connection broke: no more memory")
  equal(w.client:tick() <= 1, true)
end)

case("in a coroutine send and publish wait, and give ok and the code", function()
  local w, told = parked(), {}
  local waiting
  w.client.adapter.waiter = function()
    local thread = coroutine.running()
    return {
      wait = function() waiting = thread coroutine.yield() end,
      wake = function() if waiting then coroutine.resume(waiting) end end,
    }
  end
  local function send(id)
    coroutine.wrap(function() told[#told + 1] = { w.client:send(id, "x") } end)()
  end
  send("b")
  equal(told, {})
  w.session:feed("OK ref=1\n")
  send("c")
  w.session:feed("ERR code=offline ref=2 msg=x\n")
  equal(told, { { true }, { nil, "offline" } })
  equal({ w.client:send("d", "x", false), #told }, { true, 2 }) -- nobody waits
  coroutine.wrap(function() told[#told + 1] = { w.client:publish("news", "x") } end)()
  equal(#told, 2)
  w.session:feed("ERR code=limit ref=4 msg=x\n")
  equal(table.remove(told), { nil, "limit" })
  send("e")
  w.session:broke("closed")
  send("f")
  equal({ told[3], told[4], w.client.pending_calls }, { { nil, "the connection was lost" }, { nil, "not connected" }, 0 })
end)

case("close(true) waits for the end, but not in a handler, which the end waits for", function()
  local w = parked()
  local waiting, ended
  w.client.adapter.waiter = function()
    local thread = coroutine.running()
    return {
      wait = function() waiting = thread coroutine.yield() end,
      wake = function() coroutine.resume(waiting) end,
    }
  end
  local closed
  w.client.options.on_message = function() closed = w.client:close(true) return true end
  w.session:feed("MSG id=A =0\n\n")
  equal({ closed, sent(w) }, { false, "BYE\nACK id=A\n" })
  -- In the coroutine that was a handler's before, as skynet does it.
  w.client.closing = nil
  local worker = coroutine.create(function(run)
    while true do run = coroutine.yield(run()) end
  end)
  w.client.adapter.spawn = function(run) coroutine.resume(worker, run) end
  w.client.options.on_message = function() return true end
  w.session:feed("MSG id=B =0\n\n")
  coroutine.resume(worker, function() ended = w.client:close(true) end)
  equal(ended, nil)
  w.session:broke("closed")
  equal(ended, true)
end)

---------------------------------------------------------------------------------------------------------- duplicates

local function message(id, event) return payrelay.core.encode("MSG", { id = id, event = event, route = "r" }, "x") end

case("without dedupe every message reaches the handler", function()
  local w = opened()
  w.session:feed(message("A", "e") .. message("A", "e"))
  equal({ #w.got, sent(w) }, { 2, "ACK id=A\nACK id=A\n" })
end)

case("with dedupe the same id or the same event is acknowledged without the handler", function()
  local w = opened{ dedupe = 10 }
  w.session:feed(message("A", "e 1") .. message("A", "e 1") .. message("B", "e 1") .. message("C", "e 2") .. message("D") .. message("D"))
  equal(sent(w), "ACK id=A\nACK id=A\nACK id=B\nACK id=C\nACK id=D\nACK id=D\n")
  local ids = {}
  for at, msg in ipairs(w.got) do ids[at] = msg.id end
  equal({ ids, w.said[2] }, { { "A", "C", "D" }, "info A is a duplicate, and acknowledged as one" })
end)

case("the same event on another route is another event", function()
  local w = opened{ dedupe = 10 }
  w.session:feed("MSG id=A event=e route=r =0\n\nMSG id=B event=e route=s =0\n\n")
  equal(#w.got, 2)
end)

case("what was refused is not remembered", function()
  local w
  w = opened{ dedupe = 10, on_message = function(msg) w.got[#w.got + 1] = msg return #w.got > 1, "not yet" end }
  w.session:feed(message("A", "e") .. message("B", "e") .. message("C", "e"))
  equal({ #w.got, sent(w) }, { 2, "NACK id=A reason=not%20yet\nACK id=B\nACK id=C\n" })
end)

case("it is remembered over connections, also if the ACK was lost", function()
  local w = opened{ dedupe = 10 }
  w.broken = "closed"
  w.session:feed(message("A", "e"))
  w.broken, w.now = nil, w.now + 1
  w.client:tick()
  w.session:feed(OK .. message("A", "e"))
  equal({ #w.got, w.sent[#w.sent] }, { 1, "ACK id=A\n" })
end)

case("the oldest are forgotten, and no more than dedupe messages are kept", function()
  local w = opened{ dedupe = 3 }
  for at = 1, 1000 do w.session:feed(message("A" .. at, "e" .. at)) end
  local kept = 0
  for _ in pairs(w.client.seen) do kept = kept + 1 end
  equal({ kept, #w.client.ring }, { 6, 6 })
  w.session:feed(message("A998") .. message("A997"))
  equal(#w.got, 1001)
end)

case("a duplicate that comes while the first is at work waits for it and gets the same answer", function()
  local w = parked{ dedupe = 10 }
  w.session:feed(message("A", "e") .. message("B", "e") .. message("C", "other"))
  equal({ w.got, sent(w) }, { { "A", "C" }, "" })
  w.answer("A", nil, "no")
  equal(sent(w), "NACK id=A reason=no\nNACK id=B reason=no\n")
  w.session:feed(message("D", "e") .. message("E", "e"))
  w.answer("D", true)
  w.answer("C", true)
  equal({ sent(w), w.session.in_flight }, { "ACK id=D\nACK id=E\nACK id=C\n", 0 })
end)

case("no more duplicates wait than twice the credit", function()
  local w = parked{ dedupe = 10, max = 1 }
  w.session:feed(message("A", "e") .. message("B", "e") .. message("C", "e"))
  equal({ w.got, sent(w) }, { { "A" }, "NACK id=C reason=busy:%201%20handlers%20are%20at%20work\n" })
  w.answer("A", true)
  equal(sent(w), "ACK id=A\nACK id=B\n")
end)

case("TOUCH is for the duplicates that wait, too", function()
  local w, kept
  w = parked{ dedupe = 10 }
  local job = w.client.options.on_message
  w.client.options.on_message = function(msg) kept = msg return job(msg) end
  w.session:feed(message("A", "e") .. message("B", "e"))
  equal({ w.client:touch(kept), sent(w) }, { true, "TOUCH id=A\nTOUCH id=B\n" })
end)

----------------------------------------------------------------------------------------------------------------- the bus

-- A scripted relay: what the client sent must be this, and then it hears that.
local function talk(w, wanted, answer)
  equal(sent(w), wanted)
  if answer then w.session:feed(answer) end
end

case("send is answered by OK or by ERR with its ref", function()
  local w, told = opened(), {}
  local function done(ok, code) told[#told + 1] = ok and "ok" or code end
  equal({ w.client:send("game-02", every_byte, done) }, { true })
  talk(w, "SEND ref=1 to=game-02 =256\n" .. every_byte .. "\n", "OK ref=1\n")
  w.client:send("game-03", "", done)
  talk(w, "SEND ref=2 to=game-03 =0\n\n", "ERR code=offline ref=2 msg=no%20such%20backend\n")
  equal({ told, w.client.pending_calls, w.client.pending_bytes, #w.said }, { { "ok", "offline" }, 0, 0, 1 })
end)

case("publish is answered likewise, in any order", function()
  local w, told = opened(), {}
  w.client:publish("news", "a", function(ok) told[1] = ok end)
  w.client:publish("news", "b", function(ok) told[2] = ok end)
  talk(w, "PUB ch=news ref=1 =1\na\nPUB ch=news ref=2 =1\nb\n", "OK ref=2\n")
  equal(told, { nil, true })
  w.session:feed("OK ref=1\nOK ref=1\nOK ref=99\n")
  equal({ told, w.client.pending_calls }, { { true, true }, 0 })
end)

case("an answer that nobody waits for harms nothing, and a failing callback is logged", function()
  local w = opened()
  w.client:publish("news", "a")
  w.client:publish("news", "b", function() error("mine", 0) end)
  talk(w, "PUB ch=news ref=1 =1\na\nPUB ch=news ref=2 =1\nb\n", "OK ref=1\nOK ref=2\nERR code=busy ref=3 msg=x\n")
  equal({ w.said[2]:match("^[^;]*"), w.said[3], w.session.over }, { "error a callback failed: mine", "warn the relay said busy: x" })
end)

case("what is not connected, too big or too much is refused at once", function()
  local w = world()
  equal({ w.client:send("b", "x") }, { nil, "not connected" })
  w.session:feed(OK)
  equal({ w.client:send("b", ("x"):rep(1048577)) }, { nil, "too-big" })
  for _ = 1, 4 do equal(w.client:send("b", ("x"):rep(1048576)), true) end
  equal({ w.client:publish("b", "x") }, { nil, "busy" })
  w.session:feed("OK ref=1\n")
  for _ = 1, 1021 do equal(w.client:send("b", ""), true) end
  equal({ w.client:send("b", "") }, { nil, "busy" })
end)

case("when the connection goes, those who wait for an answer are told", function()
  local w, told = opened(), {}
  w.client:send("b", "x", function(ok, code) told[#told + 1] = { ok, code } end)
  w.session:broke("closed")
  equal({ told, w.client.pending_calls }, { { { nil, "the connection was lost" } }, 0 })
end)

case("DATA goes to on_data, and is not acknowledged", function()
  local got
  local w = opened{ on_data = function(from, data) got = { from, data } end }
  w.session:feed(payrelay.core.encode("DATA", { from = "game-02" }, every_byte))
  equal({ got, sent(w) }, { { "game-02", every_byte }, "" })
  w = opened()
  w.session:feed("DATA from=game-02 =1\nx\n")
  equal(w.session.over, nil)
end)

case("subscriptions are said at once, and again on every connection", function()
  local w, got = world(), {}
  w.client:subscribe("news", function(data, channel) got[#got + 1] = channel .. ": " .. data end)
  talk(w, "", OK)
  talk(w, "SUB ch=news ref=1\n", "OK ref=1\nEVENT ch=news =2\na\n\n")
  equal(got, { "news: a\n" })
  w.session:broke("closed")
  w.now = w.now + 1
  w.client:tick()
  sent(w)
  w.session:feed(OK)
  talk(w, "SUB ch=news ref=2\n", "EVENT ch=news =0\n\nEVENT ch=other =1\nx\n")
  equal(got, { "news: a\n", "news: " })
  w.client:unsubscribe("news")
  talk(w, "UNSUB ch=news\n", "EVENT ch=news =1\nx\n")
  equal(#got, 2)
end)

case("a subscription for one event ends with it", function()
  local w, got = opened(), 0
  w.client:subscribe("news", function() got = got + 1 end, { once = true })
  talk(w, "SUB ch=news once=1 ref=1\n", "EVENT ch=news =0\n\nEVENT ch=news =0\n\n")
  w.session:broke("closed")
  w.now = w.now + 1
  w.client:tick()
  sent(w)
  w.session:feed(OK)
  equal({ got, sent(w) }, { 1, "" })
end)

case("who subscribes is told when the channel is heard, or why not", function()
  local w, told = world(), {}
  w.client:subscribe("news", print, { done = function(ok, code) told[#told + 1] = { ok, code } end })
  w.session:feed(OK .. "OK ref=1\n")
  w.client:subscribe("more", print, { done = function(ok, code) told[#told + 1] = { ok, code } end })
  w.session:feed("ERR code=limit ref=2 msg=too%20many\n")
  w.client:subscribe("most", print)
  w.session:feed("ERR code=limit ref=3 msg=too%20many\n")
  equal({ told, w.said[2], w.client.pending_calls }, { { { true }, { nil, "limit" } }, "warn the relay said limit: too many", 0 })
end)

case("gaps in a channel are told to on_gap and to the log", function()
  local gaps = {}
  local w = opened{ on_gap = function(channel, code) gaps[#gaps + 1] = channel .. " " .. code end }
  w.session:feed("ERR code=busy ch=news msg=lost\nERR code=offline ch=news msg=down\nOK ch=news\n")
  equal({ gaps, #w.said, w.session.over }, { { "news busy", "news offline", "news ok" }, 3 })
end)

case("a listener that fails is logged, without the data", function()
  local w = opened()
  w.client:subscribe("news", function() error("mine", 0) end)
  w.session:feed("EVENT ch=news =6\nsecret\nPING\n")
  equal({ w.said[2]:match("^[^;]*"), w.session.over }, { "error the listener of news failed: mine" })
  equal(table.concat(w.said):find("secret"), nil)
end)

case("wrong uses of the bus are errors of the program", function()
  local w = opened()
  for _, wrong in ipairs{
    function() w.client:send("", "x") end, function() w.client:send("b", 5) end, function() w.client:publish("", "x") end,
    function() w.client:publish(("x"):rep(129), "x") end,
    function() w.client:publish("a,b", "x") end, function() w.client:subscribe("news") end,
    function() w.client:subscribe("news", print, true) end,
  } do equal(pcall(wrong), false) end
  equal(sent(w), "")
end)

---------------------------------------------------------------------------------------------------------- reconnecting

case("a broken connection is opened again after 0.5 s to 1 s; each OK makes the waits start afresh", function()
  for jitter, wanted in pairs{ [0] = 0.5, [1] = 1 } do
    local w = opened()
    w.jitter = jitter
    for _ = 1, 3 do
      w.session:broke("closed")
      equal({ w.client.retry_timer.span, w.client:tick() }, { wanted, wanted })
      w.now = w.now + wanted
      w.client:tick()
      w.session:feed(OK)
    end
    equal({ w.connects, w.closed }, { 4, 3 })
  end
end)

case("failures in a row wait longer, up to 30 s; OK makes it start afresh", function()
  local w = opened()
  w.jitter, w.refuse = 1, "connection refused"
  w.session:broke("closed")
  local waits = {}
  for at = 1, 8 do
    waits[at] = w.client.retry_timer.span
    w.now = w.now + waits[at]
    w.client:tick()
  end
  equal(waits, { 1, 2, 4, 8, 16, 30, 30, 30 })
  w.jitter, w.refuse = 0, nil
  w.now = w.now + 30
  w.client:tick()
  w.session:broke("closed")
  equal(w.client.retry_timer.span, 0.5, "the jitter reaches down to 0.5 s")
end)

case("BYE: the asked wait is kept, and at most half of it added", function()
  for jitter, wanted in pairs{ [0] = 5, [1] = 7.5 } do
    local w = opened()
    w.jitter = jitter
    w.session:feed("BYE reason=takeover retry=5\n")
    equal({ w.client.retry_timer.span, w.client:tick() }, { wanted, wanted })
    equal(w.said[2], ("warn the relay said BYE: takeover; next try in %.1f s"):format(wanted))
  end
end)

case("a clock that is set back delays nothing by more than its own span", function()
  local w = opened()
  w.session:broke("closed")
  w.now = w.now - 86400
  equal(w.client:tick(), 0.5)
  w.now = w.now + 0.5
  w.client:tick()
  equal(w.connects, 2)
end)

---------------------------------------------------------------------------------------------------------------- silence

case("2.5 heartbeats of silence, and one more look a second later, end the connection", function()
  local w = opened()
  w.now = w.now + 49.9
  w.client:tick()
  w.session:feed("PING\n")
  w.now = w.now + 49.9
  w.client:tick()
  equal(w.session.over, nil)
  w.now = w.now + 0.2
  w.client:tick()
  equal(w.session.over, nil, "bytes may wait in the socket of a program that was held up")
  w.now = w.now + 1
  w.client:tick()
  equal(w.session.over.why, "the connection broke: nothing heard for 50 s")
end)

case("bytes that come at the second look are no silence", function()
  local w = opened()
  w.now = w.now + 100000
  w.client:tick()
  w.session:feed("PING\n")
  for _ = 1, 40 do
    w.now = w.now + 1
    w.client:tick()
  end
  equal(w.session.over, nil)
end)

case("time spent in a handler is not the relay's silence", function()
  local w
  w = opened{ on_message = function() w.now = w.now + 100000 end }
  w.session:feed("MSG id=A =0\n\n")
  equal(w.client:tick() > 10, true)
  equal(w.session.over, nil)
end)

case("a client that hears nothing for 1.5 heartbeats asks: TOUCH keeps the relay from asking", function()
  local w = opened()
  w.now = w.now + 29
  w.client:tick()
  equal(sent(w), "")
  w.now = w.now + 1
  w.client:tick()
  w.client:tick()
  equal(sent(w), "PING\n")
  w.session:feed("PONG\n")
  w.now = w.now + 30
  w.client:tick()
  equal(sent(w), "PING\n")
end)

case("a relay that takes the connection and says nothing is left after connect_timeout", function()
  local w = world()
  w.now = w.now + 5
  w.client:tick()
  w.now = w.now + 1
  w.client:tick()
  equal(w.session.over.why, "the connection broke: nothing heard for 5 s")
end)

case("a connection that does not come about is given up after connect_timeout", function()
  local w = opened()
  w.hanging = true
  w.session:broke("closed")
  w.now = w.now + 1
  w.client:tick()
  w.now = w.now + 5
  w.client:tick()
  equal({ w.session.over.why, w.closed }, { "could not connect: nothing heard for 5 s", 2 })
  w.session:opened() -- it comes about after all
  equal(sent(w), "")
end)

case("tick() says when it wants to be called again", function()
  local w = opened()
  equal(w.client:tick(), 20)
  w.now = w.now + 45
  w.session:feed("PING\n")
  equal(w.client:tick(), 20)
  w.client:close()
  equal(w.client:tick(), 5)
end)

---------------------------------------------------------------------------------------------------------------- closing

case("close() says BYE, answers what is in flight, and ends when the relay closes", function()
  local w = parked()
  w.session:feed("MSG id=A =0\n\n")
  w.client:close()
  w.client:close()
  w.session:feed("MSG id=B =0\n\n")
  w.answer("A", true)
  w.answer("B", true)
  equal({ sent(w), w.client:closed() }, { "BYE\nACK id=A\nACK id=B\n", false })
  w.session:broke("closed")
  equal({ w.client:tick(), w.client:closed(), w.said[#w.said] }, { nil, true, "info closed" })
end)

case("close() waits close_timeout at most", function()
  local w = opened()
  w.client:close()
  w.now = w.now + 4.9
  equal(w.client:tick() > 0, true)
  w.now = w.now + 0.2
  equal({ w.client:tick(), w.client:closed(), w.closed }, { nil, true, 1 })
end)

case("close() before OK, or between two connections, opens nothing more", function()
  local w = world()
  w.client:close()
  equal({ w.client:tick(), w.connects }, { nil, 1 })
  w = opened()
  w.session:broke("closed")
  w.client:close()
  w.now = w.now + 100
  equal({ w.client:tick(), w.connects }, { nil, 1 })
end)

case("a client that closes opens no other session in the place of the one that it has", function()
  local w = opened()
  w.client:close()
  w.client:replace()
  equal({ w.client:tick(), w.connects, w.client:closed() }, { 5, 1, false })
  w.session:broke("closed")
  equal({ w.client:tick(), w.client:closed(), w.client.state, w.said[#w.said] }, { nil, true, "closed", "info closed" })
end)

case("close() waits for a session that was replaced, and is heard there too", function()
  local w = parked()
  local former = w.session
  former:feed("MSG id=A =0\n\n")
  w.client:replace()
  w.client:tick()
  w.session:feed(OK)
  sent(w)
  w.client:close()
  equal(sent(w), "BYE\nBYE\n")
  w.session:broke("closed")
  equal({ w.client:tick(), w.client:closed(), w.client.state }, { 5, false, "connected" })
  w.answer("A", true)
  equal(sent(w), "ACK id=A\n")
  former:broke("closed")
  equal({ w.client:tick(), w.client:closed(), w.client.state }, { nil, true, "closed" })
end)

case("close() before the OK of a session that replaces another ends that other one", function()
  local w = opened()
  local former = w.session
  w.client:replace()
  w.client:tick()
  sent(w)
  w.client:close()
  equal({ sent(w), w.client:closed(), w.session.over.why }, { "BYE\n", false, "closed" })
  w.now = w.now + 5.1
  equal({ w.client:tick(), w.client:closed(), former.over.why, w.connects }, { nil, true, "closed", 2 })
end)

---------------------------------------------------------------------------------------------------------------- options

case("wrong options are refused at once, without showing the token", function()
  local function refused(change)
    local o = { id = "a", token = TOKEN, on_message = function() end }
    for key, value in pairs(change) do o[key] = value end
    local ok, why = pcall(payrelay.push.connect, o)
    return not ok and not tostring(why):find(TOKEN, 1, true)
  end
  for _, change in ipairs{
    { id = "" }, { id = "a b" }, { id = ("a"):rep(65) }, { token = 5 }, { token = TOKEN:rep(5) }, { max = -1 }, { max = 1025 },
    { max = 1.5 }, { max = "16" }, { on_message = 5 }, { dedupe = -1 }, { dedupe = 1.5 }, { dedupe = true }, { tls = true },
    { on_state = true }, { on_data = "x" },
  } do equal(refused(change), true, check.show(change)) end
  equal(refused{}, false)
  local signal = { start = function() end, unref = function() end }
  -- An adapter that takes an address; nothing is opened.
  package.loaded.luv = { hrtime = os.time, new_signal = function() return signal end }
  for _, port in ipairs{ "0", 0, -1, 65536, 1.5, "http", "" } do
    local ok, why = pcall(payrelay.luv.new, { host = "127.0.0.1", port = port, id = "a", on_message = print })
    equal({ ok, why }, { false, "payrelay: port must be 1 to 65535" })
  end
  equal(pcall(payrelay.luv.new, { host = "127.0.0.1", port = "7000", id = "a", on_message = print }), true)
  package.loaded.luv = nil
end)

case("the program's math.random is left alone, and jitter differs between clients", function()
  local kept = math.random
  rawset(math, "random", function() error("used") end)
  local seen = {}
  local ok, why = pcall(function()
    for at = 1, 4 do
      local client = payrelay.push.connect{ id = "a", on_message = print }
      seen[at] = client.options.random()
      for _ = 1, 1000 do
        local number = client.options.random()
        equal(number > 0 and number < 1, true, tostring(number))
      end
    end
  end)
  rawset(math, "random", kept)
  equal({ ok, why }, { true })
  equal(seen[1] ~= seen[2] and seen[2] ~= seen[3] and seen[3] ~= seen[4], true)
end)

check.done()
