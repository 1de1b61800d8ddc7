-- A skynet service: put it where your config's luaservice finds it, and payrelay.lua where its
-- lua_path does; then skynet.newservice with its name. It prints what comes and acknowledges it:
-- bodies of payments, since you ask for that by running it; a program of yours should not.

local skynet = require("skynet")
local payrelay = require("payrelay")

skynet.start(function()
  local client = payrelay.skynet.new{
    host = skynet.getenv("payrelay_host") or "127.0.0.1",
    port = tonumber(skynet.getenv("payrelay_port") or 7000),
    id = skynet.getenv("payrelay_id") or "game-01",
    -- What `payrelay token game-01` prints; skynet's crypt has no SHA-256.
    token = skynet.getenv("payrelay_token"),
    on_message = function(msg)
      -- Here skynet.call works: each message has a coroutine of its own.
      skynet.error(("%s try %d route %s body %s"):format(msg.id, msg.try, msg.route, msg.body))
      return true
    end,
  }
  client:start() -- returns at once
end)
