-- payrelay: hears of payments from a payrelay relay. One file for Lua 5.1, LuaJIT and 5.4; copy it into your program.
--
--   local payrelay = require("payrelay")
--   payrelay.connect{ host = "127.0.0.1", port = 7000, id = "game-01", token = "…",
--     on_message = function(msg) book(msg.body) return true end }:run()
--
-- Three parts: the core (bytes to frames and back), the session (one connection's dialogue, still without a socket), and
-- the LuaSocket client (connect, TLS if asked for, wait, read, write, connect again). The protocol is in doc/protocol.md, the options and
-- the rules for handlers in clients/lua/README.md. Never printed or logged here: a body, a token.

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

-- One frame as bytes. args: key = string or whole number; args[1] is the bare version of HELLO. Keys are sorted, so that
-- the same call gives the same bytes.
function core.encode(verb, args, data)
  local keys, line = {}, { verb }
  for key in pairs(args or {}) do if key ~= 1 then keys[#keys + 1] = key end end
  table.sort(keys)
  if args and args[1] then line[2] = ("%d"):format(args[1]) end
  for _, key in ipairs(keys) do
    local value = args[key]
    line[#line + 1] = key .. "=" .. (type(value) == "number" and ("%d"):format(value) or core.escape(value))
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
Parser.__index = Parser

-- A push parser: bytes in, cut anywhere; frames { verb =, args =, data = } out. After a broken frame it gives no more, and
-- parser.failed says why. data_max bounds what one frame may make it hold.
function core.parser(data_max)
  return setmetatable({ buffer = "", at = 1, fresh = {}, size = 0, need = 1, data_max = data_max or 2 ^ 26 }, Parser)
end

function Parser:feed(bytes)
  self.fresh[#self.fresh + 1] = bytes
  self.size = self.size + #bytes
  return function() return self:next() end
end

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

local Session = {}
Session.__index = Session

-- One connection's dialogue. send(bytes) returns true, or nil and why. Feed it what arrives; when session.over is there,
-- close the connection: { why =, retry = s (a wait asked for by the relay), slow = true (an operator is needed) }.
function payrelay.session(options, send)
  return setmetatable({ options = options, send = send, parser = core.parser(), open = false, over = nil }, Session)
end

function Session:log(level, text)
  local log = self.options.on_log
  pcall(log, level, (text:gsub("%c", " "))) -- a log that fails must not cost a payment
end

function Session:finish(why, retry, slow)
  self.over = self.over or { why = why, retry = retry, slow = slow }
end

function Session:say(verb, args)
  if self.over or self.lost then return false end
  local sent, why = self.send(core.encode(verb, args))
  if sent then return true end
  self.lost = "could not write: " .. tostring(why)
  if not self.feeding then self:finish(self.lost) end
  return false
end

function Session:hello()
  local options = self.options
  return self:say("HELLO", { payrelay.PROTOCOL, id = options.id, token = options.token, max = options.max })
end

function Session:feed(bytes)
  self.feeding = true
  for frame in self.parser:feed(bytes) do
    local verb, heard = frame.verb, self[frame.verb] -- the methods in capitals below are the verbs
    if not heard then
      self:log("debug", "skipped a frame of the unknown verb " .. verb)
    elseif not self.lost or verb == "BYE" or verb == "ERR" then -- these say how long to wait, even if no answer can be sent
      heard(self, frame.args, frame.data or "")
    end
    if self.over then break end
  end
  self.feeding = false
  local failed = self.parser.failed
  if self.lost or failed then self:finish(self.lost or "the relay sent a broken frame: " .. failed) end
end

function Session:OK(args)
  if self.open then return end
  self.open, self.heartbeat = true, math.max(tonumber(args.heartbeat) or 20, 0.001)
  self.parser.data_max = (tonumber(args.max_body) or 0) + 1024 * 1024
  self:log("info", ("connected as %s to %s, session %s"):format(args.id or "?", args.node or "?", args.session or "?"))
  if self.options.on_connect then
    local ok, why = pcall(self.options.on_connect, args)
    if not ok then self:log("error", "on_connect failed: " .. tostring(why)) end
  end
end

function Session:MSG(args, data)
  local h = tonumber((args.h or "0"):match("^%d+$"))
  if not args.id or not h then return self:finish("the relay sent a broken MSG") end
  h = math.min(h, #data)
  local msg = {
    id = args.id, try = tonumber(args.try) or 1, route = args.route, verified = args.verified, event = args.event,
    at = tonumber(args.at), head = data:sub(1, h), body = data:sub(h + 1),
  }
  local verb, keys = core.verdict(pcall(self.options.on_message, msg))
  if verb == "NACK" then self:log("warn", ("refused %s: %s"):format(msg.id, keys.reason or "no reason given")) end
  keys.id = msg.id
  if not self:say(verb, keys) then
    self:log("warn", ("the connection was lost before the %s of %s; expect the event again"):format(verb, msg.id))
  end
end

function Session:PING() self:say("PONG") end

function Session.PONG() end

function Session:ERR(args)
  local text = ("the relay said %s: %s"):format(args.code or "?", args.msg or "")
  if args.fatal ~= "1" then return self:log("warn", text) end
  -- A full relay empties by itself; every other refusal stays the same until somebody changes something.
  self:finish(text, nil, args.code ~= "limit")
end

function Session:BYE(args)
  self:finish("the relay said BYE: " .. (args.reason or "?"), math.max(tonumber(args.retry) or 1, 0))
end

----------------------------------------------------------------------------------------------------- LuaSocket client --

local Client = {}
Client.__index = Client

local DEFAULTS = {
  max = 16, connect_timeout = 5, write_timeout = 10, close_timeout = 5,
  -- for tests: the waits of the protocol document, the clock, and what waits
  backoff_min = 0.5, backoff_max = 30, slow_retry = 30, silence = 2.5,
}

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

-- A backend. Nothing is opened yet: run() or step() does that.
function payrelay.connect(options)
  local o = setmetatable({}, { __index = DEFAULTS })
  for key, value in pairs(options) do o[key] = value end
  assert(type(o.host) == "string" and tonumber(o.port), "payrelay: host and port are needed")
  assert(type(o.id) == "string" and #o.id <= 64 and o.id:find("^[A-Za-z0-9._%-]+$"), "payrelay: id: 1 to 64 of A-Z a-z 0-9 . _ -")
  assert(o.token == nil or (type(o.token) == "string" and #o.token <= 256), "payrelay: token must be a string of 64 digits")
  assert(type(o.max) == "number" and o.max % 1 == 0 and o.max >= 0 and o.max <= 1024, "payrelay: max must be 0 to 1024")
  assert(type(o.on_message) == "function", "payrelay: on_message must be a function")
  assert(o.tls == nil or type(o.tls) == "table", "payrelay: tls must be a table, such as { cafile = \"ca.pem\" }")
  local socket = require("socket")
  o.on_log, o.clock, o.sleep = o.on_log or log_to_stderr, o.clock or socket.gettime, o.sleep or socket.sleep
  o.random = o.random or generator(o.id, o.clock())
  return setmetatable({ options = o, socket = socket, failures = 0, pause = { at = o.clock(), span = 0 } }, Client)
end

function Client:timer(span) return { at = self.options.clock(), span = span } end

-- Seconds until the timer is over, 0 or less if it is. The clock is the wall's: if it is set back, the span starts anew.
function Client:left(timer)
  local now = self.options.clock()
  if now < timer.at then timer.at = now end
  return timer.span - (now - timer.at)
end

-- LuaSec says "wantread" and "wantwrite" where LuaSocket says "timeout".
local function is_timeout(why) return why == "timeout" or why == "wantread" or why == "wantwrite" end

-- Whether a certificate is for this name or address. LuaSec looks at who signed it only.
local function is_for(certificate, name)
  local names = (certificate:extensions() or {})["2.5.29.17"] or {}
  for _, kind in ipairs{ "dNSName", "iPAddress" } do
    for _, given in ipairs(names[kind] or {}) do
      given = given:lower()
      local wild = kind == "dNSName" and given:match("^%*(%..+%..+)$")
      if given == name:lower() or (wild and name:lower():match("^[^.]+(%..+)$") == wild) then return true end
    end
  end
  return false
end

-- TLS over a connected socket. The relay must show a certificate that leads to one of tls.cafile (or capath) and has the
-- name that was connected to, or tls.name.
local function seal(sock, o, deadline)
  local ssl = require("ssl")
  local params = { mode = "client", protocol = "any", verify = "peer",
    options = { "all", "no_sslv2", "no_sslv3", "no_tlsv1", "no_tlsv1_1" } }
  for key, value in pairs(o.tls) do if key ~= "name" then params[key] = value end end
  local sealed, why = ssl.wrap(sock, params)
  if not sealed then return nil, why end
  local name = o.tls.name or o.host
  if not name:find("^[%d.]+$") and not name:find(":", 1, true) then sealed:sni(name) end
  local done
  repeat
    sealed:settimeout(math.max(deadline(), 0))
    done, why = sealed:dohandshake()
  until done or not is_timeout(why) or deadline() <= 0
  if done and params.verify ~= "none" and not is_for(sealed:getpeercertificate(), name) then
    done, why = nil, "its certificate is not for " .. name
  end
  if not done then sealed:close() return nil, "TLS: " .. tostring(why) end
  return sealed
end

-- Writes all of it, or gives up after write_timeout: a relay that takes no byte must not hold the program for ever.
function Client:write(bytes)
  local limit, from = self:timer(self.options.write_timeout), 1
  repeat
    self.sock:settimeout(math.max(self:left(limit), 0))
    local last, why, partial = self.sock:send(bytes, from)
    from = (last or partial or from - 1) + 1
    if not last and (not is_timeout(why) or self:left(limit) <= 0) then return nil, why end
  until from > #bytes
  return true
end

-- What has arrived, waiting at most so long for its first byte. Always by count: "*l" would swallow every CR.
function Client:read(wait)
  self.sock:settimeout(wait)
  local first, why = self.sock:receive(1)
  if not first then return nil, why end
  self.sock:settimeout(0)
  local rest, _, partial = self.sock:receive(65536)
  return first .. (rest or partial or "")
end

function Client:open()
  local o = self.options
  local sock, why = self.socket.tcp()
  if sock then
    sock:settimeout(o.connect_timeout)
    local connected
    connected, why = sock:connect(o.host, o.port)
    if not connected then
      sock:close()
      sock = nil
    else
      sock:setoption("tcp-nodelay", true)
      local limit = self:timer(o.connect_timeout)
      if o.tls then sock, why = seal(sock, o, function() return self:left(limit) end) end
    end
  end
  self.session, self.sock = payrelay.session(o, function(bytes) return self:write(bytes) end), sock
  if not sock then return self.session:finish(("could not connect to %s:%s: %s"):format(o.host, o.port, why)) end
  self.quiet = self:timer(o.connect_timeout)
  self.session:hello()
end

-- Closes what is over, and decides how long to wait before the next try.
function Client:drop()
  local o, over = self.options, self.session.over
  if self.sock then self.sock:close() end
  if self.session.open then self.failures = 0 end
  self.failures = self.failures + 1
  local jitter, bound = o.random(), math.min(o.backoff_max, o.backoff_min * 2 ^ math.min(self.failures, 16))
  local span = o.backoff_min + jitter * (bound - o.backoff_min)
  if over.retry or over.slow then -- at least as long as was asked for
    span = math.max(over.retry or 0, over.slow and o.slow_retry or 0, o.backoff_min) * (1 + jitter / 2)
  end
  local text = self.closing and "closed" or ("%s; next try in %.1f s"):format(over.why, span)
  self.session:log(self.closing and "info" or over.slow and "error" or "warn", text)
  self.session, self.sock, self.pause = nil, nil, self:timer(span)
end

function Client:serve(timeout)
  local session = self.session
  local bytes, why = self:read(math.max(0, math.min(timeout, self:left(self.quiet))))
  if bytes then
    self.busy = true
    session:feed(bytes)
    self.busy = false
    -- Only now: the time in handlers is not the relay's silence.
    self.quiet = self:timer(session.open and session.heartbeat * self.options.silence or self.options.connect_timeout)
  elseif not is_timeout(why) then
    session:finish("the connection broke: " .. tostring(why))
  elseif self:left(self.quiet) <= 0 then
    session:finish(("nothing heard from the relay for %g s"):format(self.quiet.span))
  end
end

-- One turn: connects, or waits, or handles what has come. At most timeout seconds (0 if not given), plus connecting and
-- your handlers. false once the client is closed.
function Client:step(timeout)
  assert(not self.busy, "payrelay: run() or step() from within a handler")
  timeout = timeout or 0
  if not self.session then
    if self.closing then return false end
    local wait = self:left(self.pause)
    if wait > 0 then self.options.sleep(math.min(wait, timeout)) end
    if wait > timeout then return true end
    self:open()
  else
    if self.closing then timeout = math.min(timeout, self:left(self.closing)) end
    if timeout < 0 then self.session:finish("closed") end
    if not self.session.over then self:serve(timeout) end
  end
  if self.session.over then self:drop() end
  return true
end

-- Serves until close(), whatever happens.
function Client:run()
  while self:step(60) do end
end

-- From within a handler that takes long: tells the relay so. true if it could be sent.
function Client:touch(msg)
  return self.session ~= nil and self.session:say("TOUCH", { id = msg.id })
end

-- Asks for no more, answers what is in flight, closes. From within a handler or callback it only asks: run() returns soon.
function Client:close()
  if not self.closing then
    self.closing = self:timer(self.options.close_timeout)
    local session = self.session
    if session and session.open then session:say("BYE") elseif session then session:finish("closed") end
  end
  while not self.busy and self:step(self.options.close_timeout) do end
end

return payrelay
