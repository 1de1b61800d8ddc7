-- For luacheck: what the Lua files of this project may use. One file serves every Lua from 5.1 on, so only what all have.
std = "min"
max_line_length = 140
files["clients/lua"] = { max_line_length = 100 }
files["clients/lua/examples/openresty.lua"] = { read_globals = { "ngx" } }
files["clients/lua/examples/openresty/*.lua"] = { globals = { "ngx" } }
files["tests/lua/backend.lua"] = { read_globals = { "ngx" } }
