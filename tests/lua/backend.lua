-- A backend for the end-to-end tests, made with the client that users copy.
--
--   lua tests/lua/backend.lua HOST PORT ID MODE [TOKEN [MAX [CAFILE [NAME]]]]      from the top of the project
--
-- With CAFILE it speaks TLS, to a relay whose certificate leads there and is for NAME, or else HOST.
--
-- On standard output, each line flushed: READY after every OK of the relay; CLOSED at the end; and by MODE
--   ack           ACKs; for each: GOT <id> <bytes of body> <adler32 of body, 8 hex digits> try=<n>
--   echo-hex      ACKs; for each: HEX <id> <body in hex, "-" if empty>
--   nack:REASON   NACKs with REASON; for each: NACKED <id>
--   error         the handler raises an error; for each: RAISED <id>
--   slow:SECONDS  works for so long, in ten parts with a TOUCH after each, then as ack
-- Each of these lines is written before the answer goes to the relay. A body that is exactly "stop" is ACKed in every
-- mode, and ends the program by a clean close().

package.path = "clients/lua/?.lua;" .. package.path
local payrelay = require("payrelay")
local socket = require("socket")

local host, port, id, mode, token, max = arg[1], arg[2], arg[3], arg[4], arg[5], arg[6]
local cafile, name = arg[7], arg[8]
if not mode then
  io.stderr:write("usage: lua tests/lua/backend.lua HOST PORT ID MODE [TOKEN [MAX [CAFILE [NAME]]]]\n")
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

local kind, detail = mode:match("^([a-z-]+):?(.*)$")
local client
local handlers = {}

function handlers.ack(msg)
  say("GOT", msg.id, #msg.body, adler32(msg.body), "try=" .. msg.try)
end

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
    socket.sleep(tonumber(detail) / 10)
    client:touch(msg)
  end
  return handlers.ack(msg)
end

local handler = handlers[kind]
if not handler or (kind == "slow" and not tonumber(detail)) then
  io.stderr:write("backend.lua: no such mode: ", mode, "\n")
  os.exit(2)
end

client = payrelay.connect{
  host = host, port = port, id = id, token = token ~= "" and token or nil, max = tonumber(max),
  tls = cafile and { cafile = cafile, name = name },
  on_connect = function() say("READY") end,
  on_message = function(msg)
    if msg.body == "stop" then client:close() return true end
    return handler(msg)
  end,
}
client:run()
say("CLOSED")
