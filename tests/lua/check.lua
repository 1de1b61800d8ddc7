-- The few lines of test harness that the Lua tests share: named cases, comparison, a seeded generator, a verdict.

local check = { passed = 0, failed = 0 }

-- Runs one case. A failure is printed and counted, and the next case runs.
function check.case(name, run)
  local ok, why = xpcall(run, function(err) return debug.traceback(tostring(err), 2) end)
  if ok then check.passed = check.passed + 1 return end
  check.failed = check.failed + 1
  print("FAILED  " .. name .. "\n        " .. why:gsub("\n", "\n        "))
end

-- A value as text: bytes that would not show are escaped, tables are listed with sorted keys.
function check.show(value)
  if type(value) == "string" then
    local text = value:gsub("[^\32-\126]", function(byte) return ("\\x%02x"):format(byte:byte()) end)
    return '"' .. (#text > 400 and text:sub(1, 400) .. "…" or text) .. '"'
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local parts = {}
  for key, inner in pairs(value) do parts[#parts + 1] = tostring(key) .. "=" .. check.show(inner) end
  table.sort(parts)
  return "{" .. table.concat(parts, " ") .. "}"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do if not same(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end

function check.equal(got, wanted, what)
  if not same(got, wanted) then
    error(("%s\n  got    %s\n  wanted %s"):format(what or "not equal", check.show(got), check.show(wanted)), 2)
  end
end

-- A generator that gives the same numbers in every Lua: whole numbers from low to high.
function check.random(seed)
  local state = seed % 2147483646 + 1
  return function(low, high)
    state = state * 16807 % 2147483647
    return low + math.floor(state / 2147483647 * (high - low + 1))
  end
end

-- Prints the sum and ends the program with 1 if anything failed.
function check.done()
  print(("%d passed, %d failed"):format(check.passed, check.failed))
  os.exit(check.failed == 0 and 0 or 1)
end

return check
