//! The examples of the client's folder, each run as it stands.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    DEADLINE, Lua, Process, Relay, eventually, nginx_command, nginx_preamble, token,
};

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

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/lua/");

fn read(name: &str) -> String {
    fs::read_to_string(EXAMPLES.to_owned() + name).expect(name)
}

/// A folder with the client and these files of the examples: as they stand, but for what differs between machines.
fn copied(relay: &Relay, files: &[&str]) -> TempDir {
    let folder = TempDir::with_prefix("payrelay-").expect("a folder");
    fs::create_dir_all(folder.path().join("examples/openresty")).expect("a folder");
    let port = format!("port = {},", relay.ready().tcp.port());
    for name in ["payrelay.lua"].iter().chain(files) {
        let text = read(name).replace("port = 7000,", &port);
        fs::write(folder.path().join(name), text).expect(name);
    }
    folder
}

/// nginx in `folder` with the example's configuration.
fn nginx(folder: &TempDir, conf: &str) -> Process {
    fs::write(folder.path().join("nginx.conf"), nginx_preamble() + conf).expect("nginx.conf");
    let mut command = nginx_command(folder.path());
    command.current_dir(folder.path());
    Process::start("nginx", command)
}

#[test]
fn the_example_for_openresty_runs() {
    let relay = Relay::start();
    let folder = copied(&relay, &["examples/openresty.lua"]);
    let conf = read("examples/openresty.conf");
    let conf = conf.replace("daemon off;", "daemon off;\nmaster_process off;");
    let process = nginx(&folder, &conf);
    example_served(&relay, &process, "game-01");
}

/// One connection for four workers: a request in any of them uses it.
#[test]
fn the_example_for_openresty_with_workers_runs() {
    let relay = Relay::start();
    let files =
        ["worker.lua", "payrelay_bridge.lua"].map(|file| format!("examples/openresty/{file}"));
    let folder = copied(&relay, &files.each_ref().map(String::as_str));
    let socket = folder.path().join("http");
    let listen = format!("listen unix:{}", socket.display());
    let conf = read("examples/openresty/nginx.conf").replace("listen 127.0.0.1:8088", &listen);
    let mut process = nginx(&folder, &conf);
    example_served(&relay, &process, "game-01");
    assert_eq!(relay.metric("payrelay_sessions_opened_total"), 1.0);

    let mut other = relay.backend("game-02");
    let ask = |to: &str, data: &str| {
        let mut stream = UnixStream::connect(&socket).expect("nginx");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        let length = data.len();
        let request =
            format!("POST /send?to={to} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{data}");
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let text = answer.split_once("worker ").expect("a worker").1;
        let (worker, told) = text.trim_end().split_once(": ").expect("an outcome");
        (worker.to_owned(), told.to_owned())
    };
    let mut workers = HashSet::new();
    let mut number = 0;
    eventually(
        "both the worker with the connection and another were asked",
        || {
            number += 1;
            let data = format!("number {number}");
            let (worker, told) = ask("game-02", &data);
            assert_eq!(told, "ok", "worker {worker}");
            other.expect(
                &format!("DATA from=game-01 ={}", data.len()),
                data.as_bytes(),
            );
            let (_, told) = ask("nobody", "x");
            assert_eq!(told, "offline");
            workers.insert(worker);
            workers.len() > 1 && workers.contains("0")
        },
    );
    process.signal(Signal::TERM); // so that the workers go with it
    assert_eq!(process.wait_exit(DEADLINE), Some(0));
}

/// The unit's own command, with a token, to its end by systemd's signal: what is in flight is answered.
#[test]
fn the_daemon_runs_as_its_unit_says() {
    let secret = "a-secret-of-some-length-0123456789-0123";
    let relay = Relay::with(&format!("[tcp]\nsecrets = [\"{secret}\"]"));
    let folder = TempDir::with_prefix("payrelay-").expect("a folder");
    let unit = read("examples/payrelay-backend.service");
    let setting = |name: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.strip_prefix('='))
            .expect("a setting")
    };
    let book = folder.path().join("payments.log");
    let started = setting("ExecStart")
        .replace("7000", &relay.ready().tcp.port().to_string())
        .replace("/var/lib/game/payments.log", &book.to_string_lossy());
    let words: Vec<&str> = started.split(' ').collect();
    let (variable, file) = setting("Environment").split_once('=').expect("a variable");
    let file = file.replace("%d", &folder.path().to_string_lossy());
    fs::write(&file, token(secret, "game-01") + "\n").expect("a token");
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .current_dir(EXAMPLES)
        .env(variable, file);
    let mut process = Process::start("daemon", command);
    process.wait_log("connected as game-01");
    let ids: Vec<String> = (0..20)
        .map(|n| relay.post("/notify/game-01", format!("number {n}").as_bytes()))
        .map(|answer| {
            let answer = answer.answer();
            assert_eq!(answer.told(), (200, "delivered"));
            answer.id().to_owned()
        })
        .collect();
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(DEADLINE), Some(0));
    relay.log_contains("gone (bye)");
    let booked = fs::read_to_string(book).expect("a file");
    assert_eq!(booked.lines().count(), 20);
    assert!(ids.iter().all(|id| booked.contains(id)));
}
