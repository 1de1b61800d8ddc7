-- Tests of the Lua client's core: frames, the parser, what a handler's end means. From the top of the project:
-- lua5.1 tests/lua/core_test.lua [SEED]

package.path = "clients/lua/?.lua;tests/lua/?.lua;" .. package.path
local payrelay = require("payrelay")
local check = require("check")
local core, case, equal = payrelay.core, check.case, check.equal

local every_byte = {}
for byte = 0, 255 do every_byte[byte + 1] = string.char(byte) end
every_byte = table.concat(every_byte)

-- Feeds the pieces and returns what came out: the frames (without what only the parser needs), and how it failed.
local function parse(pieces, data_max)
  local parser, frames = core.parser(data_max), {}
  for _, piece in ipairs(pieces) do
    for frame in parser:feed(piece) do frames[#frames + 1] = { verb = frame.verb, args = frame.args, data = frame.data } end
  end
  return frames, parser.failed
end

---------------------------------------------------------------------------------------------------------------- codec

case("escape keeps the plain bytes and writes the others in upper-case hex", function()
  equal(core.escape("AZaz09-._~/:,+@"), "AZaz09-._~/:,+@")
  equal(core.escape("/notify/{id}"), "/notify/%7Bid%7D")
  equal(core.escape("a b%=\0\10\255"), "a%20b%25%3D%00%0A%FF")
  equal(core.escape(""), "")
end)

case("unescape undoes escape for all bytes", function()
  equal(core.unescape(core.escape(every_byte)), every_byte)
  equal(core.unescape("%7b%7B+"), "{{+")
end)

case("unescape refuses a % without two hex digits", function()
  for _, bad in ipairs{ "%", "a%", "%1", "%1g", "%%20", "%20%" } do equal(core.unescape(bad), nil, bad) end
end)

case("encode writes the version first, sorted keys, the length last", function()
  equal(core.encode("PING"), "PING\n")
  equal(core.encode("HELLO", { 1, max = 16, id = "game-01", token = nil }), "HELLO 1 id=game-01 max=16\n")
  equal(core.encode("NACK", { id = "X", reason = "no such order", delay = -1 }), "NACK delay=-1 id=X reason=no%20such%20order\n")
  equal(core.encode("SEND", { to = "b" }, "a\nb"), "SEND to=b =3\na\nb\n")
  equal(core.encode("SEND", { to = "b" }, ""), "SEND to=b =0\n\n")
  equal(core.encode("RDY", { max = 16.0 }), "RDY max=16\n")
end)

case("encode never writes a line that the relay would refuse as too long", function()
  equal(#core.encode("NACK", { id = ("x"):rep(1016) }), 1025)
  equal(pcall(core.encode, "NACK", { id = ("x"):rep(1017) }), false)
end)

case("a frame that encode wrote is read back", function()
  local frames = parse{ core.encode("EVENT", { ch = every_byte }, every_byte) }
  equal(frames, { { verb = "EVENT", args = { ch = every_byte }, data = every_byte } })
end)

case("lines at the edge of the grammar", function()
  local good = {
    ["PING"] = { verb = "PING", args = {} },
    ["HELLO 1"] = { verb = "HELLO", args = { 1 } },
    ["X a="] = { verb = "X", args = { a = "" } },
    ["X a=b=c"] = { verb = "X", args = { a = "b=c" } },
    ["ABCDEFGHIJKLMNOP abcdefghijklm_op=!"] = { verb = "ABCDEFGHIJKLMNOP", args = { abcdefghijklm_op = "!" } },
  }
  for line, frame in pairs(good) do equal({ parse{ line .. "\n" } }, { { frame } }, line) end
  local bad = {
    "", " PING", "PING ", "PING  a=b", "ping", "Ping", "PING1", "PING a", "PING 1", "HELLO 1 1", "HELLO a=b 1", "HELLO 12345678901",
    "X A=b", "X a1=b", "X a=b a=c", "X a=%", "X a=%g0", "X =4 a=b", "X =4 =4", "X =", "X =-1", "X =4.0", "X =00000000004",
    "X a=\t", "X a=\127", "X a=\128", "X a=\0", "X a=b\rc", "X\r\r", "ABCDEFGHIJKLMNOPQ", "X abcdefghijklmnopq=1", "\239\187\191PING",
  }
  for _, line in ipairs(bad) do
    local frames, failed = parse{ line .. "\n" .. "PING\n" }
    equal(#frames, 0, check.show(line))
    equal(type(failed), "string", check.show(line))
  end
end)

case("a line of 1,024 bytes is read, one of 1,025 is refused before its LF", function()
  local line = "X a=" .. ("b"):rep(1020)
  equal(#(parse{ line .. "\n" }), 1)
  equal({ parse{ line .. "b\n" } }, { {}, "a line of more than 1024 bytes" })
  equal({ parse{ line .. "b" } }, { {}, "a line of more than 1024 bytes" })
end)

case("data must end in LF and may not be more than the limit", function()
  equal({ parse{ "X =2\nabc\n" } }, { {}, "no LF after the data" })
  equal({ parse{ "X =2\nab\r\n" } }, { {}, "no LF after the data" })
  equal({ parse({ "X =11\n" }, 10) }, { {}, "11 bytes of data, and 10 are allowed" })
  equal(#(parse({ "X =10\n0123456789\n" }, 10)), 1)
end)

case("the core is fewer than 150 lines, and needs nothing but Lua's string and table functions", function()
  local file = assert(io.open("clients/lua/payrelay.lua", "rb"))
  local section = file:read("*a"):match("(%-+ core %-%-\n.-)\n%-+ session %-%-\n")
  file:close()
  local _, lines = section:gsub("\n", "\n")
  equal(lines < 150, true, lines .. " lines")
  local world = {
    string = string, table = table, pairs = pairs, ipairs = ipairs, tonumber = tonumber, type = type, assert = assert, next = next,
    setmetatable = setmetatable, payrelay = {},
  }
  local chunk = section .. "\nreturn core"
  local set, compile = rawget(_G, "setfenv"), rawget(_G, "loadstring") -- of 5.1
  local alone = (set and set(compile(chunk), world) or load(chunk, "core", "t", world))()
  equal(alone.parser():feed("PING a=%20\n")(), { verb = "PING", args = { a = " " } })
  equal(alone.encode("HELLO", { 1, id = "a" }, "x"), "HELLO 1 id=a =1\nx\n")
end)

case("the rockspec is for this version", function()
  local file = assert(io.open("clients/lua/payrelay-" .. payrelay.VERSION .. "-1.rockspec", "rb"))
  equal(file:read("*a"):match('version = "([^"]+)"'), payrelay.VERSION .. "-1")
  file:close()
end)

---------------------------------------------------------------------------------------------------------------- splits

local stream = table.concat{
  "OK id=game-01 node=pay-1-0a1b2c session=7 heartbeat=20 max_body=1048576\n",
  "PING\r\n",
  core.encode("MSG", { id = "A", h = 0 }, every_byte),
  core.encode("MSG", { id = "B" }, ""),
  core.encode("MSG", { id = "C" }, "\n"),
  "MSG id=D =4\r\n\r\n\r\n\n",
  "BYE reason=drain retry=1\n",
}
local whole = parse{ stream }

case("the stream that is cut below holds what it should", function()
  equal(#whole, 7)
  equal({ whole[3].data, whole[4].data, whole[5].data, whole[6].data }, { every_byte, "", "\n", "\r\n\r\n" })
end)

case("every cut in two gives the same frames", function()
  for at = 0, #stream do equal(parse{ stream:sub(1, at), stream:sub(at + 1) }, whole, "cut at " .. at) end
end)

case("every cut in three gives the same frames", function()
  local short = "PING\r\nMSG id=B =0\n\nMSG id=C =3\n\n\r\n\nPONG\n"
  local wanted = parse{ short }
  equal(#wanted, 4)
  for a = 0, #short do
    for b = a, #short do equal(parse{ short:sub(1, a), short:sub(a + 1, b), short:sub(b + 1) }, wanted, a .. ", " .. b) end
  end
end)

case("single bytes give the same frames", function()
  local bytes = {}
  for at = 1, #stream do bytes[at] = stream:sub(at, at) end
  equal(parse(bytes), whole)
end)

case("a peer that ends no line, or sends on after a broken frame, holds no memory", function()
  local parser = core.parser()
  for _ = 1, 100 do
    for _ in parser:feed(("x"):rep(65536)) do error("a frame") end
  end
  equal({ parser.failed, #parser.buffer, #parser.fresh }, { "a line of more than 1024 bytes", 0, 0 })
end)

local seed = tonumber(arg and arg[1]) or tonumber(os.getenv("PAYRELAY_SEED")) or os.time()
print("random splits: PAYRELAY_SEED=" .. seed)
case("random streams, randomly cut, give the same frames (seed " .. seed .. ")", function()
  local random = check.random(seed)
  local function bytes(count)
    local list = {}
    for at = 1, count do list[at] = string.char(random(0, 255)) end
    return table.concat(list)
  end
  for _ = 1, 200 do
    local sent, wanted = {}, {}
    for at = 1, random(1, 12) do
      local args, data = {}, nil
      for _ = 1, random(0, 3) do args[("abcdefgh"):sub(random(1, 8)):sub(1, 3)] = bytes(random(0, 20)) end
      if random(0, 2) > 0 then data = bytes(random(0, 1) * random(0, 3000)) end
      sent[at] = core.encode(("MSG"):rep(random(1, 5)), args, data)
      wanted[at] = { verb = sent[at]:match("^%u+"), args = args, data = data }
    end
    local text, pieces, at = table.concat(sent), {}, 1
    while at <= #text do
      local size = random(0, 1) == 0 and random(0, 9) or random(0, 2000)
      pieces[#pieces + 1] = text:sub(at, at + size - 1)
      at = at + size
    end
    equal({ parse(pieces) }, { wanted })
  end
end)

case("a body of 1 MiB in small pieces takes no quadratic time", function()
  local body, parser, found = ("\r\n\0x"):rep(262144), core.parser(), nil
  local text = core.encode("MSG", { id = "A" }, body)
  for at = 1, #text, 100 do
    for frame in parser:feed(text:sub(at, at + 99)) do found = frame.data end
  end
  equal(found == body, true)
  equal(#parser.buffer, 0, "the body is not kept")
end)

---------------------------------------------------------------------------------------------------------------- verdicts

local function verdict(handler) return { core.verdict(pcall(handler)) } end

case("true or nothing is ACK", function()
  equal(verdict(function() return true end), { "ACK", {} })
  equal(verdict(function() return true, "ignored" end), { "ACK", {} })
  equal(verdict(function() end), { "ACK", {} })
end)

case("nil and false are NACK", function()
  equal(verdict(function() return nil end), { "NACK", {} })
  equal(verdict(function() return false end), { "NACK", {} })
  equal(verdict(function() return nil, nil end), { "NACK", {} })
  equal(verdict(function() return nil, "no stock" end), { "NACK", { reason = "no stock" } })
  equal(verdict(function() return false, "no stock", 30 end), { "NACK", { reason = "no stock", delay = 30 } })
end)

case("an error is NACK with its text", function()
  equal(verdict(function() error("no database", 0) end), { "NACK", { reason = "no database" } })
  local reason = verdict(function() error() end)[2].reason
  if reason ~= "<no error object>" then equal(reason, "the handler raised nil") end -- Lua 5.5 has its own words
  equal(verdict(function() error({}) end)[2].reason:match("^table: "), "table: ")
  equal(verdict(function() error(setmetatable({}, { __tostring = function() error("again") end })) end)[1], "NACK")
  equal(verdict(function() error(setmetatable({}, { __tostring = function() return "mine" end })) end)[2].reason, "mine")
end)

case("anything else a handler may return is NACK", function()
  for _, value in ipairs{ 1, 0, "ok", {}, print } do
    local verb, keys = core.verdict(pcall(function() return value, "x", 5 end))
    equal(verb, "NACK")
    equal(keys.reason:match("returned a " .. type(value)) ~= nil, true, keys.reason)
    equal(keys.delay, nil)
  end
end)

case("the reason is cut at 200 bytes, and its line is never too long", function()
  local keys = verdict(function() return nil, ("\255"):rep(5000), 1e300 end)[2]
  equal(keys, { reason = ("\255"):rep(200), delay = 604800 })
  keys.id = ("Z"):rep(26)
  equal(#core.encode("NACK", keys) <= 1025, true)
end)

case("the delay is -1 or whole seconds, and nonsense is left out", function()
  local function delay(value) return verdict(function() return nil, "x", value end)[2].delay end
  equal({ delay(-1), delay(0), delay(0.2), delay("7"), delay(1e9) }, { -1, 0, 1, 7, 604800 })
  for _, value in ipairs{ -2, -0.5, "soon", {}, 0 / 0, true } do equal(delay(value), nil, tostring(value)) end
  equal(core.encode("NACK", { delay = delay(0.2) }), "NACK delay=1\n")
end)

---------------------------------------------------------------------------------------------------------------- document

-- The C+, S+ notation of doc/protocol.md.
local function spelled_out(text)
  local plain = { r = "\r", n = "\n", t = "\t", ["\\"] = "\\" }
  text = text:gsub("\\%[(.)%*(%d+)%]", function(char, times) return char:rep(tonumber(times)) end)
  text = text:gsub("\\x(%x%x)", function(hex) return "\\" .. string.char(tonumber(hex, 16) % 256) .. "\1" end)
  text = text:gsub("\\(.)\1", "%1"):gsub("\\([rnt\\])", plain)
  return text
end

case("every S> line of the document's transcripts is a frame, with as much data as it says", function()
  local file = assert(io.open("doc/protocol.md", "rb"))
  local number, inside, blocks, pending = 0, false, 0, nil
  for line in file:lines() do
    number = number + 1
    local place = "doc/protocol.md:" .. number
    if line:find("^```") then
      inside = not inside and line:find("^```transcript") ~= nil
      blocks = blocks + (inside and 1 or 0)
    elseif inside then
      local kind = line:match("^([CS]%d?[>+|])") or line:match("^(P%d?[<>])") or line:match("^%-%-")
      equal(kind ~= nil, true, place .. ": a line of no kind")
      if pending then equal(kind:gsub("%d", ""), pending.kind, place .. ": data is due here") end
      if kind:find("^S%d?>") then
        local header = line:match("^S%d?> (.*)$")
        local frame = parse{ header:match(" =%d+$") and header:gsub(" =%d+$", "") .. "\n" or header .. "\n" }
        equal(#frame, 1, place)
        equal(({ OK = 1, MSG = 1, ERR = 1, BYE = 1, PONG = 1, DATA = 1, EVENT = 1 })[frame[1].verb], 1, place)
        local length = header:match(" =(%d+)$")
        pending = length and { kind = "S+", length = tonumber(length) }
      elseif pending then
        equal(#spelled_out(line:match("^S%d?%+ ?(.*)$")), pending.length, place)
        pending = nil
      end
    end
  end
  file:close()
  equal(inside, false)
  equal(blocks >= 15, true)
end)

check.done()
