-- payrelay: hears of payments from a payrelay relay. One file for every Lua and every socket library: copy it into your program.
--
--   local payrelay = require("payrelay")
--   payrelay.luasocket.connect{ host = "127.0.0.1", port = 7000, id = "game-01", token = "…",
--     on_message = function(msg) book(msg.body) return true end }:run()
--
-- and the same with copas, cqueues, openresty, skynet, luv or push in the place of luasocket. Options, rules for handlers and
-- an example for each are in clients/lua/README.md; the protocol is in doc/protocol.md. Never printed here: a body, a token.
--
-- The parts, each of which knows only those above it: the core (bytes to frames and back), the session (one connection's
-- dialogue), the client (when to connect, what to remember), the adapters (one socket library each). Over 500 lines because
-- users copy one file; nothing in it is loaded that they do not ask for.

local payrelay = { PROTOCOL = 1, VERSION = "0.1.0" }

---------------------------------------------------------------------------------------------------------------- core --

local core = { LINE_MAX = 1024, REASON_MAX = 200, DELAY_MAX = 604800 }
payrelay.core = core

-- Explicit ranges: what %w means depends on the program's locale.
function core.escape(bytes)
  return (bytes:gsub("[^A-Za-z0-9%-._~/:,+@]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

-- The bytes, or nil if there is a % without two hex digits.
function core.unescape(value)
  if value:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (value:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- One frame as bytes. args: key = string or whole number; args[1] is HELLO's version. Sorted: the same call, the same bytes.
function core.encode(verb, args, data)
  local keys, line = {}, { verb }
  for key in pairs(args or {}) do if key ~= 1 then keys[#keys + 1] = key end end
  table.sort(keys)
  if args and args[1] then line[2] = ("%d"):format(args[1]) end
  for _, key in ipairs(keys) do
    line[#line + 1] = key .. "=" .. (type(args[key]) == "number" and ("%d"):format(args[key]) or core.escape(args[key]))
  end
  if data then line[#line + 1] = "=" .. #data end
  local text = table.concat(line, " ")
  assert(#text <= core.LINE_MAX, "payrelay: the line is too long")
  return text .. "\n" .. (data and data .. "\n" or "")
end

-- A line without its LF as { verb =, args =, length = }, or nil and what is wrong.
local function parse_line(line)
  if line:sub(-1) == "\r" then line = line:sub(1, -2) end
  local verb, rest = line:match("^([A-Z]+)(.*)$")
  if not verb or #verb > 16 or (rest ~= "" and rest:sub(1, 1) ~= " ") then return nil, "no verb" end
  if rest:find("[^\32-\126]") then return nil, "a byte that is not printable ASCII" end
  local frame = { verb = verb, args = {} }
  for token in rest:gmatch(" ([^ ]*)") do
    local key, value = token:match("^([a-z_]*)=(.*)$")
    local first = verb == "HELLO" and next(frame.args) == nil
    if frame.length then return nil, "the length is not last" end
    if not key and first and token:find("^%d+$") and #token <= 10 then
      frame.args[1] = tonumber(token)
    elseif key == "" and value:find("^%d+$") and #value <= 10 then
      frame.length = tonumber(value)
    else
      value = key and key ~= "" and #key <= 16 and frame.args[key] == nil and core.unescape(value)
      if not value then return nil, "a bad token" end
      frame.args[key] = value
    end
  end
  return frame
end

local Parser = {}

-- The push parser: bytes in, cut anywhere; frames { verb =, args =, data = } out. After a broken frame it gives no more, and
-- parser.failed says why. data_max bounds what one frame may make it hold.
function core.parser(data_max)
  local parser = { buffer = "", at = 1, fresh = {}, size = 0, need = 1, data_max = data_max or 2 ^ 26 }
  return setmetatable(parser, { __index = Parser })
end

function Parser:feed(bytes)
  self.fresh[#self.fresh + 1], self.size = bytes, self.size + #bytes
  return function() return self:next() end
end

-- For sockets that read by lines and by counts: nil if a line is due, else how many bytes are (data and its LF: never 0).
function Parser:wants() return self.frame and self.need - self.size end

function Parser:next()
  if self.failed or self.size < self.need then return nil end
  if self.fresh[1] then -- joined once all is there: a large body comes in many pieces
    self.buffer, self.at, self.fresh = self.buffer:sub(self.at) .. table.concat(self.fresh), 1, {}
  end
  local frame = self.frame
  if not frame then
    local lf = self.buffer:find("\n", self.at, true)
    if (lf or #self.buffer + 1) - self.at > core.LINE_MAX then self.failed = "a line too long" return nil end
    if not lf then return nil end
    frame, self.failed = parse_line(self.buffer:sub(self.at, lf - 1))
    if frame and (frame.length or 0) > self.data_max then self.failed = "too much data" end
    if self.failed then return nil end
    self.size, self.at = self.size - (lf + 1 - self.at), lf + 1
    self.frame, self.need = frame, frame.length and frame.length + 1 or 1
  end
  if frame.length then
    if self.size < self.need then return nil end
    local stop = self.at + frame.length
    if self.buffer:byte(stop) ~= 10 then self.failed = "no LF after the data" return nil end
    frame.data = self.buffer:sub(self.at, stop - 1)
    self.size, self.at = self.size - self.need, stop + 1
  end
  if self.size == 0 then self.buffer, self.at = "", 1 end -- no body stays longer than needed
  self.frame, self.need = nil, 1
  return frame
end

------------------------------------------------------------------------------------------------------------- session --

-- What a handler's end means for the relay: "ACK" or "NACK", and the keys that go with it. Takes what pcall returned.
-- Only true, or no value at all, is an ACK: `return db.insert(x)` that gave nil must not lose the payment.
function core.verdict(...)
  local ok, result, reason, delay = ...
  if ok and (result == true or select("#", ...) == 1) then return "ACK", {} end
  if not ok then
    reason, delay = result == nil and "the handler raised nil" or result, nil
  elseif result then
    reason, delay = "the handler returned a " .. type(result) .. ", not true, nothing, or nil and a reason", nil
  end
  local named, text = pcall(tostring, reason) -- an error value's own __tostring may raise
  local keys = { reason = (reason ~= nil and named and type(text) == "string") and text:sub(1, core.REASON_MAX) or nil }
  delay = tonumber(delay)
  if delay == -1 or (delay and delay >= 0) then keys.delay = math.ceil(math.min(delay, core.DELAY_MAX)) end
  return "NACK", keys
end

-- One connection and its dialogue. The adapter calls opened(), feed() and broke(); it is asked by its functions open(session),
-- write(session, bytes) and close(session). session.over = { why =, retry = s, slow = true } once it is over: retry is a wait
-- that the relay asked for, slow means that an operator is needed.
local Session = {}
Session.__index = Session

local heard = {} -- the relay's verbs, each as a function of a session

local function new_session(client)
  return setmetatable({
    client = client, options = client.options, parser = core.parser(), quiet = client:timer(client.options.connect_timeout),
    queue = {}, calls = {}, flying = 0, handled = 0,
  }, Session)
end

function Session:finish(why, retry, slow)
  if self.over then return end
  self.over = { why = why, retry = retry, slow = slow }
  if not self.feeding then self.client:drop(self) end
end

-- Hands a frame over for writing: true, or nil and why not.
function Session:say(verb, args, data)
  if self.over or self.lost or not self.connected then return nil, "not connected" end
  self.queue[#self.queue + 1] = core.encode(verb, args, data)
  if self.client.adapter.wake then return self.client.adapter.wake(self) end
  return self.writing or self:flush() -- one writer at a time; it takes along what others say meanwhile
end

function Session:flush()
  local sent, why = true, nil
  self.writing = true
  while sent and self.queue[1] do
    local bytes = table.concat(self.queue)
    self.queue, self.stuck = {}, self.unsent and self.stuck or self.client:timer(self.options.write_timeout)
    sent, why = self.client.adapter.write(self, bytes)
  end
  self.writing, self.stuck = nil, self.unsent and self.stuck or nil
  if sent then return true end
  self.lost = "could not write: " .. tostring(why)
  if not self.feeding then self:finish(self.lost) end
  return nil, self.lost
end

-- The connection stands.
function Session:opened()
  if self.over then return end
  local options = self.options
  self.connected, self.quiet = true, self.client:timer(options.connect_timeout)
  self:say("HELLO", { payrelay.PROTOCOL, id = options.id, token = options.token, max = options.max })
end

-- Bytes have come, cut anywhere.
function Session:feed(bytes)
  if self.over then return end
  self.feeding = true
  for frame in self.parser:feed(bytes) do
    local verb = frame.verb
    if not heard[verb] then
      self.client:log("debug", "skipped a frame of the unknown verb " .. verb)
    elseif not self.lost or verb == "BYE" or verb == "ERR" then -- these say how long to wait, even if no answer can be sent
      heard[verb](self, frame.args, frame.data or "")
    end
    if self.over then break end
  end
  self.feeding, self.pinged, self.doubted = false, nil, nil
  -- Only now: the time in handlers is not the relay's silence.
  local options, failed = self.options, self.parser.failed
  self.quiet = self.client:timer(self.open and self.heartbeat * options.silence or options.connect_timeout)
  if self.lost or failed then self:finish(self.lost or "the relay sent a broken frame: " .. failed) end
  if self.over then self.client:drop(self) end
end

-- The connection could not be made, or is gone.
function Session:broke(why)
  local parting, o = self.parting, self.options
  if parting then return self:finish(parting.why, parting.retry) end
  local place = o.host and (" to %s:%s"):format(o.host, tostring(o.port)) or ""
  self:finish((self.connected and "the connection broke" or "could not connect" .. place) .. ": " .. tostring(why))
end

-- Too long without a byte, or with bytes that nobody takes.
function Session:check()
  local client = self.client
  local silent = self.quiet.span - client:left(self.quiet)
  if self.stuck and client:left(self.stuck) <= 0 then
    self:broke("the relay took no byte for " .. self.options.write_timeout .. " s")
  elseif self.feeding then
    return
  elseif silent >= self.quiet.span then
    if self.doubted or not self.connected then
      return self:broke(("nothing heard for %g s"):format(self.doubted or self.quiet.span))
    end
    -- A program that was held up sees the time before it sees the bytes that have come meanwhile: look once more.
    self.doubted, self.quiet = self.quiet.span, client:timer(1)
  elseif self.open and not self.pinged and silent >= 1.5 * self.heartbeat then
    self.pinged = true -- a client that talks (TOUCH) is not asked by the relay, so it has to ask
    self:say("PING")
  end
end

-- The answer to one message.
function Session:answer(msg, verb, keys)
  keys.id = msg.id
  if verb == "NACK" then self.client:log("warn", ("refused %s: %s"):format(msg.id, keys.reason or "no reason given")) end
  if not self:say(verb, keys) then
    self.client:log("warn", ("the connection was lost before the %s of %s; expect the event again"):format(verb, msg.id))
  end
  self.flying = self.flying - 1
  local parting = self.parting
  if parting and self.flying == 0 then self:finish(parting.why, parting.retry) end
end

-- What became of a SEND, PUB or SUB; whether somebody was told.
function Session:answered(ref, ok, code)
  local call = self.calls[ref]
  self.calls[ref] = nil
  if not call then return false end
  self.client.calls, self.client.called = self.client.calls - 1, self.client.called - call.size
  self.client:guard("a callback", call.done, ok, code)
  return call.done ~= nil
end

function heard.OK(self, args)
  if args.ref then return self:answered(args.ref, true) end
  if args.ch then return self.client:gap(args.ch, "ok") end
  if self.open then return end
  self.open, self.heartbeat = true, math.max(tonumber(args.heartbeat) or 20, 0.001)
  self.max_body = tonumber(args.max_body) or 0
  self.parser.data_max = self.max_body + 1024 * 1024
  local client = self.client
  client.failures = 0
  client:log("info", ("connected as %s to %s, session %s"):format(args.id or "?", args.node or "?", args.session or "?"))
  local wanted = {} -- apart, for the table may change while a frame is written
  for channel in pairs(client.channels) do wanted[#wanted + 1] = channel end
  for _, channel in ipairs(wanted) do client:listen(channel) end
  client:guard("on_connect", self.options.on_connect, args)
end

function heard.MSG(self, args, data)
  local h = tonumber((args.h or "0"):match("^%d+$"))
  if not args.id or #args.id > 64 or not h then return self:finish("the relay sent a broken MSG") end
  h = math.min(h, #data)
  self.flying, self.handled = self.flying + 1, self.handled + 1
  self.client:take(self, {
    id = args.id, try = tonumber(args.try) or 1, route = args.route, verified = args.verified, event = args.event,
    at = tonumber(args.at), head = data:sub(1, h), body = data:sub(h + 1),
  })
end

function heard.EVENT(self, args, data)
  local listener = self.client.channels[args.ch]
  if not listener then return end -- it crossed the UNSUB on its way
  if listener.once then self.client.channels[args.ch] = nil end
  self.client:guard("the listener of " .. args.ch, listener.run, data, args.ch)
end

function heard.DATA(self, args, data) self.client:guard("on_data", self.options.on_data, args.from, data) end

function heard.PING(self) self:say("PONG") end

function heard.PONG() end

function heard.ERR(self, args)
  local text = ("the relay said %s: %s"):format(args.code or "?", args.msg or "")
  if args.ch and not args.ref then self.client:gap(args.ch, args.code) end
  if args.fatal == "1" then
    -- A full relay empties by itself; every other refusal stays the same until somebody changes something.
    self:finish(text, nil, args.code ~= "limit")
  elseif not (args.ref and self:answered(args.ref, nil, args.code)) then
    self.client:log("warn", text)
  end
end

-- What is in flight may still be answered, until the relay closes.
function heard.BYE(self, args)
  self.parting = { why = "the relay said BYE: " .. (args.reason or "?"), retry = math.max(tonumber(args.retry) or 1, 0) }
  if self.flying == 0 then self:finish(self.parting.why, self.parting.retry) end
end

-------------------------------------------------------------------------------------------------------------- client --

local Client = {}

local DEFAULTS = {
  max = 16, dedupe = 0, connect_timeout = 5, write_timeout = 10, close_timeout = 5,
  -- for tests: the waits of the protocol document
  backoff_min = 0.5, backoff_max = 30, slow_retry = 30, silence = 2.5,
}

local CALLS_MAX, CALLED_BYTES_MAX = 1024, 4 * 1024 * 1024 -- what was sent or published and is not yet answered

local function log_to_stderr(level, text)
  if level ~= "debug" then io.stderr:write("payrelay ", level, ": ", text, "\n") end
end

-- A generator of its own, for jitter: the program's math.random keeps its seed and its sequence. (5.1 always starts at the
-- same seed, so without this all backends would come back at the same moment.) Park and Miller's, exact in doubles.
local function generator(text, time)
  local state = math.floor(time * 1e6) % 2147483646
  for byte in (text .. tostring({})):gmatch(".") do state = (state * 31 + byte:byte()) % 2147483646 end
  state = state + 1
  return function() state = state * 16807 % 2147483647 return state / 2147483647 end
end

-- A backend. Nothing is opened yet.
local function new_client(adapter, options)
  local o = setmetatable({}, { __index = DEFAULTS })
  for key, value in pairs(options) do o[key] = value end
  local function whole(value, most) return type(value) == "number" and value % 1 == 0 and value >= 0 and value <= most end
  assert(adapter.anywhere or (type(o.host) == "string" and tonumber(o.port)), "payrelay: host and port are needed")
  assert(type(o.id) == "string" and #o.id <= 64 and o.id:find("^[A-Za-z0-9._%-]+$"), "payrelay: id: 1 to 64 of A-Z a-z 0-9 . _ -")
  assert(o.token == nil or (type(o.token) == "string" and #o.token <= 256), "payrelay: token must be a string of 64 digits")
  assert(whole(o.max, 1024), "payrelay: max must be 0 to 1024")
  assert(whole(o.dedupe, 1000000), "payrelay: dedupe must be 0 to 1000000")
  assert(type(o.on_message) == "function", "payrelay: on_message must be a function")
  assert(not o.tls or adapter.tls, "payrelay: tls is for luasocket only")
  assert(not o.tls or type(o.tls) == "table", "payrelay: tls must be a table, such as { cafile = \"ca.pem\" }")
  o.clock, o.on_log = o.clock or adapter.clock, o.on_log or adapter.log or log_to_stderr
  o.random = o.random or generator(o.id, o.clock())
  local client = setmetatable({
    adapter = adapter, options = o, failures = 0, working = 0, channels = {}, jobs = setmetatable({}, { __mode = "k" }),
    calls = 0, called = 0, last_ref = 0, known = {}, ring = {}, ring_at = 0,
  }, { __index = adapter.methods })
  client.pause = client:timer(0)
  return client
end

function Client:log(level, text)
  pcall(self.options.on_log, level, (text:gsub("%c", " "))) -- a log that fails must not cost a payment
end

-- Calls what the user gave, if he did; an error in it is logged.
function Client:guard(what, run, ...)
  if not run then return end
  local ok, why = (self.adapter.pcall or pcall)(run, ...)
  if not ok then self:log("error", what .. " failed: " .. tostring(why)) end
end

function Client:timer(span) return { at = self.options.clock(), span = span } end

-- Seconds until the timer is over, 0 or less if it is. A wall clock may be set back: then the span starts anew.
function Client:left(timer)
  local now = self.options.clock()
  if now < timer.at then timer.at = now end
  return timer.span - (now - timer.at)
end

-- Does what is due: connects, notices silence, ends what is closed. Returns the seconds until it wants to be called again
-- (any earlier call does no harm), or nil once the client is closed.
function Client:tick()
  local session = self.session
  if session then
    if self.closing and self:left(self.closing) <= 0 then session:finish("closed") end
    if not session.over then session:check() end
  end
  if not self.session then
    if self.closing then return nil end
    local wait = self:left(self.pause)
    if wait > 0 then return wait end
    self.session = new_session(self)
    self.adapter.open(self.session)
  end
  session = self.session
  if not session then return math.max(self:left(self.pause), 0) end
  local wait = math.min(self:left(session.quiet), session.open and not session.pinged and session.heartbeat or math.huge)
  if self.closing then wait = math.min(wait, self:left(self.closing)) end
  return math.max(wait, 0)
end

-- Lets go of a session that is over, and decides how long to wait before the next try.
function Client:drop(session)
  if session.dropped then return end
  session.dropped = true
  self.adapter.close(session)
  for ref in pairs(session.calls) do session:answered(ref, nil, "the connection was lost") end
  if session ~= self.session then return end
  local o, over = self.options, session.over
  self.failures = self.failures + 1
  local jitter, bound = o.random(), math.min(o.backoff_max, o.backoff_min * 2 ^ math.min(self.failures, 16))
  local span = o.backoff_min + jitter * (bound - o.backoff_min)
  if over.retry or over.slow then -- at least as long as was asked for
    span = math.max(over.retry or 0, over.slow and o.slow_retry or 0, o.backoff_min) * (1 + jitter / 2)
  end
  local text = self.closing and "closed" or ("%s; next try in %.1f s"):format(over.why, span)
  self:log(self.closing and "info" or over.slow and "error" or "warn", text)
  self.session, self.pause = nil, self:timer(span)
end

-- The next tick() opens another session, and the relay hands over from this one: nothing is missed in between.
function Client:replace()
  self.session, self.pause = nil, self:timer(0)
end

-- What a message is known by: the relay's redelivery has the same id, the provider's retry the same event.
local function names(msg)
  return { "id " .. msg.id, msg.event and ("event %s %s"):format(msg.route or "", msg.event) }
end

-- A message has come. Its handler runs beside the others where the adapter can do that. The credit bounds them, but for those
-- that the relay has given up and those of an earlier session.
function Client:take(session, msg)
  local keys = self.options.dedupe > 0 and names(msg) or {}
  local limit, busy = 2 * math.max(self.options.max, 1), self.working
  for _, key in ipairs(keys) do
    local before = self.known[key]
    if before == true then
      self:log("info", msg.id .. " is a duplicate, and acknowledged as one")
      return session:answer(msg, "ACK", {})
    elseif before and #before < limit then -- its twin is being worked on, and will be answered for both
      before[#before + 1] = { session = session, msg = { id = msg.id } }
      return
    elseif before then
      busy = limit
    end
  end
  if busy >= limit then
    return session:answer(msg, "NACK", { reason = ("busy: %d handlers are at work"):format(self.working) })
  end
  local job = { { session = session, msg = msg }, keys = keys }
  for _, key in ipairs(keys) do self.known[key] = job end
  self.jobs[msg], self.working = job, self.working + 1
  self.adapter.spawn(function() self:work(msg, job) end)
end

function Client:work(msg, job)
  local verb, keys = core.verdict((self.adapter.pcall or pcall)(self.options.on_message, msg))
  self.jobs[msg], self.working = nil, self.working - 1
  for _, key in ipairs(job.keys) do self:remember(key, verb == "ACK") end
  for _, each in ipairs(job) do each.session:answer(each.msg, verb, keys) end
end

-- Keeps the names of what is done, and drops the oldest for it; forgets what is not done.
function Client:remember(key, done)
  self.known[key] = done or nil
  if not done then return end
  self.ring_at = self.ring_at % (2 * self.options.dedupe) + 1 -- a message has two names at most
  local oldest = self.ring[self.ring_at]
  if oldest then self.known[oldest] = nil end
  self.ring[self.ring_at] = key
end

-- From within a handler that takes long: tells the relay so. true if it could be sent.
function Client:touch(msg)
  local sent = self.jobs[msg] ~= nil
  for _, each in ipairs(self.jobs[msg] or {}) do sent = each.session:say("TOUCH", { id = each.msg.id }) and sent or false end
  return sent
end

-- Says something that the relay answers by its ref. If it cannot be written, the session is over, and done hears of it.
function Client:ask(verb, args, data, done)
  local session, size = self.session, data and #data or 0
  self.last_ref = self.last_ref + 1
  args.ref = ("%d"):format(self.last_ref)
  session.calls[args.ref], self.calls, self.called = { done = done, size = size }, self.calls + 1, self.called + size
  session:say(verb, args, data)
end

function Client:call(verb, args, data, done)
  assert(type(data) == "string", "payrelay: what is sent must be a string")
  local session = self.session
  if not session or not session.open then return nil, "not connected" end
  if #data > session.max_body then return nil, "too-big" end
  if self.calls >= CALLS_MAX or (self.calls > 0 and self.called + #data > CALLED_BYTES_MAX) then return nil, "busy" end
  self:ask(verb, args, data, done)
  return true
end

-- Sends bytes to another backend. true if they are on their way, else nil and why. Then done(true) or done(nil, code) is called.
function Client:send(to, data, done)
  assert(type(to) == "string" and to ~= "" and #to <= 64, "payrelay: to must be a backend's id")
  return self:call("SEND", { to = to }, data, done)
end

local function channel_name(channel)
  local good = type(channel) == "string" and #channel <= 128 and channel:find("^[A-Za-z0-9._:/-]+$")
  return assert(good and channel, "payrelay: a channel: 1 to 128 of A-Z a-z 0-9 . _ - : /")
end

-- Sends bytes to all that have subscribed to the channel. As send().
function Client:publish(channel, data, done)
  return self:call("PUB", { ch = channel_name(channel) }, data, done)
end

-- From now on listener(data, channel) is called for what is published in the channel, on this connection and on later ones;
-- with once only for the next. A second subscription of a channel takes the place of the first. done(true) is called when
-- the channel is heard for the first time, or done(nil, code) if the relay refuses.
function Client:subscribe(channel, listener, once, done)
  assert(type(listener) == "function", "payrelay: a listener must be a function")
  self.channels[channel_name(channel)] = { run = listener, once = once and 1 or nil, done = done }
  if self.session and self.session.open then self:listen(channel) end
end

function Client:listen(channel)
  local listener = self.channels[channel]
  if not listener then return end
  self:ask("SUB", { ch = channel, once = listener.once }, nil, listener.done)
  listener.done = nil -- later connections tell the log only
end

function Client:unsubscribe(channel)
  if self.channels[channel] and self.session and self.session.open then self.session:say("UNSUB", { ch = channel }) end
  self.channels[channel] = nil
end

-- Events of a channel were lost ("busy"), are lost ("offline"), or are heard again ("ok").
function Client:gap(channel, code)
  self:guard("on_gap", self.options.on_gap, channel, code)
end

-- Asks for no more, answers what is in flight, and ends; close_timeout at most. It does not wait: run() returns then.
function Client:close()
  if self.closing then return end
  self.closing = self:timer(self.options.close_timeout)
  local session = self.session
  if session and session.open then session:say("BYE") elseif session then session:finish("closed") end
end

-- Whether close() has come to its end.
function Client:closed() return self.closing ~= nil and self.session == nil end

------------------------------------------------------------------------------------------------------------ adapters --

-- An adapter: load() gets its library; clock() is the time in seconds; open(session) begins to connect; write(session, bytes)
-- writes all or gives nil and why; close(session) lets go of the socket and wakes who waits for it; spawn(run) runs a handler.
-- If writers must wait for their turn elsewhere there is wake(session), after which somebody calls session:flush().
local function adapter(name, it)
  it.methods = setmetatable(it.methods or {}, { __index = Client })
  payrelay[name] = {
    connect = function(options)
      if it.load then it.load() end
      return new_client(it, options)
    end,
  }
end

-- Under another name: Defold's build looks for every module that a file requires by that name.
local need = require

-- How long to sleep before the next tick(): a second at most, somebody may have called close(); and never less than a clock
-- shows. (nginx's stands still until its events have run: a sleep of less than 1 ms would never end.)
local function nap(wait) return math.max(math.min(wait, 1), 0.01) end

local function run_at_once(run) return run() end

----------------------------------------------------------------------------------------------- adapter: LuaSocket --

local socket -- LuaSocket, also for copas

local luasocket = { tls = true, spawn = run_at_once, methods = {} }

function luasocket.load() socket = socket or need("socket") end

function luasocket.clock() return socket.gettime() end

-- Whether one of the certificate's names is the relay's. LuaSec does not look at them.
local function names_match(certificate, name)
  local found = certificate and (certificate:extensions() or {})["2.5.29.17"] or {}
  for _, address in ipairs(found.iPAddress or {}) do if address == name then return true end end
  name = name:lower()
  for _, pattern in ipairs(found.dNSName or {}) do
    pattern = pattern:lower()
    local wild = pattern:match("^%*(%.[^.]+%..+)$") -- for one label, and not for all of a top-level domain
    if pattern == name or (wild and name:match("^[^.]+(%..+)$") == wild) then return true end
  end
  return false
end

-- LuaSec's words for a timeout.
local function timed_out(why) return why == "timeout" or why == "wantread" or why == "wantwrite" end

-- LuaSec over a connected socket, or nil and why. Nothing is sent to a relay that is not proven.
local function secure(client, sock, o)
  local ssl, limit = need("ssl"), client:timer(o.connect_timeout)
  local params = { mode = "client", protocol = "any", verify = "peer" }
  params.options = { "all", "no_sslv2", "no_sslv3", "no_tlsv1", "no_tlsv1_1" }
  for key, value in pairs(o.tls) do if key ~= "name" then params[key] = value end end
  if not params.cafile and not params.capath then params.capath = "/etc/ssl/certs" end
  local wrapped, why = ssl.wrap(sock, params)
  if not wrapped then return nil, why end
  local name = o.tls.name or o.host
  if not name:find("^[%d.]+$") and not name:find(":", 1, true) then wrapped:sni(name) end -- an address is no server name
  local done
  repeat
    wrapped:settimeout(math.max(client:left(limit), 0))
    done, why = wrapped:dohandshake()
  until done or not timed_out(why) or client:left(limit) <= 0
  if done and params.verify ~= "none" and not names_match(wrapped:getpeercertificate(), name) then
    done, why = false, "its certificate is not for " .. name
  end
  if not done then wrapped:close() return nil, "TLS: " .. tostring(why) end
  return wrapped
end

function luasocket.open(session)
  local o = session.options
  local sock, why = socket.tcp()
  if not sock then return session:broke(why) end
  session.sock = sock
  sock:settimeout(o.connect_timeout)
  local done
  done, why = sock:connect(o.host, o.port)
  if done then
    sock:setoption("tcp-nodelay", true)
    if o.tls then done, why = secure(session.client, sock, o) end
  end
  if not done then return session:broke(why) end
  session.sock = o.tls and done or sock
  session:opened()
end

-- Writes all of it, or gives up after write_timeout: a relay that takes no byte must not hold the program for ever.
function luasocket.write(session, bytes)
  local client, from = session.client, 1
  local limit = client:timer(session.options.write_timeout)
  repeat
    session.sock:settimeout(math.max(client:left(limit), 0))
    local last, why, partial = session.sock:send(bytes, from)
    from = (last or partial or from - 1) + 1
    if not last and (not timed_out(why) or client:left(limit) <= 0) then return nil, timed_out(why) and "timeout" or why end
  until from > #bytes
  return true
end

-- What has arrived, waiting at most so long for its first byte. Always by count: "*l" would swallow every CR.
local function luasocket_read(sock, wait)
  sock:settimeout(wait)
  local first, why = sock:receive(1)
  if not first then return nil, timed_out(why) and "timeout" or why end
  sock:settimeout(0)
  local rest, _, partial = sock:receive(65536)
  return first .. (rest or partial or "")
end

function luasocket.close(session) if session.sock then session.sock:close() end end

-- One turn: connects, or waits, or handles what has come. At most timeout seconds (0 if not given), plus connecting and
-- your handlers. false once the client is closed.
function luasocket.methods:step(timeout)
  assert(not self.busy, "payrelay: run() or step() from within a handler")
  self.busy = true
  local wait = self:tick()
  local session = self.session
  wait = wait and math.min(wait, timeout or 0)
  if session and not session.over then
    local bytes, why = luasocket_read(session.sock, wait)
    if bytes then session:feed(bytes) elseif why ~= "timeout" then session:broke(why) end
  elseif wait and wait > 0 then
    (self.options.sleep or socket.sleep)(wait)
  end
  self.busy = false
  return wait ~= nil
end

-- Serves until close(), whatever happens.
function luasocket.methods:run() while self:step(60) do end end

-- As above; outside of handlers it waits for the end itself.
function luasocket.methods:close()
  Client.close(self)
  while not self.busy and self:step(self.options.close_timeout) do end
end

adapter("luasocket", luasocket)
payrelay.connect = payrelay.luasocket.connect

--------------------------------------------------------------------------------------------------- adapter: copas --

local copas
local copas_adapter = { clock = luasocket.clock, methods = {} }

function copas_adapter.load()
  copas = copas or need("copas")
  luasocket.load()
  -- Plain Lua 5.1 cannot yield through its own pcall; Copas brings one through which it can.
  if _VERSION == "Lua 5.1" and not rawget(_G, "jit") then copas_adapter.pcall = need("coxpcall").pcall end
end

-- What Copas waits for and calls in the socket's place: close() ends it for good, however often Copas tries again.
local function copas_stand_in(sock)
  local it = { gone = false }
  for _, name in ipairs{ "connect", "send", "receive" } do
    it[name] = function(_, ...)
      if it.gone then return nil, "closed" end
      return sock[name](sock, ...)
    end
  end
  for _, name in ipairs{ "getfd", "dirty", "settimeout" } do it[name] = function(_, ...) return sock[name](sock, ...) end end
  function it.close() return true end -- Copas 1 closes what a thread last waited for; the thread does that itself
  return setmetatable(it, { __tostring = function() return "tcp{client}: payrelay" end })
end

function copas_adapter.spawn(run) copas.addthread(run) end

function copas_adapter.open(session)
  copas.addthread(function()
    local o = session.options
    local sock, why = socket.tcp()
    if not sock then return session:broke(why) end
    session.sock, session.stand_in = sock, copas_stand_in(sock)
    local done
    done, why = copas.connect(session.stand_in, o.host, o.port)
    if done then
      sock:setoption("tcp-nodelay", true)
      session:opened()
    else
      session:broke(why)
    end
    while not session.over do
      local bytes, partial
      bytes, why, partial = copas.receivePartial(session.stand_in, 65536)
      bytes = bytes or partial
      if bytes and bytes ~= "" then session:feed(bytes) elseif why ~= "timeout" then session:broke(why) end
    end
    sock:close()
  end)
end

function copas_adapter.write(session, bytes) return copas.send(session.stand_in, bytes) end

-- The end of the stream wakes the threads that wait for it, and they close: Copas 1 never forgets a socket closed under it.
function copas_adapter.close(session)
  if not session.stand_in then return end
  session.stand_in.gone = true
  session.sock:shutdown("both")
end

-- Within a thread of Copas (not Copas 1, which has no sleep): serves until close(). Elsewhere it runs Copas meanwhile.
function copas_adapter.methods:run()
  local thread, main = coroutine.running()
  local sleep = copas.pause or copas.sleep
  if not thread or main then sleep = copas.step end
  assert(sleep, "payrelay: this Copas has no sleep; call run() outside of its threads")
  repeat
    local wait = self:tick()
    if wait then sleep(nap(wait)) end
  until not wait
end

adapter("copas", copas_adapter)

------------------------------------------------------------------------------------------------- adapter: cqueues --

local cqueues, cqueues_socket, strerror
local cqueues_adapter = { methods = {} }

function cqueues_adapter.load()
  cqueues, cqueues_socket, strerror = need("cqueues"), need("cqueues.socket"), need("cqueues.errno").strerror
  if _VERSION == "Lua 5.1" and not rawget(_G, "jit") then -- as for copas
    local resume = need("cqueues.auxlib").resume
    cqueues_adapter.pcall = function(run, ...)
      local count, results
      local function keep(...) count, results = select("#", ...), { ... } end
      local ok, why = resume(coroutine.create(function(...) keep(run(...)) end), ...)
      if not ok then return false, why end
      return true, rawget(_G, "unpack")(results, 1, count) -- resume() itself would make a nil of no value, and a NACK of an ACK
    end
  end
end

function cqueues_adapter.clock() return cqueues.monotime() end

function cqueues_adapter.spawn(run) cqueues.running():wrap(run) end

local function reason(why) return type(why) == "number" and strerror(why) or why or "closed" end

function cqueues_adapter.open(session)
  cqueues.running():wrap(function()
    local o = session.options
    local sock, why = cqueues_socket.connect{ host = o.host, port = tostring(o.port), nodelay = true }
    if not sock then return session:broke(reason(why)) end
    session.sock = sock
    sock:onerror(function(_, _, code) return code end) -- give errors back, raise none
    sock:setmode("b", "bn") -- bytes as they are; its lines end at 4,096, so none are asked for
    local done
    done, why = sock:connect(o.connect_timeout)
    if done then session:opened() else session:broke(reason(why)) end
    while not session.over do
      local bytes
      bytes, why = sock:xread(-65536) -- as many as there are
      if bytes then session:feed(bytes) else session:broke(reason(why)) end
    end
    sock:close()
  end)
end

function cqueues_adapter.write(session, bytes)
  local done, why = session.sock:xwrite(bytes, session.options.write_timeout)
  return done and true, reason(why)
end

function cqueues_adapter.close(session) if session.sock then session.sock:shutdown("rw") end end

-- Serves until close(). Outside of a controller it makes one.
function cqueues_adapter.methods:run()
  local function serve()
    repeat
      local wait = self:tick()
      if wait then cqueues.sleep(nap(wait)) end
    until not wait
  end
  if cqueues.running() then return serve() end
  local controller = cqueues.new()
  controller:wrap(serve)
  for why in controller:errors() do self:log("error", "a coroutine failed: " .. tostring(why)) end
end

adapter("cqueues", cqueues_adapter)

----------------------------------------------------------------------------------------------- adapter: OpenResty --

-- A cosocket belongs to the timer that made it, and only one light thread may read it and one write it. So each session has a
-- reader and a writer in its timer, and whoever says something, from any request of this worker, leaves it to the writer.
local ngx = rawget(_G, "ngx")
local openresty = { methods = {} }
local TIMER_MESSAGES = 1000 -- what a timer's threads leave behind is freed with the timer

function openresty.load() assert(ngx and ngx.timer, "payrelay: this is not OpenResty") end

function openresty.clock() return ngx.now() end

function openresty.log(level, text)
  local levels = { debug = ngx.DEBUG, info = ngx.NOTICE, warn = ngx.WARN, error = ngx.ERR }
  ngx.log(levels[level], "payrelay: ", text)
end

function openresty.spawn(run) ngx.thread.spawn(run) end

local function openresty_read(session)
  local o, sock = session.options, session.sock
  sock:settimeouts(o.connect_timeout * 1000, o.write_timeout * 1000, o.connect_timeout * 1000)
  local done, why = sock:connect(o.host, o.port)
  if done then session:opened() else session:broke(why) end
  while not session.over do
    -- The default is 60 s. Session:check() notices silence first, and nginx logs none as an error of its own.
    local wait = session.open and session.heartbeat * o.silence + 5 or o.connect_timeout
    sock:settimeouts(o.connect_timeout * 1000, o.write_timeout * 1000, wait * 1000)
    local bytes
    bytes, why = sock:receiveany(65536)
    if bytes then session:feed(bytes) else session:broke(why) end
  end
end

local function openresty_write(session)
  local reader = ngx.thread.spawn(openresty_read, session) -- here, for only its parent may kill it
  repeat
    session.turn:wait(60)
    if session.connected then session:flush() end
  until session.dropped
  if not session.feeding then ngx.thread.kill(reader) end -- else it is in a callback, and will see that it is over
  session.sock:close()
end

function openresty.open(session)
  session.sock, session.turn = ngx.socket.tcp(), need("ngx.semaphore").new()
  ngx.thread.spawn(openresty_write, session)
end

function openresty.write(session, bytes) return session.sock:send(bytes) end

function openresty.wake(session) session.turn:post(1) return true end

function openresty.close(session) session.turn:post(1) end

-- From init_worker_by_lua: serves in worker 0 until close() or the worker's end. Returns at once.
function openresty.methods:run()
  local function serve(premature)
    if premature then return end
    if self.session then self:replace() end -- of the timer before: it goes on there until the relay has handed over
    local wait, handed_over = self:tick(), false
    local mine = self.session
    while wait do
      ngx.sleep(nap(wait))
      local exiting = ngx.worker.exiting()
      if exiting then self:close() end
      if handed_over and not exiting then
        mine:check()
        wait = not mine.dropped and 1
      else
        wait = self:tick()
        mine = self.session
        handed_over = mine and mine.handled >= TIMER_MESSAGES and ngx.timer.at(0, serve)
      end
    end
  end
  if ngx.worker.id() == 0 then assert(ngx.timer.at(0, serve)) end
end

adapter("openresty", openresty)

-------------------------------------------------------------------------------------------------- adapter: skynet --

local skynet, skynet_socket
local skynet_adapter = { methods = {} }

function skynet_adapter.load() skynet, skynet_socket = need("skynet"), need("skynet.socket") end

function skynet_adapter.clock() return skynet.now() / 100 end

function skynet_adapter.log(level, text) if level ~= "debug" then skynet.error("payrelay " .. level .. ": " .. text) end end

function skynet_adapter.spawn(run) skynet.fork(run) end

function skynet_adapter.open(session)
  skynet.fork(function()
    local o = session.options
    local fd, why = skynet_socket.open(o.host, o.port)
    if not fd then return session:broke(why) end
    session.fd = fd
    session:opened()
    while not session.over do
      local count = session.parser:wants()
      local bytes = count and skynet_socket.read(fd, count) -- never 0 of them: that puts it out of step
      local line = not count and skynet_socket.readline(fd, "\n") -- it keeps the CR, and drops the LF
      bytes = bytes or line and line .. "\n"
      if bytes then session:feed(bytes) else session:broke("closed") end
    end
    session.fd = nil
    skynet_socket.close(fd) -- after what is still to be written
  end)
end

function skynet_adapter.write(session, bytes)
  if not session.fd or skynet_socket.write(session.fd, bytes) == false then return nil, "closed" end
  return true
end

-- A read has no timeout, so it takes the end of the socket to wake the reader: in good order first, for the last ACK may be
-- on its way; by force if the relay takes nothing any more.
function skynet_adapter.close(session)
  local fd = session.fd
  if not fd or session.feeding then return end -- the reader sees for itself that it is over
  skynet.fork(skynet_socket.close, fd)
  skynet.timeout(100, function() if session.fd == fd then skynet_socket.shutdown(fd) end end)
end

-- Returns at once; serves until close().
function skynet_adapter.methods:run()
  local function watch()
    local wait = self:tick()
    if wait then skynet.timeout(math.ceil(nap(wait) * 100), watch) end
  end
  watch()
end

adapter("skynet", skynet_adapter)

-------------------------------------------------------------------------------------------- adapters: push and luv --

-- For any other socket, and for frame loops (Defold, Cocos): options has open(session), write(session, bytes), which returns
-- true or nil and why, and close(session). Call session:opened(), session:feed(bytes) and session:broke(why) as things happen,
-- and client:tick() once a second or a frame.
local push = { anywhere = true, clock = os.time, spawn = run_at_once }
for _, name in ipairs{ "open", "write", "close" } do
  push[name] = function(session, bytes) return session.options[name](session, bytes) end
end

adapter("push", push)

local uv
local luv = { methods = {} }

function luv.load() uv = uv or need("luv") end

function luv.clock() return uv.hrtime() / 1e9 end

-- A coroutine: a handler may yield, and be resumed by a callback of its own (not in plain Lua 5.1).
function luv.spawn(run) coroutine.wrap(run)() end

function luv.open(session)
  local o = session.options
  uv.getaddrinfo(o.host, tostring(o.port), { socktype = "stream" }, function(failed, found)
    if failed or session.over then return session:broke(failed) end
    session.unsent, session.sock = 0, uv.new_tcp()
    session.sock:connect(found[1].addr, found[1].port, function(refused)
      if refused or session.over then return session:broke(refused) end
      session.sock:nodelay(true)
      session.sock:read_start(function(broken, bytes)
        if bytes then session:feed(bytes) else session:broke(broken or "closed") end
      end)
      session:opened()
    end)
  end)
end

function luv.write(session, bytes)
  local request, why = session.sock:write(bytes, function(failed)
    session.unsent = session.unsent - 1
    if session.unsent == 0 then session.stuck = nil end
    if failed then session:broke(failed) end
  end)
  session.unsent = session.unsent + (request and 1 or 0)
  return request, why
end

-- After what is still to be written, unless nobody takes it.
function luv.close(session)
  local sock = session.sock
  if not sock or sock:is_closing() then return end
  local function close() if not sock:is_closing() then sock:close() end end
  if session.stuck or not session.connected or not sock:shutdown(close) then close() end
end

-- Returns at once; serves until close(), while your program runs the loop.
function luv.methods:run()
  local timer = uv.new_timer()
  local function watch()
    local wait = self:tick()
    if wait then timer:start(math.ceil(nap(wait) * 1000), 0, watch) else timer:close() end
  end
  watch()
end

adapter("luv", luv)

return payrelay
