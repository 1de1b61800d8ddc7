-- Prints what a relay sends, and acknowledges it, with Copas. In the folder above:
--   lua examples/copas.lua 127.0.0.1 7000 game-01 [TOKEN]
-- It prints the bodies of payments, since you ask for that by running it; a program of yours should
-- not.

local payrelay = require("payrelay")

local host, port, id, token = arg[1], tonumber(arg[2]), arg[3], arg[4]
if not (host and port and id) then
  io.stderr:write([[
usage: lua examples/copas.lua HOST PORT ID [TOKEN]
  HOST PORT   where the relay listens for backends: tcp.listen in its relay.toml
  ID          the id to receive for; the route /notify/{id} delivers to it
  TOKEN       what `payrelay token ID` prints; needed if the relay has secrets
]])
  os.exit(2)
end

local client = payrelay.copas.new{
  host = host, port = port, id = id, token = token,
  on_message = function(msg)
    print(("%s  try %d  route %s  verified %s  event %s")
      :format(msg.id, msg.try, msg.route, msg.verified, msg.event or "-"))
    io.write(msg.head, msg.body, "\n\n")
    io.stdout:flush()
    return true
  end,
}
client:run() -- and Copas with it: other threads and servers go on beside
