-- For luacheck: what the Lua files of this project may use. One file serves Lua 5.1, LuaJIT and 5.4, so only what all have.
std = "min"
max_line_length = 140
files["clients/lua/examples/openresty.lua"] = { read_globals = { "ngx" } }
files["tests/lua/backend.lua"] = { read_globals = { "ngx" } }
