-- What examples/openresty.conf runs in each worker of nginx; the client serves in the first only.
-- It writes what comes to the error log and acknowledges it: bodies of payments, since you ask for
-- that by running it; a program of yours should not.

local payrelay = require("payrelay")

local client = payrelay.openresty.new{
  host = "127.0.0.1", port = 7000, id = "game-01",
  -- What `payrelay token game-01` prints; needed if the relay has secrets:
  -- token = "…",
  on_message = function(msg)
    -- Here cosockets work: lua-resty-mysql, lua-resty-redis and the like.
    ngx.log(ngx.NOTICE, msg.id, " try ", msg.try, " route ", msg.route, " body ", msg.body)
    return true
  end,
}
client:start() -- returns at once
