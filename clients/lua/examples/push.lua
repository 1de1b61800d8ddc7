-- Prints what a relay sends, and acknowledges it, looking at its socket once a frame, as Defold and
-- Cocos can. In the folder above:
--   lua examples/push.lua 127.0.0.1 7000 game-01 [TOKEN]
-- It prints the bodies of payments, since you ask for that by running it; a program of yours should
-- not.

local socket = require("socket")
local payrelay = require("payrelay")

local host, port, id, token = arg[1], tonumber(arg[2]), arg[3], arg[4]
if not (host and port and id) then
  io.stderr:write([[
usage: lua examples/push.lua HOST PORT ID [TOKEN]
  HOST PORT   where the relay listens for backends: tcp.listen in its relay.toml
  ID          the id to receive for; the route /notify/{id} delivers to it
  TOKEN       what `payrelay token ID` prints; needed if the relay has secrets
]])
  os.exit(2)
end

local tcp, session -- of the one connection; Defold and Cocos have LuaSocket

local client = payrelay.push.new{
  id = id, token = token, clock = socket.gettime,
  open = function(new)
    session, tcp = new, socket.tcp()
    tcp:settimeout(1) -- the longest that a frame may be held up
    local done, why = tcp:connect(host, port)
    if done then session:opened() else session:broke(why) end
  end,
  write = function(_, bytes)
    tcp:settimeout(1)
    local done, why = tcp:send(bytes)
    return done and true, why
  end,
  close = function()
    tcp:close()
    tcp = nil
  end,
  on_message = function(msg)
    print(("%s  try %d  route %s  verified %s  event %s")
      :format(msg.id, msg.try, msg.route, msg.verified, msg.event or "-"))
    io.write(msg.head, msg.body, "\n\n")
    io.stdout:flush()
    return true
  end,
}

-- Once a frame: in Defold update(self, dt), in Cocos a scheduled function.
local function frame()
  client:tick()
  if not tcp then return end
  tcp:settimeout(0)
  local bytes, why, partial = tcp:receive(65536)
  bytes = bytes or partial
  if bytes ~= "" then session:feed(bytes) end
  if why and why ~= "timeout" then session:broke(why) end
end

repeat
  frame()
  socket.sleep(1 / 60)
until client:closed()
