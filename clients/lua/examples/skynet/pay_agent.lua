-- The service of one player; see payrelay_gate.lua. In a game it is the agent that you have.

local skynet = require("skynet")
local queue = require("skynet.queue")

local player = ...
local rules = require("pay_rules")
local in_order = queue() -- one payment of this player at a time, in the order in which they came
local booked = {}        -- in a game: a table with a unique key, written in the same transaction

local command = {}

function command.pay(id, body)
  return in_order(rules.book, player, booked, id, body)
end

function command.reload()
  require("skynet.codecache").clear()
  package.loaded.pay_rules = nil
  rules = require("pay_rules")
  return true
end

skynet.start(function()
  skynet.dispatch("lua", function(_, _, name, ...)
    skynet.ret(skynet.pack(command[name](...)))
  end)
end)
