//! The examples of the client's folder, each run as it stands.

use std::fs;

use tempfile::TempDir;

use crate::support::{Lua, Process, Relay, eventually, nginx_command, nginx_preamble};

/// Posts to `id` until the example has taken it: an example gives no sign of being connected.
fn example_served(relay: &Relay, process: &Process, id: &str) {
    eventually("the example is connected", || {
        let answer = relay
            .post(&format!("/notify/{id}"), b"shown as asked")
            .answer();
        answer.told() == (200, "delivered")
    });
    eventually("it shows what came", || {
        (process.stdout() + &process.stderr()).contains("shown as asked")
    });
}

#[test]
fn the_examples_run() {
    let relay = Relay::start();
    let to = relay.ready().tcp;
    for (lua, name) in [
        (Lua::V54, "luasocket"),
        (Lua::Jit, "copas"),
        (Lua::V54, "cqueues"),
        (Lua::V54, "luv"),
        (Lua::V51, "push"),
    ] {
        let mut command = lua.command();
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/lua"));
        command.arg(format!("examples/{name}.lua"));
        command.args([&to.ip().to_string(), &to.port().to_string(), name]);
        let process = Process::start(name, command);
        example_served(&relay, &process, name);
    }
}

#[test]
fn the_example_for_openresty_runs() {
    let relay = Relay::start();
    let folder = TempDir::with_prefix("payrelay-").expect("a folder for nginx");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect(name);
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/lua/");
    let read = |name: &str| fs::read_to_string(examples.to_owned() + name).expect(name);
    // As it stands, but for what differs between machines.
    fs::create_dir(folder.path().join("examples")).expect("a folder");
    write("payrelay.lua", &read("payrelay.lua"));
    let port = format!("port = {},", relay.ready().tcp.port());
    write(
        "examples/openresty.lua",
        &read("examples/openresty.lua").replace("port = 7000,", &port),
    );
    let conf =
        read("examples/openresty.conf").replace("daemon off;", "daemon off;\nmaster_process off;");
    write("nginx.conf", &(nginx_preamble() + &conf));
    let mut command = nginx_command(folder.path());
    command.current_dir(folder.path());
    let process = Process::start("nginx", command);
    example_served(&relay, &process, "game-01");
}
