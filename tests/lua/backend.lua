-- A backend for the end-to-end tests, made with the client that users copy.
--
--   lua tests/lua/backend.lua ADAPTER HOST PORT ID MODE [TOKEN [MAX [CAFILE [NAME [TIMER]]]]]    from the top of the project
--
-- ADAPTER is luasocket, luasec (the same with TLS, to a relay whose certificate leads to CAFILE and is for NAME or else HOST),
-- copas, cqueues, luv, openresty (within nginx: see backend_nginx.conf; goes on in another timer after TIMER messages),
-- skynet (over fake_skynet.lua) or push (a loop of frames). On standard output, each line flushed: READY after every OK of the
-- relay; LOG <level> <text> for what the client logs; STATE <state> <why>; CLOSED at the end; and by MODE
--   ack           ACKs; for each: GOT <id> <bytes of body> <adler32 of body, 8 hex digits> try=<n>
--   quiet         ACKs
--   echo-hex      ACKs; for each: HEX <id> <body in hex, "-" if empty>
--   nack:REASON   NACKs with REASON; for each: NACKED <id>
--   error         the handler raises an error; for each: RAISED <id>
--   slow:SECONDS  works for so long, in ten parts with a TOUCH after each, then as ack
--   late:SECONDS  works for so long without a TOUCH, then as ack
--   stuck         as ack, but on_data does not return before a body "go on" has come
--   pause         as ack; a body "pause" pauses the client, and data "resume" of another backend resumes it
--   bus           subscribes to the channel news: SUBSCRIBED ok; EVENT <channel> <data> and DATA <from> <data> for what comes; a body
--                 "publish <channel> <text>" or "send <id> <text>" does so, and TOLD <what became of it>; a body "ask <id> <text>"
--                 sends it and waits for that, where the library can
-- In every mode data "close" of another backend calls close(true), and says ENDED true once that has come back.
-- Each of these lines is written before the answer goes to the relay. A body that is exactly "stop" is ACKed in every
-- mode, and ends the program by a clean close().

package.path = "clients/lua/?.lua;tests/lua/?.lua;" .. package.path
local payrelay = require("payrelay")

local name, host, port, id, mode, token, max = arg[1], arg[2], arg[3], arg[4], arg[5], arg[6], arg[7]
local cafile, relay_name, timer_messages = arg[8], arg[9], tonumber(arg[10])
if not mode then
  io.stderr:write("usage: lua tests/lua/backend.lua ADAPTER HOST PORT ID MODE [TOKEN [MAX [CAFILE [NAME [TIMER]]]]]\n")
  os.exit(2)
end

local function say(...)
  io.stdout:write(table.concat({ ... }, " "), "\n")
  io.stdout:flush()
end

-- RFC 1950's checksum, without bit operations: they differ between the Luas.
local function adler32(bytes)
  local a, b = 1, 0
  for from = 1, #bytes, 100 do
    for _, byte in ipairs{ bytes:byte(from, from + 99) } do
      a = a + byte
      b = b + a
    end
    a, b = a % 65521, b % 65521
  end
  return ("%04x%04x"):format(b, a)
end

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

-- While close(true) waits, the program's loop goes on.
local waits_for_end = false

-- How the program sleeps, runs the client, and then its loop, if it has one.
local hosts = {
  luasocket = function() return { sleep = require("socket").sleep, run = function(client) client:run() end } end,
  copas = function()
    local copas, socket = require("copas"), require("socket")
    local sleepers = {}
    -- By chance, one time in ten, Copas has who has written give way to the others; here it does so every time.
    local random = math.random
    function math.random(...) return ... == 100 and 100 or random(...) end -- luacheck: ignore
    -- Copas 1 has no sleep: a thread waits for a datagram, which the loop sends when the time has come.
    return {
      sleep = function(seconds)
        local udp = socket.udp()
        udp:setsockname("127.0.0.1", 0)
        udp:setpeername(udp:getsockname())
        udp:settimeout(0)
        sleepers[udp] = socket.gettime() + seconds
        copas.receive(udp, 4)
        udp:close()
      end,
      run = function(client)
        local wait = client:tick()
        while wait or waits_for_end do
          wait = wait or 0.1
          for udp, till in pairs(sleepers) do
            local left = till - socket.gettime()
            if left <= 0 then
              sleepers[udp] = nil
              udp:send("over")
            else
              wait = math.min(wait, left)
            end
          end
          copas.step(math.min(wait, 0.5))
          wait = client:tick()
        end
      end,
    }
  end,
  cqueues = function() return { sleep = require("cqueues").sleep, run = function(client) client:run() end } end,
  luv = function()
    local uv = require("luv")
    return {
      sleep = function(seconds)
        local thread, timer = coroutine.running(), uv.new_timer()
        timer:start(math.ceil(seconds * 1000), 0, function() timer:close() coroutine.resume(thread) end)
        coroutine.yield()
      end,
      run = function(client) client:run() uv.run() end,
    }
  end,
  openresty = function()
    return {
      sleep = ngx.sleep,
      run = function(client)
        client:run()
        return "later"
      end,
      closed = function() -- not by a reload, which ends the old workers
        if ngx.worker.exiting() then return end
        say("CLOSED")
        os.execute("kill " .. (require("ngx.process").get_master_pid() or ngx.worker.pid()))
      end,
    }
  end,
  skynet = function()
    local skynet = require("fake_skynet")
    return {
      sleep = function(seconds) skynet.sleep(math.ceil(seconds * 100)) end,
      run = function(client)
        client:run()
        skynet.serve(function() return client:closed() and not waits_for_end end)
      end,
    }
  end,
}
-- A loop of frames that looks at its socket in each.
function hosts.push()
  local socket = require("socket")
  local tcp, session
  return {
    sleep = socket.sleep,
    options = {
      clock = socket.gettime,
      open = function(new)
        session, tcp = new, socket.tcp()
        tcp:settimeout(5)
        local done, why = tcp:connect(host, port)
        if done then session:opened() else session:broke(why) end
      end,
      write = function(_, bytes)
        tcp:settimeout(5)
        local done, why = tcp:send(bytes)
        return done and true, why
      end,
      close = function() tcp:close() tcp = nil end,
    },
    run = function(client)
      repeat
        client:tick()
        if tcp then
          tcp:settimeout(0)
          local bytes, why, partial = tcp:receive(65536)
          bytes = bytes or partial
          if bytes ~= "" then session:feed(bytes) end
          if why and why ~= "timeout" then session:broke(why) end
        end
        socket.select(tcp and { tcp }, nil, 1 / 60)
      until client:closed()
    end,
  }
