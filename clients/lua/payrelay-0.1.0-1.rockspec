-- For `luarocks make` in this folder. The file needs nothing by itself; whoever uses an adapter has its library already.
rockspec_format = "3.0"
package = "payrelay"
version = "0.1.0-1"
source = { url = "." }
description = {
  summary = "Hears of payments from a payrelay relay, over LuaSocket, copas, cqueues, OpenResty, skynet or luv",
  license = "MIT OR Apache-2.0",
}
dependencies = { "lua >= 5.1, < 5.5" }
build = { type = "builtin", modules = { payrelay = "payrelay.lua" } }
