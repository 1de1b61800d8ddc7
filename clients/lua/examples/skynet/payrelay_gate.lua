-- A skynet service that owns the one connection to the relay, as a game server would have it: each
-- payment goes to the service of its player (pay_agent.lua), and the provider is told ok only after
-- that one has booked it. Put the files of this folder where your config's luaservice and lua_path
-- find them, and payrelay.lua where lua_path does. Then skynet.uniqueservice("payrelay_gate"), and
--   skynet.call(gate, "lua", "send", "game-02", bytes)   another backend; true, or nil and a code
--   skynet.call(gate, "lua", "reload")                   new code in pay_rules.lua; see there
--   skynet.call(gate, "lua", "stop")                     before the process is ended

local skynet = require("skynet")
local queue = require("skynet.queue")
local payrelay = require("payrelay")

local client
local rules = require("pay_rules")
local agents = {}        -- address by player
local starting = queue() -- of agents: two payments of one player must not start two

local function agent_of(player)
  return starting(function()
    agents[player] = agents[player] or skynet.newservice("pay_agent", player)
    return agents[player]
  end)
end

-- Each message has a coroutine of its own, so skynet.call works here. An error that it raises, as
-- when the agent has died, is a NACK: the relay sends the payment again.
local function on_message(msg)
  local player, why = rules.player_of(msg.body)
  if not player then return nil, why, -1 end -- will never be right: a dead letter of the relay
  return skynet.call(agent_of(player), "lua", "pay", msg.id, msg.body)
end

local command = {}

function command.send(to, bytes) return client:send(to, bytes) end

function command.connected() return client:connected() end

-- skynet keeps the code of files; without clear() the old one would be loaded again. What is at
-- work ends with the code that it began with. The connection stays.
function command.reload()
  require("skynet.codecache").clear()
  local before = package.loaded.pay_rules
  package.loaded.pay_rules = nil
  local ok, fresh = pcall(require, "pay_rules")
  if not ok then
    package.loaded.pay_rules = before
    return nil, fresh
  end
  rules = fresh
  for _, agent in pairs(agents) do skynet.call(agent, "lua", "reload") end
  return true
end

-- No more messages; those that are at work are answered.
function command.stop() return client:close(true) end

skynet.start(function()
  client = payrelay.skynet.new{
    -- An address: a name would be looked up by skynet's one thread for all sockets.
    host = skynet.getenv("payrelay_host") or "127.0.0.1",
    port = tonumber(skynet.getenv("payrelay_port") or 7000),
    id = skynet.getenv("payrelay_id") or "game-01",
    -- What `payrelay token game-01` prints; skynet's crypt has no SHA-256.
    token = skynet.getenv("payrelay_token"),
    on_message = on_message,
    on_state = function(state, why) skynet.error("payrelay is " .. state, why or "") end,
  }
  client:start()
  skynet.dispatch("lua", function(_, _, name, ...)
    skynet.ret(skynet.pack(command[name](...)))
  end)
end)
