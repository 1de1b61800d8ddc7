-- Tests of the Lua client's core and session, without a socket. From the top of the project: lua5.1 tests/lua/core_test.lua [SEED]

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
  equal({ parse{ line .. "b\n" } }, { {}, "a line too long" })
  equal({ parse{ line .. "b" } }, { {}, "a line too long" })
end)

case("data must end in LF and may not be more than the limit", function()
  equal({ parse{ "X =2\nabc\n" } }, { {}, "no LF after the data" })
  equal({ parse{ "X =2\nab\r\n" } }, { {}, "no LF after the data" })
  equal({ parse({ "X =11\n" }, 10) }, { {}, "too much data" })
  equal(#(parse({ "X =10\n0123456789\n" }, 10)), 1)
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

local seed = tonumber(arg and arg[1]) or os.time()
print("random splits: seed " .. seed)
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
  equal(verdict(function() error() end)[2].reason, "the handler raised nil")
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

---------------------------------------------------------------------------------------------------------------- session

-- A session whose writes are kept in sent, and whose log lines in said.
local function session(options)
  local sent, said = {}, {}
  options.id = options.id or "game-01"
  options.on_log = options.on_log or function(level, text) said[#said + 1] = level .. " " .. text end
  local s = payrelay.session(options, function(bytes) sent[#sent + 1] = bytes return true end)
  return s, sent, said
end

local OK = "OK id=game-01 node=pay-1-0a1b2c session=7 heartbeat=20 max_body=1048576\n"

case("HELLO says version, id, token and credit", function()
  local s, sent = session{ token = ("ab"):rep(32), max = 4 }
  s:hello()
  equal(sent, { "HELLO 1 id=game-01 max=4 token=" .. ("ab"):rep(32) .. "\n" })
end)

case("OK opens it once and tells on_connect", function()
  local heard = {}
  local s, _, said = session{ on_connect = function(info) heard[#heard + 1] = info.session end }
  s:feed(OK .. OK)
  equal({ s.open, s.heartbeat, heard }, { true, 20, { "7" } })
  equal(said, { "info connected as game-01 to pay-1-0a1b2c, session 7" })
end)

case("a failing on_connect or on_log harms nothing", function()
  local s, sent = session{
    on_connect = function() error("mine") end, on_log = function() error("mine") end, on_message = function() error("mine", 0) end,
  }
  s:feed(OK .. "MSG id=A =0\n\n")
  equal({ sent, s.over }, { { "NACK id=A reason=mine\n" } })
end)

case("MSG reaches the handler whole and is acknowledged", function()
  local got
  local s, sent = session{ on_message = function(msg) got = msg end }
  local head = "POST /notify/game-01 HTTP/1.1\r\ncontent-type: text/xml\r\n"
  s:feed(OK .. core.encode("MSG", {
    id = "01JD8XK4ZQ3V5T7W9Y0A2B4C6D", try = 2, route = "/notify/{id}", verified = "alipay", event = "o 7", at = "1764000000000", h = #head,
  }, head .. every_byte))
  equal(got, {
    id = "01JD8XK4ZQ3V5T7W9Y0A2B4C6D", try = 2, route = "/notify/{id}", verified = "alipay", event = "o 7", at = 1764000000000,
    head = head, body = every_byte,
  })
  equal(sent, { "ACK id=01JD8XK4ZQ3V5T7W9Y0A2B4C6D\n" })
end)

case("an empty body is an empty string", function()
  local got
  local s, sent = session{ on_message = function(msg) got = msg.head .. "|" .. msg.body end }
  s:feed(OK .. "MSG id=A try=1 h=0 =0\n\n" .. "MSG id=B try=1 h=4 =4\n\r\n\r\n\n")
  equal({ got, sent }, { "\r\n\r\n|", { "ACK id=A\n", "ACK id=B\n" } })
end)

case("a refusal is NACKed and logged without the body or the token", function()
  local s, sent, said = session{ token = "5ec4e7", on_message = function() return nil, "no\nstock", 3 end }
  s:feed(OK .. "MSG id=A =6\nsecret\n")
  equal(sent, { "NACK delay=3 id=A reason=no%0Astock\n" })
  local all = table.concat(said, "\n")
  equal(said[2], "warn refused A: no stock")
  equal({ all:find("secret", 1, true), all:find("5ec4e7", 1, true) }, {})
end)

case("PING is answered, PONG and unknown verbs with their data are passed over", function()
  local s, sent = session{ on_message = function() end }
  s:feed(OK .. "PING\nPONG\nJUGGLE balls=3 =12\nMSG id=X =0\n\n" .. "PING\n")
  equal({ sent, s.over }, { { "PONG\n", "PONG\n" } })
end)

case("verbs are verbs only: fields of the session are not", function()
  local s = session{}
  s:feed(OK .. "FEED\nSAY\nFINISH\nHELLO\n")
  equal(s.over, nil)
end)

case("BYE ends it with the wait that was asked for", function()
  local s, sent = session{ on_message = function() end }
  s:feed(OK .. "MSG id=A =0\n\nBYE reason=takeover retry=5\nMSG id=B =0\n\n")
  equal({ sent, s.over }, { { "ACK id=A\n" }, { why = "the relay said BYE: takeover", retry = 5 } })
end)

case("ERR is logged; a fatal one ends it, and all but limit need an operator", function()
  local s, _, said = session{}
  s:feed(OK .. "ERR code=unknown-id id=A msg=not%20in%20flight\n")
  equal({ s.over, said[2] }, { nil, "warn the relay said unknown-id: not in flight" })
  for _, code in ipairs{ "bad-hello", "bad-token", "not-allowed", "bad-frame", "never-heard-of" } do
    s = session{}
    s:feed("ERR code=" .. code .. " fatal=1 msg=no\n")
    equal(s.over, { why = "the relay said " .. code .. ": no", slow = true })
  end
  s = session{}
  s:feed("ERR code=limit fatal=1 msg=full\n")
  equal(s.over, { why = "the relay said limit: full", slow = false })
end)

case("a broken frame ends it; what came before was handled", function()
  local s, sent = session{ on_message = function() end }
  s:feed(OK .. "MSG id=A =0\n\nmsg id=B\nMSG id=C =0\n\n")
  equal({ sent, s.over.why }, { { "ACK id=A\n" }, "the relay sent a broken frame: no verb" })
  for _, broken in ipairs{ "MSG try=1 =0\n\n", "MSG id=A h=-1 =0\n\n", "MSG id=A h=x =0\n\n" } do
    s, sent = session{ on_message = function() end }
    s:feed(OK .. broken)
    equal({ sent, s.over.why }, { {}, "the relay sent a broken MSG" })
  end
  s = session{ on_message = function() end }
  s:feed(OK .. "MSG id=A h=99999999999999999999 =3\nabc\n")
  equal(s.over, nil)
end)

case("a failed write ends it: nothing further is handled, and the lost ACK is logged", function()
  local handled, said = 0, {}
  local s = payrelay.session({
    id = "game-01", on_message = function() handled = handled + 1 end, on_log = function(_, text) said[#said + 1] = text end,
  }, function() return nil, "closed" end)
  s:feed(OK .. "MSG id=A =0\n\nMSG id=B =0\n\n")
  equal({ handled, s.over.why }, { 1, "could not write: closed" })
  equal(said[2], "the connection was lost before the ACK of A; expect the event again")
end)

case("after a failed write, a BYE or a fatal ERR that had come already still decides the wait", function()
  for text, over in pairs{
    ["BYE reason=takeover retry=5\n"] = { why = "the relay said BYE: takeover", retry = 5 },
    ["ERR code=bad-frame fatal=1 msg=no\n"] = { why = "the relay said bad-frame: no", slow = true },
    ["PING\nERR code=unknown-id msg=no\n"] = { why = "could not write: closed" },
  } do
    local handled, writes = 0, 0
    local s = payrelay.session({ id = "game-01", on_message = function() handled = handled + 1 end }, function()
      writes = writes + 1
      return nil, "closed"
    end)
    s:feed(OK .. "MSG id=A =0\n\nMSG id=B =0\n\n" .. text)
    equal({ handled, writes, s.over }, { 1, 1, over })
  end
  local s = payrelay.session({ id = "game-01" }, function() return nil, "closed" end)
  equal({ s:hello(), s.over }, { false, { why = "could not write: closed" } })
end)

case("what is over stays over for its first reason, and says nothing more", function()
  local s, sent = session{}
  s:finish("first", 5)
  s:finish("second")
  equal({ s:say("PING"), s.over, sent }, { false, { why = "first", retry = 5 }, {} })
end)

case("TOUCH from within a handler goes out before its ACK", function()
  local s, sent
  s, sent = session{ on_message = function(msg) s:say("TOUCH", { id = msg.id }) end }
  s:feed(OK .. "MSG id=A =0\n\n")
  equal(sent, { "TOUCH id=A\n", "ACK id=A\n" })
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
