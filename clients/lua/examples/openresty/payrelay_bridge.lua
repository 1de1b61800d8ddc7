-- How requests in any worker use the one connection: what they send goes through shared memory to
-- the worker that has it, and the answer comes back the same way. That takes some milliseconds.

local bridge = {}

local CALLS_MAX = 1000   -- that wait for the worker with the connection
local ANSWER_AFTER = 6   -- seconds; the relay itself answers within 5
local LOOK_EVERY = 0.005 -- seconds

-- Sends bytes to another backend: true, or nil and a code. For phases that may wait (rewrite,
-- access, content).
function bridge.send(to, bytes)
  if bridge.client then return bridge.client:send(to, bytes) end
  local shared = ngx.shared.payrelay
  if (shared:llen("calls") or 0) >= CALLS_MAX then return nil, "busy" end
  local number = shared:incr("number", 1, 0)
  local pushed = shared:rpush("calls", number .. " " .. to .. "\n" .. bytes)
  if not pushed then return nil, "busy" end -- the shared memory is full
  local till = ngx.now() + ANSWER_AFTER
  repeat
    ngx.sleep(LOOK_EVERY)
    local answer = shared:get("answer " .. number)
    if answer then
      shared:delete("answer " .. number)
      if answer == "ok" then return true end
      return nil, answer
    end
  until ngx.now() > till
  return nil, "no answer" -- it may have arrived
end

local function serve_one(client, shared, call)
  local number, to, bytes = call:match("^(%d+) ([^\n]*)\n(.*)$")
  local function answer(ok, code) shared:set("answer " .. number, ok and "ok" or code, 60) end
  local fine, sent, code = pcall(client.send, client, to, bytes, answer)
  if not fine then
    answer(nil, "not an id")
  elseif not sent then
    answer(nil, code)
  end
end

-- In the worker with the connection: serves the calls of the others. A timer of nginx frees its
-- memory at its end only, so there is a new one every minute.
function bridge.serve(client)
  bridge.client = client
  local shared = ngx.shared.payrelay
  local function loop(premature)
    local till = ngx.now() + 60
    while not premature and not ngx.worker.exiting() and ngx.now() < till do
      local call = shared:lpop("calls")
      if call then
        serve_one(client, shared, call)
      else
        ngx.sleep(LOOK_EVERY)
      end
    end
    if not premature and not ngx.worker.exiting() then ngx.timer.at(0, loop) end
  end
  ngx.timer.at(0, loop)
end

return bridge