end

local tls = name == "luasec" and { cafile = cafile, name = relay_name ~= "" and relay_name or nil } or nil
if tls then name = "luasocket" end
local host_of = assert(hosts[name], "no such adapter")()

local kind, detail = mode:match("^([a-z-]+):?(.*)$")
local client
local handlers = {}

function handlers.ack(msg)
  say("GOT", msg.id, #msg.body, adler32(msg.body), "try=" .. msg.try)
end

function handlers.quiet() return true end

handlers["echo-hex"] = function(msg)
  say("HEX", msg.id, msg.body == "" and "-" or hex(msg.body))
  return true
end

function handlers.nack(msg)
  say("NACKED", msg.id)
  return nil, detail
end

function handlers.error(msg)
  say("RAISED", msg.id)
  error("the handler failed, as it was told to", 0)
end

function handlers.slow(msg)
  for _ = 1, 10 do
    host_of.sleep(tonumber(detail) / 10)
    client:touch(msg)
  end
  return handlers.ack(msg)
end

function handlers.late(msg)
  host_of.sleep(tonumber(detail))
  return handlers.ack(msg)
end

-- on_data "resume" ends it.
function handlers.pause(msg)
  if msg.body == "pause" then client:pause() end
  return handlers.ack(msg)
end

-- What on_data waits for.
local gate = { open = kind ~= "stuck" }
function handlers.stuck(msg)
  handlers.ack(msg)
  if msg.body == "go on" then
    gate.open = true
    gate.waiter.wake()
  end
end

function handlers.bus(msg)
  local function told(ok, code) say("TOLD", ok and "ok" or code) end
  local verb, to, text = msg.body:match("^(%a+) ?(%S*) ?(.*)$")
  if verb == "publish" then client:publish(to, text, told) end
  if verb == "send" then client:send(to, text, told) end
  if verb == "ask" then told(client:send(to, text)) end
  return true
end

local handler = handlers[kind]
local timed = kind == "slow" or kind == "late"
if not handler or (timed and not tonumber(detail)) then
  io.stderr:write("backend.lua: no such mode: ", mode, "\n")
  os.exit(2)
end

local options = {
  host = host, port = port, id = id, token = token ~= "" and token or nil, max = tonumber(max), tls = tls,
  on_connect = function() say("READY") end,
  on_log = function(level, text) say("LOG", level, text) end,
  on_data = function(from, data)
    while not gate.open do
      gate.waiter = client:waiter()
      gate.waiter.wait()
    end
    if data == "resume" then client:resume() end
    if data == "close" then
      waits_for_end = true
      say("ENDED", tostring(client:close(true)))
      waits_for_end = false
    end
    say("DATA", from, data)
  end,
  on_state = function(state, why)
    say("STATE", state, why or "")
    if state == "closed" and host_of.closed then host_of.closed() end
  end,
  timer_messages = timer_messages,
  on_message = function(msg)
    if msg.body == "stop" then client:close() return true end
    return handler(msg)
  end,
}
for key, value in pairs(host_of.options or {}) do options[key] = value end
client = payrelay[name].connect(options)
package.loaded["backend.client"] = client -- for requests in backend_nginx.conf
if kind == "bus" then
  client:subscribe("news", function(data, channel) say("EVENT", channel, data) end, {
    done = function(ok, code) say("SUBSCRIBED", ok and "ok" or code) end,
  })
end
if host_of.run(client) ~= "later" then say("CLOSED") end
