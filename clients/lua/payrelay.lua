-- payrelay: receives payment notifications from a payrelay relay. One file for every Lua and every
-- socket library: copy it into your program.
--
--   local payrelay = require("payrelay")
--   local client = payrelay.luasocket.new{
--     host = "127.0.0.1", port = 7000, id = "game-01", token = "…",
--     on_message = function(msg)
--       book(msg.body)
--       return true
--     end,
--   }
--   client:run()
--
-- and the same with copas, cqueues, openresty, skynet, luv or push in the place of luasocket.
-- Options, rules for handlers and an example for each are in clients/lua/README.md; the protocol is
-- in doc/protocol.md. Bodies and tokens are never printed here.
--
-- The parts, each of which knows only those above it: the core (bytes to frames and back), the
-- session (one connection's dialogue), the client (when to connect, what to remember), the adapters
-- (one socket library each). The file is over 500 lines because users copy one file; no library is
-- loaded that they do not ask for.

local payrelay = { PROTOCOL = 1, VERSION = "0.1.0" }

local unpack = rawget(_G, "unpack") or rawget(table, "unpack")
local plain_lua_51 = _VERSION == "Lua 5.1" and not rawget(_G, "jit") -- no yield through pcall

------------------------------------------------------------------------------------------- core --

local core = { LINE_MAX = 1024, REASON_MAX = 200, DELAY_MAX = 604800 }
payrelay.core = core

-- Explicit ranges: what %w means depends on the program's locale.
function core.escape(bytes)
  return (bytes:gsub("[^A-Za-z0-9%-._~/:,+@]", function(byte)
    return ("%%%02X"):format(byte:byte())
  end))
end

-- The bytes, or nil if there is a % without two hex digits.
function core.unescape(value)
  if value:gsub("%%%x%x", ""):find("%", 1, true) then return nil end
  return (value:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- One frame as bytes. args: key = string or whole number; args[1] is HELLO's version. The keys are
-- sorted, so that the same call gives the same bytes.
function core.encode(verb, args, data)
  local keys, line = {}, { verb }
  for key in pairs(args or {}) do
    if key ~= 1 then keys[#keys + 1] = key end
  end
  table.sort(keys)
  if args and args[1] then line[2] = ("%d"):format(args[1]) end
  for _, key in ipairs(keys) do
    local value = args[key]
    local text = type(value) == "number" and ("%d"):format(value) or core.escape(value)
    line[#line + 1] = key .. "=" .. text
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
      local good = key and key ~= "" and #key <= 16 and frame.args[key] == nil
      value = good and core.unescape(value)
      if not value then return nil, "a bad token" end
      frame.args[key] = value
    end
  end
  return frame
end

local Parser = {}

-- The push parser: bytes in, cut anywhere; frames { verb =, args =, data = } out. After a broken
-- frame it gives no more, and parser.failed says why. data_max bounds what one frame may make it
-- hold.
function core.parser(data_max)
  return setmetatable({
    buffer = "", at = 1,  -- bytes in hand, and where the next frame begins in them
    fresh = {},           -- pieces that came later and are not joined yet
    size = 0, need = 1,   -- how many bytes there are, and how many the next step needs
    data_max = data_max or 2 ^ 26,
  }, { __index = Parser })
end

function Parser:feed(bytes)
  if not self.failed then
    self.fresh[#self.fresh + 1] = bytes
    self.size = self.size + #bytes
  end
  return function() return self:next() end
end

function Parser:fail(why)
  self.failed = why
  self.buffer, self.at, self.fresh, self.size = "", 1, {}, 0
end

function Parser:next()
  if self.failed or self.size < self.need then return nil end
  if self.fresh[1] then -- joined once all is there: a large body comes in many pieces
    self.buffer = self.buffer:sub(self.at) .. table.concat(self.fresh)
    self.at, self.fresh = 1, {}
  end
  local frame = self.frame
  if not frame then
    local lf = self.buffer:find("\n", self.at, true)
    if (lf or #self.buffer + 1) - self.at > core.LINE_MAX then
      return self:fail("a line of more than " .. core.LINE_MAX .. " bytes")
    end
    if not lf then return nil end
    local why
    frame, why = parse_line(self.buffer:sub(self.at, lf - 1))
    if not frame then return self:fail(why) end
    if (frame.length or 0) > self.data_max then
      return self:fail(("%d bytes of data, and %d are allowed"):format(frame.length, self.data_max))
    end
    self.size = self.size - (lf + 1 - self.at)
    self.at = lf + 1
    self.frame, self.need = frame, frame.length and frame.length + 1 or 1
  end
  if frame.length then
    if self.size < self.need then return nil end
    local stop = self.at + frame.length
    if self.buffer:byte(stop) ~= 10 then return self:fail("no LF after the data") end
    frame.data = self.buffer:sub(self.at, stop - 1)
    self.size = self.size - self.need
    self.at = stop + 1
  end
  if self.size == 0 then -- no body stays longer than needed
    self.buffer, self.at = "", 1
  end
  self.frame, self.need = nil, 1
  return frame
end

---------------------------------------------------------------------------------------- session --

-- An error value as text; its own __tostring may raise.
local function printable(value)
  local ok, text = pcall(tostring, value)
  return ok and type(text) == "string" and text or "an error that has no text"
end

-- What a handler's end means for the relay: "ACK" or "NACK", and the keys that go with it. Takes
-- what pcall returned. Only true, or no value at all, is an ACK: `return db.insert(x)` that gave
-- nil must not lose the payment.
function core.verdict(...)
  local ok, result, reason, delay = ...
  if ok and (result == true or select("#", ...) == 1) then return "ACK", {} end
  if not ok then
    reason, delay = result == nil and "the handler raised nil" or result, nil
  elseif result then
    reason = "the handler returned a " .. type(result) .. ", not true, nothing, or nil and a reason"
    delay = nil
  end
  local keys = {}
  if reason ~= nil then keys.reason = printable(reason):sub(1, core.REASON_MAX) end
  delay = tonumber(delay)
  if delay == -1 or (delay and delay >= 0) then
    keys.delay = math.ceil(math.min(delay, core.DELAY_MAX))
  end
  return "NACK", keys
end

-- The program's part of a traceback: what is below the call that catches errors is the client's.
local function program_part(trace) return (trace:gsub("\n%s*%[C%]: in %a+ 'xpcall'.*", "")) end

local function traceback(why)
  local debug = rawget(_G, "debug")
  return debug and program_part(debug.traceback(printable(why), 3)) or printable(why)
end

-- A pcall that gives false, the error and a traceback if the function fails. xpcall: the one that
-- the adapter's coroutines can yield through.
local function traced(xpcall)
  return function(run, ...)
    local trace
    local count, args = select("#", ...), { ... }
    local function on_error(why, original)
      if original ~= nil then -- coxpcall gives a traceback and the error
        trace = program_part(why)
        return original
      end
      trace = traceback(why)
      return why
    end
    local function results(ok, ...)
      if ok then return true, ... end
      return false, (...), trace or printable((...))
    end
    return results(xpcall(function() return run(unpack(args, 1, count)) end, on_error))
  end
end

local traced_call = traced(xpcall)

-- One connection and its dialogue. The adapter calls opened(), feed() and broke(); the session
-- calls the adapter's functions open(session), write(session, bytes) and close(session). After its
-- end there is session.over = { why =, retry = s, slow = true }: retry is a wait that the relay
-- asked for, slow means that an operator is needed.
local Session = {}
Session.__index = Session

local on_frame = {} -- the relay's verbs, each as a function of a session

local function new_session(client)
  return setmetatable({
    client = client,
    options = client.options,
    parser = core.parser(core.LINE_MAX), -- before OK no frame has data to speak of
    idle_timer = client:timer(client.options.connect_timeout),
    outgoing = {},  -- frames that nobody has begun to write
    calls = {},     -- what was asked, by its ref
    in_flight = 0,  -- messages that are not answered yet
    handled = 0,    -- messages that have come
  }, Session)
end

function Session:finish(why, retry, slow)
  if self.over then return end
  self.over = { why = why, retry = retry, slow = slow }
  if not self.feeding then self.client:drop(self) end
end

-- Calls the client's own code. An error in it ends the connection and not the program: the next
-- connection starts afresh.
function Session:attempt(run, ...)
  local ok, why, trace = self.client:protected(run, ...)
  if ok then return end
  self.feeding = false
  self.client:log("error", "an error in the client: " .. trace)
  self:broke(printable(why))
end

-- Hands a frame over for writing: true, or nil and why not.
function Session:send_frame(verb, args, data)
  if self.over or self.write_error or not self.connected then return nil, "not connected" end
  self.outgoing[#self.outgoing + 1] = core.encode(verb, args, data)
  if self.client.adapter.wake then return self.client.adapter.wake(self) end
  if self.writing then return true end -- one writer at a time; it takes along what came meanwhile
  return self:flush()
end

function Session:flush()
  local sent, why = true, nil
  self.writing = true
  while sent and self.outgoing[1] do
    local bytes = table.concat(self.outgoing)
    self.outgoing = {}
    if not (self.unsent and self.write_timer) then
      self.write_timer = self.client:timer(self.options.write_timeout)
    end
    sent, why = self.client.adapter.write(self, bytes)
  end
  self.writing = nil
  if not self.unsent then self.write_timer = nil end
  if sent then return true end
  self.write_error = "could not write: " .. printable(why)
  if not self.feeding then self:finish(self.write_error) end
  return nil, self.write_error
end

-- The connection stands.
function Session:opened()
  if self.over then return end
  local options = self.options
  self.connected = true
  self.idle_timer = self.client:timer(options.connect_timeout)
  self.credit = self.client:credit()
  self:send_frame("HELLO", {
    payrelay.PROTOCOL, id = options.id, token = options.token, max = self.credit,
  })
end

local function handle(self, bytes)
  for frame in self.parser:feed(bytes) do
    local verb = frame.verb
    if not on_frame[verb] then
      self.client:log("debug", "skipped a frame of the unknown verb " .. verb)
    elseif not self.write_error or verb == "BYE" or verb == "ERR" then
      -- These two say how long to wait, even if no answer can be sent.
      on_frame[verb](self, frame.args, frame.data or "")
    end
    if self.over then break end
  end
end

-- Bytes have come, cut anywhere.
function Session:feed(bytes)
  if self.over then return end
  self.feeding = true
  self:attempt(handle, self, bytes)
  self.feeding, self.pinged, self.probing = false, nil, nil
  -- Only now: the time in handlers is not the relay's silence.
  local options, failed = self.options, self.parser.failed
  local span = self.open and self.heartbeat * options.silence or options.connect_timeout
  self.idle_timer = self.client:timer(span)
  if self.write_error then
    self:finish(self.write_error)
  elseif failed then
    self:finish("the relay sent a broken frame: " .. failed)
  end
  if self.over then self.client:drop(self) end
end

-- The connection could not be made, or is gone.
function Session:broke(why)
  if self.bye then return self:finish(self.bye.why, self.bye.retry) end
  local o = self.options
  local what = "the connection broke"
  if not self.connected then
    what = "could not connect" .. (o.host and (" to %s:%s"):format(o.host, tostring(o.port)) or "")
  end
  self:finish(what .. ": " .. printable(why))
end

-- Looks whether no byte has come for too long, or nobody takes what is written.
function Session:check()
  local client = self.client
  local silent = self.idle_timer.span - client:left(self.idle_timer)
  if self.write_timer and client:left(self.write_timer) <= 0 then
    self:broke("the relay took no byte for " .. self.options.write_timeout .. " s")
  elseif self.feeding then
    return
  elseif silent >= self.idle_timer.span then
    if self.probing or not self.connected then
      return self:broke(("nothing heard for %g s"):format(self.probing or self.idle_timer.span))
    end
    -- A program that was held up sees the time before it sees the bytes that have come meanwhile:
    -- look once more.
    self.probing = self.idle_timer.span
    self.idle_timer = client:timer(1)
  elseif self.open and not self.pinged and silent >= 1.5 * self.heartbeat then
    -- The relay sends no PING to a client that sends (TOUCH), so the client has to.
    self.pinged = true
    self:send_frame("PING")
  end
end

-- The answer to one message.
function Session:answer(msg, verb, keys)
  keys.id = msg.id
  local client = self.client
  if verb == "NACK" then
    client:log("warn", ("refused %s: %s"):format(msg.id, keys.reason or "no reason given"))
  end
  if not self:send_frame(verb, keys) then
    client:log("warn", ("the connection was lost before the %s of %s; expect the event again")
      :format(verb, msg.id))
  end
  self.in_flight = self.in_flight - 1
  if self.bye and self.in_flight == 0 then self:finish(self.bye.why, self.bye.retry) end
end

-- What became of a SEND, PUB or SUB. Returns whether the program is told.
function Session:answered(ref, ok, code)
  local call = self.calls[ref]
  self.calls[ref] = nil
  if not call then return false end
  local client = self.client
  local function settle()
    client.pending_calls = client.pending_calls - 1
    client.pending_bytes = client.pending_bytes - call.size
  end
  if call.resume then -- a coroutine waits: it needs no turn among the callbacks
    settle()
    call.resume(ok, code)
  elseif call.done then -- it counts until it was called, so that what waits here has a bound
    client:callback("a callback", function()
      settle()
      call.done(ok, code)
    end)
  else
    settle()
    return false
  end
  return true
end

function on_frame.OK(self, args)
  if args.ref then return self:answered(args.ref, true) end
  if args.ch then return self.client:gap(args.ch, "ok") end
  if self.open then return end
  self.open, self.heartbeat = true, math.max(tonumber(args.heartbeat) or 20, 0.001)
  self.max_body = tonumber(args.max_body) or 0
  self.parser.data_max = self.max_body + 1024 * 1024
  local client = self.client
  client.failures = 0
  client:log("info", ("connected as %s to %s, session %s")
    :format(args.id or "?", args.node or "?", args.session or "?"))
  if client:credit() ~= self.credit then client:send_credit() end
  local wanted = {} -- apart, for the table may change while a frame is written
  for channel in pairs(client.channels) do wanted[#wanted + 1] = channel end
  for _, channel in ipairs(wanted) do client:listen(channel) end
  client:set_state("connected")
  client:callback("on_connect", self.options.on_connect, args)
end

function on_frame.MSG(self, args, data)
  local h = tonumber((args.h or "0"):match("^%d+$"))
  if not args.id or #args.id > 64 or not h then
    return self:finish("the relay sent a broken MSG")
  end
  h = math.min(h, #data)
  self.in_flight = self.in_flight + 1
  self.handled = self.handled + 1
  local verified, opened = (args.verified or ""):match("^(.*):(opened)$")
  self.client:dispatch(self, {
    id = args.id, try = tonumber(args.try) or 1, route = args.route,
    verified = verified or args.verified, opened = opened ~= nil or nil,
    event = args.event, at = tonumber(args.at), head = data:sub(1, h), body = data:sub(h + 1),
  })
end

function on_frame.EVENT(self, args, data)
  local client = self.client
  local listener = client.channels[args.ch]
  if not listener then return end -- it crossed the UNSUB on its way
  if listener.once then client.channels[args.ch] = nil end
  client:offer("the listener of " .. args.ch, listener.run, args.ch, data, data, args.ch)
end

function on_frame.DATA(self, args, data)
  self.client:offer("on_data", self.options.on_data, nil, data, args.from, data)
end

function on_frame.PING(self) self:send_frame("PONG") end

function on_frame.PONG() end

function on_frame.ERR(self, args)
  local text = ("the relay said %s: %s"):format(args.code or "?", args.msg or "")
  if args.ch and not args.ref then self.client:gap(args.ch, args.code) end
  if args.fatal == "1" then
    -- A full relay empties by itself; every other refusal stays until somebody changes something.
    self:finish(text, nil, args.code ~= "limit")
  elseif not (args.ref and self:answered(args.ref, nil, args.code)) then
    self.client:log("warn", text)
  end
end

-- What is in flight may still be answered, until the relay closes.
function on_frame.BYE(self, args)
  self.bye = {
    why = "the relay said BYE: " .. (args.reason or "?"),
    retry = math.max(tonumber(args.retry) or 1, 0),
  }
  if self.in_flight == 0 then self:finish(self.bye.why, self.bye.retry) end
end

----------------------------------------------------------------------------------------- client --

local Client = {}

local DEFAULTS = {
  max = 16, dedupe = 0, connect_timeout = 5, write_timeout = 10, close_timeout = 5,
  -- for tests: the waits of the protocol document, and OpenResty's timers
  backoff_min = 0.5, backoff_max = 30, slow_retry = 30, silence = 2.5, timer_messages = 1000,
}

-- Bounds: what was sent or published and is not answered yet; what other backends sent and waits
-- for its callback.
local CALLS_MAX, CALL_BYTES_MAX = 1024, 4 * 1024 * 1024
local CALLBACKS_MAX, CALLBACK_BYTES_MAX = 1024, 4 * 1024 * 1024

local function log_to_stderr(level, text)
  if level ~= "debug" then io.stderr:write("payrelay ", level, ": ", text, "\n") end
end

-- A generator of its own, for jitter: the program's math.random keeps its seed and its sequence.
-- (5.1 always starts at the same seed, so without this all backends would come back at the same
-- moment.) Park and Miller's, exact in doubles.
local function generator(text, time)
  local state = math.floor(time * 1e6) % 2147483646
  for byte in (text .. tostring({})):gmatch(".") do
    state = (state * 31 + byte:byte()) % 2147483646
  end
  state = state + 1
  return function()
    state = state * 16807 % 2147483647
    return state / 2147483647
  end
end

local function whole(value, least, most)
  return type(value) == "number" and value % 1 == 0 and value >= least and value <= most
end

local function check_options(adapter, o)
  local function check(good, what)
    if not good then error("payrelay: " .. what, 0) end
  end
  if not adapter.anywhere then
    check(type(o.host) == "string" and o.host ~= "", "host must be an address or a name")
    check(whole(tonumber(o.port), 1, 65535), "port must be 1 to 65535")
  end
  local good_id = type(o.id) == "string" and #o.id <= 64 and o.id:find("^[A-Za-z0-9._%-]+$")
  check(good_id, "id: 1 to 64 of A-Z a-z 0-9 . _ -")
  check(o.token == nil or (type(o.token) == "string" and #o.token <= 256),
    "token must be a string of 64 digits")
  check(whole(o.max, 0, 1024), "max must be 0 to 1024")
  check(whole(o.dedupe, 0, 1000000), "dedupe must be 0 to 1000000")
  check(type(o.on_message) == "function", "on_message must be a function")
  for _, name in ipairs{ "on_connect", "on_data", "on_gap", "on_log", "on_state" } do
    check(not o[name] or type(o[name]) == "function", name .. " must be a function")
  end
  check(not o.tls or adapter.tls, "tls is for luasocket only")
  check(not o.tls or type(o.tls) == "table", 'tls must be a table, such as { cafile = "ca.pem" }')
end

-- A backend. Nothing is opened yet.
local function new_client(adapter, options)
  local o = setmetatable({}, { __index = DEFAULTS })
  for key, value in pairs(options) do o[key] = value end
  check_options(adapter, o)
  o.port = tonumber(o.port)
  o.clock = o.clock or adapter.clock
  o.on_log = o.on_log or adapter.log or log_to_stderr
  o.random = o.random or generator(o.id, o.clock())
  local client = setmetatable({
    adapter = adapter, options = o, channels = {},
    failures = 0,  -- connections in a row that never were open
    working = 0,   -- handlers at work
    jobs = setmetatable({}, { __mode = "k" }),    -- by message, while its handler is at work
    threads = setmetatable({}, { __mode = "k" }), -- the coroutines of handlers
    callbacks = { first = 1, last = 0, bytes = 0, dropped = 0, gaps = {} },
    pending_calls = 0, pending_bytes = 0, last_ref = 0,
    closers = {},
    formers = {}, -- sessions that another has replaced, and that still owe answers
    seen = {}, ring = {}, ring_at = 0, -- what dedupe remembers, and in which order it came
  }, { __index = adapter.methods })
  client.retry_timer = client:timer(0)
  return client
end

function Client:log(level, text)
  text = text:gsub("\r?\n%s*", "; "):gsub("%c", " ") -- one line each
  pcall(self.options.on_log, level, text) -- a log that fails must not cost a payment
end

-- A pcall through which this adapter's coroutines can yield: true and the results, or false, the
-- error and a traceback.
function Client:protected(run, ...)
  return (self.adapter.protected or traced_call)(run, ...)
end

-- Calls a function of the program, if it gave one. An error in it is logged.
function Client:call_user(what, run, ...)
  if not run then return end
  local ok, _, trace = self:protected(run, ...)
  if not ok then self:log("error", what .. " failed: " .. trace) end
end

function Client:timer(span) return { at = self.options.clock(), span = span } end

-- Seconds until the timer is over, 0 or less if it is. A wall clock may be set back: then the span
-- starts anew.
function Client:left(timer)
  local now = self.options.clock()
  if now < timer.at then timer.at = now end
  return timer.span - (now - timer.at)
end

------------------------------------------------------------------------------ client: callbacks --

-- All callbacks but on_message (on_connect, on_data, on_gap, on_state, listeners, done) run one
-- after the other, in order. Where the library has coroutines they have one of their own: a
-- callback that waits delays the callbacks after it, and nothing else.
function Client:callback(what, run, ...) self:enqueue(0, what, run, ...) end

function Client:enqueue(size, what, run, ...)
  if not run then return end
  if not self.adapter.coroutines then return self:call_user(what, run, ...) end
  local queue = self.callbacks
  queue.last = queue.last + 1
  queue[queue.last] = { what = what, run = run, size = size, count = select("#", ...), ... }
  queue.bytes = queue.bytes + size
  if queue.busy then return end
  queue.busy = true
  self.adapter.spawn(function() self:run_callbacks() end)
end

-- The same for what another backend sent. It is dropped if too much waits for a callback that does
-- not return.
function Client:offer(what, run, channel, data, ...)
  local queue = self.callbacks
  local waiting = queue.last - queue.first + 1
  local full = waiting > 0 and queue.bytes + #data > CALLBACK_BYTES_MAX
  if waiting < CALLBACKS_MAX and not full then return self:enqueue(#data, what, run, ...) end
  queue.dropped = queue.dropped + 1
  if channel then queue.gaps[channel] = true end
  if queue.dropped > 1 then return end
  self:log("warn", ("%d callbacks wait for %s: what other backends send is dropped")
    :format(waiting, queue.running or "their turn"))
end

function Client:run_callbacks()
  local queue = self.callbacks
  while queue[queue.first] do
    local each = queue[queue.first]
    local heartbeat = self.session and self.session.heartbeat or 20
    queue.running, queue.timer, queue.held = each.what, self:timer(heartbeat), false
    self:call_user(each.what, each.run, unpack(each, 1, each.count))
    if queue.held then self:log("info", each.what .. " has returned") end
    queue[queue.first] = nil
    queue.first = queue.first + 1
    queue.bytes = queue.bytes - each.size
    queue.running = nil
    if queue.first > queue.last then self:report_dropped() end
  end
  queue.busy = false
end

function Client:report_dropped()
  local queue = self.callbacks
  if queue.dropped == 0 then return end
  self:log("warn", queue.dropped .. " messages of other backends were dropped")
  local gaps = queue.gaps
  queue.dropped, queue.gaps = 0, {}
  for channel in pairs(gaps) do self:gap(channel, "busy") end
end

-- A callback that does not return is a fault of the program that nothing else would show.
function Client:check_callbacks()
  local queue = self.callbacks
  if not queue.running or queue.held or self:left(queue.timer) > 0 then return end
  queue.held = true
  self:log("warn", ("%s has not returned for %g s, and the callbacks after it wait")
    :format(queue.running, queue.timer.span))
end

-- "connected", "disconnected" or "closed"; only changes are told.
function Client:set_state(state, why)
  if self.state == state or self.state == "closed" then return end
  self.state = state
  self:callback("on_state", self.options.on_state, state, why)
  if state ~= "closed" then return end
  for _, waiter in ipairs(self.closers) do waiter.wake() end
end

------------------------------------------------------------------------------ client: connecting --

-- Does what is due: connects, notices silence, ends what is closed. Returns the seconds until it
-- wants to be called again (any earlier call does no harm), or nil once the client is closed.
function Client:tick()
  self:check_callbacks()
  local session = self.session
  if self.closing and self:left(self.closing) <= 0 then
    for former in pairs(self.formers) do former:finish("closed") end
    if session then session:finish("closed") end
  end
  if session and not session.over then session:check() end
  if not self.session then
    if self:closed() then return nil end
    if self.closing then return math.max(self:left(self.closing), 0) end
    local wait = self:left(self.retry_timer)
    if wait > 0 then return wait end
    self.session = new_session(self)
    self.session:attempt(self.adapter.open, self.session)
  end
  session = self.session
  if not session then return math.max(self:left(self.retry_timer), 0) end
  local wait = self:left(session.idle_timer)
  if session.open and not session.pinged then wait = math.min(wait, session.heartbeat) end
  if self.closing then wait = math.min(wait, self:left(self.closing)) end
  return math.max(wait, 0)
end

-- Lets go of a session that is over, and decides how long to wait before the next try.
function Client:drop(session)
  if session.dropped then return end
  session.dropped = true
  self.adapter.close(session)
  for ref in pairs(session.calls) do session:answered(ref, nil, "the connection was lost") end
  self.formers[session] = nil
  if session == self.session then self:lost(session.over) end
  if self:closed() then
    self:log("info", "closed")
    self:set_state("closed")
  end
end

function Client:lost(over)
  local o = self.options
  self.failures = self.failures + 1
  local jitter = o.random()
  local bound = math.min(o.backoff_max, o.backoff_min * 2 ^ math.min(self.failures, 16))
  local span = o.backoff_min + jitter * (bound - o.backoff_min)
  if over.retry or over.slow then -- at least as long as was asked for
    local asked = math.max(over.retry or 0, over.slow and o.slow_retry or 0, o.backoff_min)
    span = asked * (1 + jitter / 2)
  end
  self.session, self.retry_timer = nil, self:timer(span)
  if self.closing then return end
  self:log(over.slow and "error" or "warn", ("%s; next try in %.1f s"):format(over.why, span))
  self:set_state("disconnected", over.why)
end

-- The next tick() opens another session, and the relay hands over from this one: nothing is missed
-- in between. A client that closes goes on with the one that it has.
function Client:replace()
  if self.closing then return end
  self.formers[self.session] = true
  self.session, self.retry_timer = nil, self:timer(0)
end

-- Whether notifications can come now.
function Client:connected()
  local session = self.session
  return session ~= nil and session.open == true and not session.over and not session.bye
end

-- Asks for no more messages, on this connection and on later ones, until resume(). The session
-- stays; what is in flight stays in flight. Providers are told ok or not as for a slow backend.
function Client:pause()
  self.paused = true
  self:send_credit()
end

function Client:resume()
  self.paused = false
  self:send_credit()
end

function Client:credit() return self.paused and 0 or self.options.max end

function Client:send_credit()
  local session = self.session
  if not session or not session.open or session.credit == self:credit() then return end
  session.credit = self:credit()
  session:send_frame("RDY", { max = session.credit })
end

-- Asks for no more, answers what is in flight, and ends; it takes close_timeout at most. close()
-- does not wait. close(true) waits for the end where a coroutine can, and returns whether it has
-- come; a handler cannot, since the end comes after it.
function Client:close(wait)
  if not self.closing then
    self.closing = self:timer(self.options.close_timeout)
    for former in pairs(self.formers) do
      if not former.bye then former:send_frame("BYE") end
    end
    local session = self.session
    if session and session.open then
      session:send_frame("BYE")
    elseif session then
      session:finish("closed")
    elseif self:closed() then
      self:set_state("closed")
    end
  end
  local waiter = wait and not self:in_handler() and self:waiter()
  if waiter then
    self.closers[#self.closers + 1] = waiter
    while not self:closed() do waiter.wait() end
  end
  return self:closed()
end

-- Whether close() has come to its end.
function Client:closed()
  return self.closing ~= nil and self.session == nil and next(self.formers) == nil
end

-- How the calling coroutine waits for another: { wait =, wake = }, or nil if it cannot.
function Client:waiter() return self.adapter.waiter and self.adapter.waiter(self) end

function Client:in_handler()
  local thread = coroutine.running()
  return thread ~= nil and self.threads[thread] == true
end

-------------------------------------------------------------------------------- client: messages --

-- What a message is known by: the relay's redelivery has the same id, the provider's retry the same
-- event.
local function dedupe_keys(msg)
  return { "id " .. msg.id, msg.event and ("event %s %s"):format(msg.route or "", msg.event) }
end

-- A message has come. Its handler runs beside the others where the adapter can do that. The credit
-- bounds them, but for those that the relay has given up and those of an earlier session.
function Client:dispatch(session, msg)
  local keys = self.options.dedupe > 0 and dedupe_keys(msg) or {}
  local limit, busy = 2 * math.max(self.options.max, 1), self.working
  for _, key in ipairs(keys) do
    local before = self.seen[key]
    if before == true then
      self:log("info", msg.id .. " is a duplicate, and acknowledged as one")
      return session:answer(msg, "ACK", {})
    elseif before and #before < limit then
      -- Its twin is being worked on, and will be answered for both.
      before[#before + 1] = { session = session, msg = { id = msg.id } }
      return
    elseif before then
      busy = limit
    end
  end
  if busy >= limit then
    local reason = ("busy: %d handlers are at work"):format(self.working)
    return session:answer(msg, "NACK", { reason = reason })
  end
  local job = { { session = session, msg = msg }, keys = keys }
  for _, key in ipairs(keys) do self.seen[key] = job end
  self.jobs[msg] = job
  self.working = self.working + 1
  self.adapter.spawn(function() self:work(msg, job) end)
end

function Client:work(msg, job)
  local function judge(ok, ...)
    if ok then return core.verdict(true, ...) end
    local why, trace = ...
    self:log("error", ("the handler failed with %s: %s"):format(msg.id, trace))
    return core.verdict(false, why)
  end
  local thread
  local function run()
    thread = coroutine.running()
    if thread then self.threads[thread] = true end
    return self.options.on_message(msg)
  end
  local verb, keys = judge(self:protected(run))
  if thread then self.threads[thread] = nil end -- skynet uses its coroutines again
  self.jobs[msg] = nil
  self.working = self.working - 1
  for _, key in ipairs(job.keys) do self:remember(key, verb == "ACK") end
  for _, each in ipairs(job) do each.session:answer(each.msg, verb, keys) end
end

-- Keeps the names of what is done, and drops the oldest for it; forgets what is not done.
function Client:remember(key, done)
  self.seen[key] = done or nil
  if not done then return end
  self.ring_at = self.ring_at % (2 * self.options.dedupe) + 1 -- a message has two names at most
  local oldest = self.ring[self.ring_at]
  if oldest then self.seen[oldest] = nil end
  self.ring[self.ring_at] = key
end

-- From within a handler that takes long: tells the relay so. true if it could be sent.
function Client:touch(msg)
  local sent = self.jobs[msg] ~= nil
  for _, each in ipairs(self.jobs[msg] or {}) do
    sent = each.session:send_frame("TOUCH", { id = each.msg.id }) and sent or false
  end
  return sent
end

------------------------------------------------------------------------- client: other backends --

-- Sends what the relay answers by its ref. If it cannot be written, the session is over, and the
-- caller is told.
function Client:request(verb, args, data, call)
  local session = self.session
  self.last_ref = self.last_ref + 1
  args.ref = ("%d"):format(self.last_ref)
  call.size = data and #data or 0
  session.calls[args.ref] = call
  self.pending_calls = self.pending_calls + 1
  self.pending_bytes = self.pending_bytes + call.size
  session:send_frame(verb, args, data)
end

function Client:call(verb, args, data, done)
  assert(type(data) == "string", "payrelay: what is sent must be a string")
  local session = self.session
  if not session or not session.open then return nil, "not connected" end
  if #data > session.max_body then return nil, "too-big" end
  local bytes = self.pending_bytes + #data
  if self.pending_calls >= CALLS_MAX or (self.pending_calls > 0 and bytes > CALL_BYTES_MAX) then
    return nil, "busy"
  end
  local waiter = done == nil and self:waiter()
  if not waiter then
    self:request(verb, args, data, { done = done or nil })
    return true
  end
  local answer
  self:request(verb, args, data, { resume = function(ok, code)
    answer = { ok = ok, code = code }
    waiter.wake()
  end })
  while not answer do waiter.wait() end -- the answer comes, or the connection ends
  return answer.ok, answer.code
end

-- Sends bytes to another backend. In a coroutine it waits: true, or nil and why not. Elsewhere, and
-- with done: true if they are on their way, else nil and why; then done(true) or done(nil, code) is
-- called. With done = false nobody waits.
function Client:send(to, data, done)
  local good = type(to) == "string" and to ~= "" and #to <= 64
  assert(good, "payrelay: to must be a backend's id")
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

-- From now on listener(data, channel) is called for what is published in the channel, on this
-- connection and on later ones. A second subscription of a channel takes the place of the first.
-- options.once: only for the next. options.done: called with true when the channel is heard for the
-- first time, or with nil and a code if the relay refuses.
function Client:subscribe(channel, listener, options)
  assert(type(listener) == "function", "payrelay: a listener must be a function")
  assert(options == nil or type(options) == "table",
    "payrelay: subscribe(channel, listener, { once = true, done = function(ok, code) … end })")
  options = options or {}
  self.channels[channel_name(channel)] = {
    run = listener, once = options.once and 1 or nil, done = options.done,
  }
  if self.session and self.session.open then self:listen(channel) end
end

function Client:listen(channel)
  local listener = self.channels[channel]
  if not listener then return end
  self:request("SUB", { ch = channel, once = listener.once }, nil, { done = listener.done })
  listener.done = nil -- later connections tell the log only
end

function Client:unsubscribe(channel)
  if self.channels[channel] and self.session and self.session.open then
    self.session:send_frame("UNSUB", { ch = channel })
  end
  self.channels[channel] = nil
end

-- Events of a channel were lost ("busy"), are lost ("offline"), or are heard again ("ok").
function Client:gap(channel, code)
  self:callback("on_gap", self.options.on_gap, channel, code)
end

--------------------------------------------------------------------------------------- adapters --

-- An adapter has these functions:
--   load()                 gets its library
--   clock()                the time in seconds
--   open(session)          begins to connect
--   write(session, bytes)  writes all, or gives nil and why
--   close(session)         lets go of the socket, and wakes the thread that waits for it
--   spawn(run)             runs a handler; with coroutines = true, beside the caller
-- and may have
--   protected(run, …)      a pcall that its coroutines can yield through, if Lua's own is not one
--   waiter(client)         how the calling coroutine waits: { wait =, wake = }, or nil
--   wake(session)          if not every thread may write: makes one that may call session:flush()
--   log(level, text)       where the log goes
local function adapter(name, definition)
  definition.methods = setmetatable(definition.methods or {}, { __index = Client })
  local function new(options)
    if definition.load then definition.load() end
    return new_client(definition, options)
  end
  payrelay[name] = { new = new, connect = new }
end

-- Under another name: Defold's build looks for every module that a file requires by that name.
local need = require

-- How long to sleep before the next tick(): a second at most, since close() may have been called;
-- and never less than a clock shows. (nginx's stands still until its events have run: a sleep of
-- less than 1 ms would never end.)
local function sleep_span(wait) return math.max(math.min(wait, 1), 0.01) end

local function run_at_once(run) return run() end

---------------------------------------------------------------------------- adapter: LuaSocket --

local socket -- LuaSocket, also for copas

local luasocket = { tls = true, spawn = run_at_once, methods = {} }

function luasocket.load() socket = socket or need("socket") end

function luasocket.clock() return socket.gettime() end

-- Whether one of the certificate's names is the relay's. LuaSec does not look at them.
local function names_match(certificate, name)
  local found = certificate and (certificate:extensions() or {})["2.5.29.17"] or {}
  for _, address in ipairs(found.iPAddress or {}) do
    if address == name then return true end
  end
  name = name:lower()
  for _, given in ipairs(found.dNSName or {}) do
    local pattern = given:lower()
    -- A wildcard is for one label, and not for all of a top-level domain.
    local wild = pattern:match("^%*(%.[^.]+%..+)$")
    if pattern == name or (wild and name:match("^[^.]+(%..+)$") == wild) then return true end
  end
  return false
end

-- LuaSec's words for a timeout.
local function timed_out(why)
  return why == "timeout" or why == "wantread" or why == "wantwrite"
end

-- LuaSec over a connected socket, or nil and why. Nothing is sent to a relay that is not proven.
local function secure(client, sock, o)
  local ssl, limit = need("ssl"), client:timer(o.connect_timeout)
  local params = { mode = "client", protocol = "any", verify = "peer" }
  params.options = { "all", "no_sslv2", "no_sslv3", "no_tlsv1", "no_tlsv1_1" }
  for key, value in pairs(o.tls) do
    if key ~= "name" then params[key] = value end
  end
  if not params.cafile and not params.capath then params.capath = "/etc/ssl/certs" end
  local wrapped, why = ssl.wrap(sock, params)
  if not wrapped then return nil, why end
  local name = o.tls.name or o.host
  local address = name:find("^[%d.]+$") or name:find(":", 1, true)
  if not address then wrapped:sni(name) end -- an address is no server name
  local done
  repeat
    wrapped:settimeout(math.max(client:left(limit), 0))
    done, why = wrapped:dohandshake()
  until done or not timed_out(why) or client:left(limit) <= 0
  local checks_name = done and params.verify ~= "none"
  if checks_name and not names_match(wrapped:getpeercertificate(), name) then
    done, why = false, "its certificate is not for " .. name
  end
  if done then return wrapped end
  wrapped:close()
  return nil, "TLS: " .. tostring(why)
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

-- Writes all of it, or gives up after write_timeout: a relay that takes no byte must not hold the
-- program for ever.
function luasocket.write(session, bytes)
  if session.failed then return nil, session.failed end
  local client, from = session.client, 1
  local limit = client:timer(session.options.write_timeout)
  repeat
    session.sock:settimeout(math.max(client:left(limit), 0))
    local last, why, partial = session.sock:send(bytes, from)
    from = (last or partial or from - 1) + 1
    if not last and (not timed_out(why) or client:left(limit) <= 0) then
      return nil, timed_out(why) and "timeout" or why
    end
  until from > #bytes
  return true
end

-- What has arrived, waiting at most so long for its first byte. Always by count: "*l" would swallow
-- every CR. An error behind what arrived is kept, and with TLS its end too: LuaSec's send and
-- receive may never return after it.
local function luasocket_read(session, wait)
  if session.failed then return nil, session.failed end
  local sock = session.sock
  sock:settimeout(wait)
  local first, why = sock:receive(1)
  if not first then return nil, timed_out(why) and "timeout" or why end
  sock:settimeout(0)
  local rest, failed, partial = sock:receive(65536)
  if not rest and not timed_out(failed) and (session.options.tls or failed ~= "closed") then
    session.failed = failed
  end
  return first .. (rest or partial or "")
end

function luasocket.close(session)
  if session.sock then session.sock:close() end
end

-- One turn: connects, or waits, or handles what has come. At most timeout seconds (0 if not given),
-- plus connecting and your handlers. false once the client is closed.
function luasocket.methods:step(timeout)
  assert(not self.busy, "payrelay: run() or step() from within a handler")
  self.busy = true
  local wait = self:tick()
  local session = self.session
  wait = wait and math.min(wait, timeout or 0)
  if session and not session.over then
    local bytes, why = luasocket_read(session, wait)
    if bytes then
      session:feed(bytes)
    elseif why ~= "timeout" then
      session:broke(why)
    end
  elseif wait and wait > 0 then
    (self.options.sleep or socket.sleep)(wait)
  end
  self.busy = false
  return wait ~= nil
end

-- Serves until close(), whatever happens.
function luasocket.methods:run()
  repeat until not self:step(60)
end

-- As above; outside of handlers it waits for the end itself.
function luasocket.methods:close()
  Client.close(self)
  if self.busy then return false end
  repeat until not self:step(self.options.close_timeout)
  return true
end

adapter("luasocket", luasocket)
payrelay.new, payrelay.connect = payrelay.luasocket.new, payrelay.luasocket.connect

-------------------------------------------------------------------------------- adapter: Copas --

local copas
local copas_adapter = { coroutines = true, clock = luasocket.clock, methods = {} }

function copas_adapter.load()
  copas = copas or need("copas")
  luasocket.load()
  -- Plain Lua 5.1 cannot yield through its own xpcall; Copas brings one that it can yield through.
  if plain_lua_51 then copas_adapter.protected = traced(need("coxpcall").xpcall) end
end

-- What Copas waits for and calls in the socket's place: close() ends it for good, however often
-- Copas tries again.
local function copas_proxy(sock)
  local proxy = { gone = false }
  for _, name in ipairs{ "connect", "send", "receive" } do
    proxy[name] = function(_, ...)
      if proxy.gone then return nil, "closed" end
      return sock[name](sock, ...)
    end
  end
  for _, name in ipairs{ "getfd", "dirty", "settimeout" } do
    proxy[name] = function(_, ...) return sock[name](sock, ...) end
  end
  -- Copas 1 closes what a thread last waited for; the thread does that itself.
  function proxy.close() return true end
  return setmetatable(proxy, { __tostring = function() return "tcp{client}: payrelay" end })
end

function copas_adapter.spawn(run) copas.addthread(run) end

local function copas_read(session)
  local o, sock = session.options, session.sock
  local done, why = copas.connect(session.proxy, o.host, o.port)
  if not done then return session:broke(why) end
  sock:setoption("tcp-nodelay", true)
  session:opened()
  while not session.over do
    local bytes, partial
    bytes, why, partial = copas.receivePartial(session.proxy, 65536)
    bytes = bytes or partial
    if bytes and bytes ~= "" then
      session:feed(bytes)
    elseif why ~= "timeout" then
      session:broke(why)
    end
  end
end

function copas_adapter.open(session)
  local sock, why = socket.tcp()
  if not sock then return session:broke(why) end
  session.sock, session.proxy = sock, copas_proxy(sock)
  copas.addthread(function()
    session:attempt(copas_read, session)
    sock:close()
  end)
end

function copas_adapter.write(session, bytes) return copas.send(session.proxy, bytes) end

-- A thread that writes gives way to the others now and then, which the main program cannot: there
-- (in tick(), or in a call of the program's own) a thread of Copas writes for it.
function copas_adapter.wake(session)
  if session.writing then return true end
  local thread, main = coroutine.running()
  if thread and not main then return session:flush() end
  copas.addthread(function()
    if not session.writing then session:flush() end
  end)
  if session.write_error then return nil, session.write_error end
  return true
end

-- The end of the stream wakes the threads that wait for it, and they close: Copas 1 never forgets a
-- socket closed under it.
function copas_adapter.close(session)
  if not session.proxy then return end
  session.proxy.gone = true
  session.sock:shutdown("both")
end

-- Every Copas can wait for a socket, and not every one for anything else: so this is a datagram
-- that the program sends to itself.
function copas_adapter.waiter()
  local thread, main = coroutine.running()
  if not thread or main then return nil end
  local udp = assert(socket.udp())
  assert(udp:setsockname("127.0.0.1", 0))
  assert(udp:setpeername(udp:getsockname()))
  udp:settimeout(0)
  return {
    wait = function()
      copas.receive(udp, 1)
      udp:close()
    end,
    wake = function() udp:send("x") end,
  }
end

-- Within a thread of Copas (not Copas 1, which has no sleep): serves until close(). Elsewhere it
-- runs Copas meanwhile.
function copas_adapter.methods:run()
  local thread, main = coroutine.running()
  local sleep = copas.pause or copas.sleep
  if not thread or main then sleep = copas.step end
  assert(sleep, "payrelay: this Copas has no sleep; call run() outside of its threads")
  repeat
    local wait = self:tick()
    if wait then sleep(sleep_span(wait)) end
  until not wait
end

adapter("copas", copas_adapter)

------------------------------------------------------------------------------ adapter: cqueues --

local cqueues, cqueues_socket, cqueues_condition, strerror
local cqueues_adapter = { coroutines = true, methods = {} }

function cqueues_adapter.load()
  cqueues, cqueues_socket = need("cqueues"), need("cqueues.socket")
  cqueues_condition, strerror = need("cqueues.condition"), need("cqueues.errno").strerror
  if not plain_lua_51 then return end
  local resume = need("cqueues.auxlib").resume -- as for copas
  cqueues_adapter.protected = function(run, ...)
    local count, results
    local function keep(...) count, results = select("#", ...), { ... } end
    local thread = coroutine.create(function(...) keep(run(...)) end)
    local ok, why = resume(thread, ...)
    if not ok then return false, why, debug.traceback(thread, printable(why)) end
    -- resume() itself would make a nil of no value, and a NACK of an ACK.
    return true, unpack(results, 1, count)
  end
end

function cqueues_adapter.clock() return cqueues.monotime() end

-- Outside of a controller nothing can wait, nor has to.
function cqueues_adapter.spawn(run)
  local controller = cqueues.running()
  if not controller then return run() end
  controller:wrap(run)
end

local function cqueues_error(why)
  return type(why) == "number" and strerror(why) or why or "closed"
end

local function cqueues_read(session)
  local o, sock = session.options, session.sock
  sock:onerror(function(_, _, code) return code end) -- give errors back, raise none
  sock:setmode("b", "bn") -- bytes as they are; its lines end at 4,096, so none are asked for
  local done, why = sock:connect(o.connect_timeout)
  if not done then return session:broke(cqueues_error(why)) end
  session:opened()
  while not session.over do
    local bytes
    bytes, why = sock:xread(-65536) -- as many as there are
    if bytes then
      session:feed(bytes)
    else
      session:broke(cqueues_error(why))
    end
  end
end

function cqueues_adapter.open(session)
  local o = session.options
  local sock, why = cqueues_socket.connect{ host = o.host, port = tostring(o.port), nodelay = true }
  if not sock then return session:broke(cqueues_error(why)) end
  session.sock = sock
  cqueues.running():wrap(function()
    session:attempt(cqueues_read, session)
    sock:close()
  end)
end

function cqueues_adapter.write(session, bytes)
  local done, why = session.sock:xwrite(bytes, session.options.write_timeout)
  return done and true, cqueues_error(why)
end

function cqueues_adapter.close(session)
  if session.sock then session.sock:shutdown("rw") end
end

function cqueues_adapter.waiter()
  if not cqueues.running() then return nil end
  local condition = cqueues_condition.new()
  return {
    wait = function() condition:wait() end,
    wake = function() condition:signal() end,
  }
end

local function cqueues_serve(client)
  repeat
    local wait = client:tick()
    if wait then cqueues.sleep(sleep_span(wait)) end
  until not wait
end

-- In a coroutine of a controller: returns at once; serves until close().
function cqueues_adapter.methods:start()
  local controller = assert(cqueues.running(), "payrelay: start() outside of a cqueues controller")
  controller:wrap(function() cqueues_serve(self) end)
end

-- Serves until close(). Outside of a controller it makes one.
function cqueues_adapter.methods:run()
  if cqueues.running() then return cqueues_serve(self) end
  local controller = cqueues.new()
  controller:wrap(function() cqueues_serve(self) end)
  for why in controller:errors() do
    self:log("error", "a coroutine failed: " .. tostring(why))
  end
end

adapter("cqueues", cqueues_adapter)

---------------------------------------------------------------------------- adapter: OpenResty --

-- A cosocket belongs to the timer that made it, and only one light thread may read it and one write
-- it. So each session has a reader and a writer in its timer, and every request of this worker
-- leaves what it sends to the writer.
local ngx = rawget(_G, "ngx")
local openresty = { coroutines = true, methods = {} }

-- What a timer's threads leave behind is freed with the timer. So after timer_messages the client
-- goes on in another timer as soon as no handler is at work, and after so many times as many
-- messages whatever is at work: the relay waits for the answers that the old connection still owes.
local FORCED_TIMES = 20

function openresty.load() assert(ngx and ngx.timer, "payrelay: this is not OpenResty") end

function openresty.clock() return ngx.now() end

function openresty.log(level, text)
  local levels = { debug = ngx.DEBUG, info = ngx.NOTICE, warn = ngx.WARN, error = ngx.ERR }
  ngx.log(levels[level], "payrelay: ", text)
end

-- Some phases of a request have no threads: what runs there must not wait.
function openresty.spawn(run)
  if not pcall(ngx.thread.spawn, run) then run() end
end

local function openresty_read(session)
  local o, sock = session.options, session.sock
  sock:settimeouts(o.connect_timeout * 1000, o.write_timeout * 1000, o.connect_timeout * 1000)
  local done, why = sock:connect(o.host, o.port)
  if not done then return session:broke(why) end
  session:opened()
  while not session.over do
    -- The default is 60 s. Session:check() notices silence first, and nginx logs none as an error
    -- of its own.
    local wait = session.open and session.heartbeat * o.silence + 5 or o.connect_timeout
    sock:settimeouts(o.connect_timeout * 1000, o.write_timeout * 1000, wait * 1000)
    local bytes
    bytes, why = sock:receiveany(65536)
    if bytes then
      session:feed(bytes)
    else
      session:broke(why)
    end
  end
end

local function openresty_write(session)
  -- The reader is spawned here, for only its parent may kill it.
  local reader = ngx.thread.spawn(session.attempt, session, openresty_read, session)
  repeat
    session.semaphore:wait(60)
    if session.connected then session:flush() end
  until session.dropped
  if not session.feeding then ngx.thread.kill(reader) end -- else it sees that it is over
  session.sock:close()
end

function openresty.open(session)
  session.sock, session.semaphore = ngx.socket.tcp(), need("ngx.semaphore").new()
  ngx.thread.spawn(session.attempt, session, openresty_write, session)
end

function openresty.write(session, bytes) return session.sock:send(bytes) end

function openresty.wake(session)
  session.semaphore:post(1)
  return true
end

function openresty.close(session) session.semaphore:post(1) end

local OPENRESTY_CAN_WAIT = {
  rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
  preread = true, ssl_cert = true,
}

function openresty.waiter()
  if not OPENRESTY_CAN_WAIT[ngx.get_phase()] then return nil end
  local semaphore = need("ngx.semaphore").new()
  return {
    wait = function() semaphore:wait(60) end,
    wake = function() semaphore:post(1) end,
  }
end

-- Whether the client should go on in another timer.
local function openresty_is_due(session)
  if not session or not session.open or session.client.closing then return false end
  local limit = session.options.timer_messages
  if session.handled < limit then return false end
  return session.in_flight == 0 or session.handled >= FORCED_TIMES * limit
end

-- Serves in one timer. Returns when the client is closed, or its connection here is over and
-- another timer has taken the client.
local function openresty_serve(client)
  -- The connection of the timer before goes on there until the relay has handed over.
  if client.session then client:replace() end
  local wait, handed_over = client:tick(), false
  local session = client.session
  while wait do
    local waits_to_hand_over = session and session.handled >= session.options.timer_messages
    ngx.sleep(sleep_span(waits_to_hand_over and 0.05 or wait))
    local exiting = ngx.worker.exiting()
    if exiting then client:close() end
    if handed_over and not exiting then
      session:check()
      wait = not session.dropped and 1
    else
      wait = client:tick()
      session = client.session
      handed_over = openresty_is_due(session) and ngx.timer.at(0, client.serve)
    end
  end
end

-- From init_worker_by_lua: serves in worker 0 until close() or the worker's end. Returns at once.
function openresty.methods:start()
  self.serve = function(premature)
    if not premature then openresty_serve(self) end
  end
  if ngx.worker.id() == 0 then assert(ngx.timer.at(0, self.serve)) end
end

openresty.methods.run = openresty.methods.start

adapter("openresty", openresty)

------------------------------------------------------------------------------- adapter: skynet --

local skynet, skynet_socket, skynet_driver
local skynet_adapter = { coroutines = true, methods = {} }

-- skynet 1.0 has its modules under other names.
local function need_either(name, old_name)
  local ok, found = pcall(need, name)
  if ok then return found end
  local old_ok, old = pcall(need, old_name)
  return old_ok and old or error(found, 0)
end

function skynet_adapter.load()
  skynet = need("skynet")
  skynet_socket = need_either("skynet.socket", "socket")
  skynet_driver = need_either("skynet.socketdriver", "socketdriver")
end

function skynet_adapter.clock() return skynet.now() / 100 end

function skynet_adapter.log(level, text)
  if level ~= "debug" then skynet.error("payrelay " .. level .. ": " .. text) end
end

function skynet_adapter.spawn(run) skynet.fork(run) end

local function skynet_read(session)
  local o = session.options
  local fd, why = skynet_socket.open(o.host, o.port)
  if not fd then return session:broke(why) end
  session.fd = fd
  skynet_driver.nodelay(fd)
  session:opened()
  while not session.over do
    -- What has come, and not lines or whole bodies: the session has to see that something comes,
    -- and to bound it.
    local bytes = skynet_socket.read(fd)
    if bytes then
      session:feed(bytes)
    else
      session:broke("closed")
    end
  end
end

function skynet_adapter.open(session)
  skynet.fork(function()
    session:attempt(skynet_read, session)
    local fd = session.fd
    session.fd = nil
    if fd then skynet_socket.close(fd) end -- after what is still to be written
  end)
end

function skynet_adapter.write(session, bytes)
  if not session.fd or skynet_socket.write(session.fd, bytes) == false then return nil, "closed" end
  return true
end

-- A read has no timeout, so it takes the end of the socket to wake the reader: in good order first,
-- for the last ACK may be on its way; by force if the relay takes nothing any more.
function skynet_adapter.close(session)
  local fd = session.fd
  if not fd or session.feeding then return end -- the reader sees for itself that it is over
  skynet.fork(skynet_socket.close, fd)
  skynet.timeout(100, function()
    if session.fd == fd then skynet_socket.shutdown(fd) end
  end)
end

function skynet_adapter.waiter()
  local thread, waiting = coroutine.running(), false
  return {
    wait = function()
      waiting = true
      skynet.wait(thread)
    end,
    wake = function()
      if waiting then skynet.wakeup(thread) end
      waiting = false
    end,
  }
end

-- Returns at once; serves until close().
function skynet_adapter.methods:start()
  local function watch()
    local wait = self:tick()
    if wait then skynet.timeout(math.ceil(sleep_span(wait) * 100), watch) end
  end
  watch()
end

skynet_adapter.methods.run = skynet_adapter.methods.start

adapter("skynet", skynet_adapter)

------------------------------------------------------------------------- adapters: push and luv --

-- For any other socket, and for frame loops (Defold, Cocos): options has open(session),
-- write(session, bytes), which returns true or nil and why, and close(session). Call
-- session:opened(), session:feed(bytes) and session:broke(why) as things happen, and client:tick()
-- once a second or a frame.
local push = { anywhere = true, clock = os.time, spawn = run_at_once }
for _, name in ipairs{ "open", "write", "close" } do
  push[name] = function(session, bytes) return session.options[name](session, bytes) end
end

adapter("push", push)

local uv
local luv = { coroutines = true, methods = {} }

-- libuv writes to a socket that the relay has closed, and SIGPIPE would end the program. While
-- somebody listens for it, the write gives an error instead.
function luv.load()
  if uv then return end
  uv = need("luv")
  local signal = uv.new_signal()
  signal:start("sigpipe", function() end)
  signal:unref() -- the loop may end
end

function luv.clock() return uv.hrtime() / 1e9 end

-- A coroutine: a handler may yield, and be resumed by a callback of its own (not in plain Lua 5.1).
function luv.spawn(run) coroutine.wrap(run)() end

function luv.open(session)
  local o = session.options
  local function on_bytes(broken, bytes)
    if bytes then
      session:feed(bytes)
    else
      session:broke(broken or "closed")
    end
  end
  local function on_connected(refused)
    if refused or session.over then return session:broke(refused) end
    session.sock:nodelay(true)
    session.sock:read_start(on_bytes)
    session:opened()
  end
  local function on_address(failed, found)
    if failed or session.over then return session:broke(failed) end
    session.unsent, session.sock = 0, uv.new_tcp()
    session.sock:connect(found[1].addr, found[1].port, on_connected)
  end
  uv.getaddrinfo(o.host, tostring(o.port), { socktype = "stream" }, on_address)
end

function luv.write(session, bytes)
  local request, why = session.sock:write(bytes, function(failed)
    session.unsent = session.unsent - 1
    if session.unsent == 0 then session.write_timer = nil end
    if failed then session:broke(failed) end
  end)
  session.unsent = session.unsent + (request and 1 or 0)
  return request, why
end

-- After what is still to be written, unless nobody takes it.
function luv.close(session)
  local sock = session.sock
  if not sock or sock:is_closing() then return end
  local function close()
    if not sock:is_closing() then sock:close() end
  end
  local stuck = session.write_timer or not session.connected
  if stuck or not sock:shutdown(close) then close() end
end

function luv.waiter(client)
  local thread, main = coroutine.running()
  if plain_lua_51 or not thread or main then return nil end
  local waiting = false
  return {
    wait = function()
      waiting = true
      coroutine.yield()
    end,
    wake = function()
      if not waiting then return end
      waiting = false
      local ok, why = coroutine.resume(thread)
      if not ok then client:log("error", "a coroutine failed: " .. printable(why)) end
    end,
  }
end

-- Returns at once; serves until close(), while your program runs the loop.
function luv.methods:start()
  local timer = uv.new_timer()
  local function watch()
    local wait = self:tick()
    if wait then
      timer:start(math.ceil(sleep_span(wait) * 1000), 0, watch)
    else
      timer:close()
    end
  end
  watch()
end

luv.methods.run = luv.methods.start

adapter("luv", luv)

return payrelay
