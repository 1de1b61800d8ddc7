-- Runs in each worker of nginx; the client serves in the first only. Notifications are handled
-- there, each in a light thread of its own: a handler that waits for a database delays no other.

local payrelay = require("payrelay")

if ngx.worker.id() ~= 0 then return end

local client = payrelay.openresty.new{
  host = "127.0.0.1", port = 7000, id = "game-01",
  -- What `payrelay token game-01` prints; needed if the relay has secrets:
  -- token = "…",
  on_message = function(msg)
    -- Here cosockets work: lua-resty-mysql, lua-resty-redis and the like. Bodies of payments are
    -- shown, since you ask for that by running an example; a program of yours should not.
    ngx.log(ngx.NOTICE, msg.id, " try ", msg.try, " route ", msg.route, " body ", msg.body)
    return true
  end,
}
client:start() -- returns at once
require("payrelay_bridge").serve(client)
