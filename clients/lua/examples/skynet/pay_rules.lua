-- What may change while the game runs: whose a payment is, and what is done with it. Without state,
-- so that "reload" of payrelay_gate.lua can put a new version in its place.

local skynet = require("skynet")

local rules = { version = 1 }

-- Here a form: player=7&order=A-1&amount=648. nil and why not if it names no player.
function rules.player_of(body)
  local player = body:match("^player=(%w+)&") or body:match("&player=(%w+)")
  if not player then return nil, "the body names no player" end
  return player
end

-- true once the payment is safe; nil and why not otherwise. May wait, for a database say. The same
-- order may come again: it is true then, too.
function rules.book(player, booked, id, body)
  local order = body:match("order=([%w-]+)")
  if not order then return nil, "the body names no order", -1 end
  if booked[order] then return true end
  skynet.sleep(1) -- the database
  booked[order] = id
  skynet.error(("player %s: order %s booked by version %d"):format(player, order, rules.version))
  return true
end

return rules
