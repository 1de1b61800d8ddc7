-- A daemon in plain Lua, to be run by systemd (payrelay-backend.service), with luv: it books each
-- payment in a file and ends in good order when it is told to. In the folder above:
--   lua examples/daemon.lua 127.0.0.1 7000 game-01 payments.log
-- The token, if the relay has secrets, is read from the file that PAYRELAY_TOKEN_FILE names: what
-- `payrelay token game-01` prints, readable by nobody else.

local payrelay = require("payrelay")
local uv = require("luv")

local host, port, id, path = arg[1], tonumber(arg[2]), arg[3], arg[4]
if not (host and port and id and path) then
  io.stderr:write("usage: lua examples/daemon.lua HOST PORT ID FILE\n")
  os.exit(2)
end

local function read_token()
  local name = os.getenv("PAYRELAY_TOKEN_FILE")
  if not name then return nil end
  local file = assert(io.open(name))
  local token = file:read("*l")
  file:close()
  return token
end

local book = assert(uv.fs_open(path, "a", 384)) -- 0600

-- Writes one line, and has it on the disk before it returns. A game would use its database: true
-- may be returned only after the payment is safe.
local function book_payment(msg)
  local line = ("%s %d %q\n"):format(msg.event or msg.id, msg.try, msg.body)
  local written, why = uv.fs_write(book, line, -1)
  if written ~= #line then return nil, why or "the disk is full" end
  local synced
  synced, why = uv.fs_fsync(book)
  if not synced then return nil, why end
  return true
end

local client = payrelay.luv.new{
  host = host, port = port, id = id, token = read_token(),
  on_message = book_payment,
  -- systemd's log has the time already.
  on_log = function(level, text) io.stderr:write(level, ": ", text, "\n") end,
}
client:start()

-- On SIGTERM: no more messages, those at work are answered, then the loop has nothing left to do.
local signals = {}
for _, name in ipairs{ "sigterm", "sigint" } do
  local signal = uv.new_signal()
  signals[#signals + 1] = signal
  signal:start(name, function()
    client:close()
    for _, each in ipairs(signals) do
      if not each:is_closing() then each:close() end
    end
  end)
end

uv.run()
