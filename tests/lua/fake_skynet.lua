-- A fake of the part of skynet that the client and its examples use, over real sockets, for skynet itself cannot be
-- installed from Debian. It behaves as skynet's own does: one thing runs at a time and yields only in calls that wait; read
-- without a count gives what has come, or waits for it, and has no timeout; write only puts bytes into a buffer; close waits
-- until they are written, shutdown does not. What a fork raises is kept in skynet.errors.

local luasocket = require("socket")

local skynet = { socket = {}, errors = {}, said = {}, nodelay = {} }
local sockets, ready, timers, waiting, last_id = {}, {}, {}, {}, 0

local function resume(thread, ...)
  local ok, why = coroutine.resume(thread, ...)
  if not ok then skynet.errors[#skynet.errors + 1] = debug.traceback(thread, tostring(why)) end
end

local function later(run, ...) ready[#ready + 1] = { run, ... } end

function skynet.now() return math.floor(luasocket.gettime() * 100) end

function skynet.error(...) skynet.said[#skynet.said + 1] = table.concat({ ... }, " ") end

skynet.environment = {}

function skynet.getenv(key) return skynet.environment[key] end

function skynet.start(run) later(coroutine.create(run)) end

function skynet.fork(run, ...) later(coroutine.create(run), ...) end

function skynet.timeout(hundredths, run)
  assert(hundredths % 1 == 0, "skynet counts in whole hundredths of a second")
  timers[#timers + 1] = { at = luasocket.gettime() + hundredths / 100, thread = coroutine.create(run) }
end

function skynet.sleep(hundredths)
  timers[#timers + 1] = { at = luasocket.gettime() + hundredths / 100, thread = coroutine.running() }
  coroutine.yield()
end

function skynet.wait(token)
  waiting[token] = coroutine.running()
  coroutine.yield()
end

function skynet.wakeup(token)
  if waiting[token] then later(waiting[token]) end
  waiting[token] = nil
end

local function wake(s)
  local thread = s.reader
  s.reader = nil
  if thread then later(thread) end
end

local function close_now(s)
  s.connected = false
  if s.tcp then s.tcp:close() s.tcp = nil end
  wake(s)
  if s.closer then later(s.closer) s.closer = nil end
end

local function suspend(s)
  assert(not s.reader, "two read one socket")
  s.reader = coroutine.running()
  coroutine.yield()
end

function skynet.socket.open(host, port)
  assert(type(host) == "string" and tonumber(port), "an address")
  local tcp = luasocket.tcp()
  tcp:settimeout(5)
  local done, why = tcp:connect(host, port) -- on loopback it does not wait
  if not done then tcp:close() return nil, why end
  tcp:settimeout(0)
  last_id = last_id + 1
  sockets[last_id] = { tcp = tcp, connected = true, buffer = "", unsent = "" }
  return last_id
end

function skynet.socket.read(id, count)
  assert(count == nil, "the client reads what has come")
  local s = assert(sockets[id], "no such socket")
  if s.buffer == "" and s.connected then suspend(s) end
  local bytes = s.buffer
  s.buffer = ""
  if bytes == "" then return false, bytes end
  return bytes
end

skynet.socketdriver = {}

function skynet.socketdriver.nodelay(id)
  assert(sockets[id], "no such socket").tcp:setoption("tcp-nodelay", true)
  skynet.nodelay[#skynet.nodelay + 1] = id
end

local function send(s)
  if s.unsent == "" or not s.tcp then return end
  local last, why, partial = s.tcp:send(s.unsent)
  s.unsent = s.unsent:sub((last or partial) + 1)
  if not last and why ~= "timeout" then return close_now(s) end
  if s.unsent == "" and s.closing then close_now(s) end
end

function skynet.socket.write(id, bytes)
  local s = sockets[id]
  if not s or not s.connected or s.closing then return false end
  s.unsent = s.unsent .. bytes
  send(s)
  return true
end

function skynet.socket.close(id)
  local s = sockets[id]
  if not s then return end
  if s.connected then
    s.closing = true
    if s.unsent == "" then close_now(s) else
      s.closer = coroutine.running()
      coroutine.yield()
    end
  end
  sockets[id] = nil
end

function skynet.socket.shutdown(id)
  if sockets[id] then close_now(sockets[id]) end
end

-------------------------------------------------------------------------------------------------------------- services --

-- Services of one process: each has an address and answers calls. (They share one Lua state here, which skynet's do not.)

local dispatchers, owners, replies, last_address = {}, setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" }), 0

skynet.luaservice = "./?.lua"

local function owned(address, run)
  local thread = coroutine.create(run)
  owners[thread] = address
  return thread
end

-- Loads the service and waits until its start() is over.
function skynet.newservice(name, ...)
  last_address = last_address + 1
  local address, args, token = last_address, { ... }, {}
  local started, failed = false, nil
  later(owned(address, function()
    local ok, why = pcall(function()
      local run
      local start = skynet.start
      skynet.start = function(given) run = given end
      assert(loadfile((skynet.luaservice:gsub("?", name))))(args[1], args[2])
      skynet.start = start
      run()
    end)
    started, failed = true, not ok and why
    skynet.wakeup(token)
  end))
  while not started do skynet.wait(token) end
  if failed then error(failed, 0) end
  return address
end

function skynet.dispatch(_, run) dispatchers[owners[coroutine.running()]] = run end

function skynet.pack(...) return { count = select("#", ...), ... } end

function skynet.ret(packed) replies[coroutine.running()].packed = packed end

function skynet.call(address, _, ...)
  local args, reply, token = { ... }, {}, {}
  local thread
  thread = owned(address, function()
    local ok, why = pcall(dispatchers[address], 0, 0, args[1], args[2], args[3], args[4])
    if not ok then skynet.said[#skynet.said + 1] = tostring(why) end
    reply.over = true
    skynet.wakeup(token)
  end)
  replies[thread] = reply
  later(thread)
  while not reply.over do skynet.wait(token) end
  if not reply.packed then error("call failed", 0) end -- skynet says no more to the caller either
  return (rawget(_G, "unpack") or rawget(table, "unpack"))(reply.packed, 1, reply.packed.count)
end

-- skynet.queue: one at a time, in the order of their coming.
package.loaded["skynet.queue"] = function()
  local line, busy = {}, false
  local function leave(ok, ...)
    busy = false
    local first = table.remove(line, 1)
    if first then skynet.wakeup(first) end
    if not ok then error((...), 0) end
    return ...
  end
  return function(run, ...)
    local token
    while busy do
      token = {}
      line[#line + 1] = token
      skynet.wait(token)
    end
    busy = true
    return leave(pcall(run, ...))
  end
end

skynet.cleared = 0
package.loaded["skynet.codecache"] = { clear = function() skynet.cleared = skynet.cleared + 1 end }

------------------------------------------------------------------------------------------------------------- the world --

-- For tests: how many sockets are not closed.
function skynet.open_sockets()
  local count = 0
  for _ in pairs(sockets) do count = count + 1 end
  return count
end

-- One turn of the world: waits at most so many seconds for something to happen.
function skynet.step(wait)
  local now = luasocket.gettime()
  for at = #timers, 1, -1 do
    local timer = timers[at]
    if timer.at <= now then table.remove(timers, at) later(timer.thread) else wait = math.min(wait, timer.at - now) end
  end
  if ready[1] then wait = 0 end
  local reading, writing, of = {}, {}, {}
  for _, s in pairs(sockets) do
    if s.tcp then
      reading[#reading + 1], of[s.tcp] = s.tcp, s
      if s.unsent ~= "" then writing[#writing + 1] = s.tcp end
    end
  end
  local readable, writable = luasocket.select(reading, writing, wait)
  for _, tcp in ipairs(writable) do send(of[tcp]) end
  for _, tcp in ipairs(readable) do
    local s = of[tcp]
    local bytes, why, partial = tcp:receive(65536)
    s.buffer = s.buffer .. (bytes or partial)
    wake(s)
    if why == "closed" then close_now(s) end
  end
  local turn = ready
  ready = {}
  for _, each in ipairs(turn) do resume(each[1], each[2], each[3]) end
end

-- Runs the world until done() says so, or a fork raised an error.
function skynet.serve(done)
  repeat
    skynet.step(0.05)
    if skynet.errors[1] then error(skynet.errors[1], 0) end
  until done()
end

-- As the modules that a program requires.
package.loaded["skynet"], package.loaded["skynet.socket"] = skynet, skynet.socket
package.loaded["skynet.socketdriver"] = skynet.socketdriver

return skynet
