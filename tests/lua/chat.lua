-- A backend that talks to other backends, spoken by hand: what doc/protocol.md says is all it takes.
--
--   lua tests/lua/chat.lua HOST PORT ID
--
-- It listens to the channel "questions", and says READY when it is heard on every node. Data that another backend sends
-- goes back to it, reversed. To every question it publishes its answer, "<ID>: <question>", in the channel "answers".

local socket = require("socket")

local host, port, id = arg[1], arg[2], arg[3]
local conn = assert(socket.connect(host, tonumber(port)))
conn:setoption("tcp-nodelay", true)
conn:settimeout(60)

local function send(line, data)
  if data then line = line .. " =" .. #data .. "\n" .. data end -- not with format, which ends at a NUL in Lua 5.1
  assert(conn:send(line .. "\n"))
end

-- One frame: its verb, its keys, its data.
local function read()
  local line = assert(conn:receive("*l"))
  local keys, data = {}, nil
  for key, value in line:gmatch(" ([a-z_]*)=([^ ]*)") do
    if key == "" then
      data = assert(conn:receive(tonumber(value) + 1)):sub(1, -2)
    else
      keys[key] = value:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    end
  end
  return line:match("^[A-Z]+"), keys, data
end

send("HELLO 1 id=" .. id)
assert(read() == "OK")
send("SUB ch=questions ref=sub")

while true do
  local verb, keys, data = read()
  if verb == "OK" and keys.ref == "sub" then
    io.stdout:write("READY\n")
    io.stdout:flush()
  elseif verb == "DATA" then
    send("SEND to=" .. keys.from, data:reverse())
  elseif verb == "EVENT" then
    send("PUB ch=answers", id .. ": " .. data)
  elseif verb == "PING" then
    send("PONG")
  elseif verb == "BYE" or verb == "ERR" then
    error(verb .. " " .. tostring(keys.code or keys.reason))
  end
end
