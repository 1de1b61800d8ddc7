//! The Lua client's own tests under Lua 5.5, which Debian does not have: those that need no socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use mlua::{Error, Lua, Table};

/// Runs a test program as the interpreter does, from the top of the project; what it gives to `os.exit`.
fn run(program: &str) -> i32 {
    let lua = Lua::new();
    let version: String = lua.globals().get("_VERSION").expect("a version");
    assert_eq!(version, "Lua 5.5");
    let code = Arc::new(AtomicI32::new(-1));
    let theirs = Arc::clone(&code);
    let exit = lua
        .create_function(move |_, status: i32| {
            theirs.store(status, Ordering::SeqCst);
            Ok(())
        })
        .expect("a function");
    // Rust's Lua is safe, and so has no library `debug`; the tests and the client want a traceback only.
    let debug = lua.create_table().expect("a table");
    let traceback = lua
        .create_function(|lua, (text, level): (String, Option<usize>)| {
            lua.traceback(Some(&text), level.unwrap_or(1))
        })
        .expect("a function");
    debug.set("traceback", traceback).expect("set");
    lua.globals().set("debug", debug).expect("set");
    let os: Table = lua.globals().get("os").expect("a table");
    os.set("exit", exit).expect("set");
    let text = std::fs::read_to_string(program).expect(program);
    let done: Result<(), Error> = lua.load(text).set_name(format!("@{program}")).exec();
    if let Err(error) = done {
        panic!("{program}: {error}");
    }
    code.load(Ordering::SeqCst)
}

#[test]
fn frames() {
    assert_eq!(run("tests/lua/core_test.lua"), 0);
}

#[test]
fn what_all_adapters_share() {
    assert_eq!(run("tests/lua/client_test.lua"), 0);
}
