//! What the relay and a service manager have to do with each other. The tests are the service manager: they open the sockets, and
//! read what it would be told.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::heartbeat;
use crate::support::{DEADLINE, Process, Setup, binary, eventually, let_pass};

/// The next datagram, as its lines.
fn told(manager: &UnixDatagram) -> Vec<String> {
    let mut datagram = [0; 4096];
    let length = manager.recv(&mut datagram).expect("a datagram in time");
    let text = std::str::from_utf8(&datagram[..length]).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

/// Reads on until a datagram has a line that begins with `start`: that datagram's lines.
fn wait_for(manager: &UnixDatagram, start: &str) -> Vec<String> {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < DEADLINE, "{start} does not come");
        let lines = told(manager);
        if lines.iter().any(|line| line.starts_with(start)) {
            return lines;
        }
    }
}

fn with_deadline(manager: UnixDatagram) -> UnixDatagram {
    manager.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    manager
}

#[test]
fn the_service_manager_hears_of_start_reload_and_stop() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("notify");
    let manager = with_deadline(UnixDatagram::bind(&path).expect("a socket"));
    let mut relay = Setup::default()
        .env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .start();
    assert_eq!(
        told(&manager),
        [
            "READY=1",
            "STATUS=ready; 0 backends connected, 0 notifications pending, 0 dead"
        ]
    );

    relay.signal(Signal::HUP);
    let reloading = wait_for(&manager, "RELOADING=1");
    let stamp = reloading[1].strip_prefix("MONOTONIC_USEC=");
    let stamp: i64 = stamp.expect("a stamp").parse().expect("microseconds");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let age = now.tv_sec * 1_000_000 + now.tv_nsec / 1000 - stamp;
    assert!((0..60_000_000).contains(&age), "{age} µs");
    assert_eq!(wait_for(&manager, "READY=1").len(), 2);

    relay.signal(Signal::TERM);
    let stopping = wait_for(&manager, "STOPPING=1");
    assert!(stopping[1].starts_with("STATUS=draining"), "{stopping:?}");
    assert_eq!(relay.wait_exit(DEADLINE), Some(0));
}

#[test]
fn the_watchdog_is_fed_and_the_status_follows() {
    let name = format!("payrelay-test-{}-watchdog", std::process::id());
    let addr = UnixAddr::from_abstract_name(&name).expect("a name");
    let manager = with_deadline(UnixDatagram::bind_addr(&addr).expect("a socket"));
    let relay = Setup::default()
        .env("NOTIFY_SOCKET", &format!("@{name}"))
        .env("WATCHDOG_USEC", "300000")
        .start();
    for _ in 0..3 {
        wait_for(&manager, "WATCHDOG=1");
    }
    let _till = relay.backend("till-7");
    wait_for(&manager, "STATUS=ready; 1 backend connected");
    // A relay that stands still feeds nobody.
    relay.signal(Signal::STOP);
    let status = format!("/proc/{}/status", relay.process().pid());
    eventually("it stands still", || {
        fs::read_to_string(&status).is_ok_and(|status| status.contains("State:\tT"))
    });
    drain(&manager);
    manager
        .set_read_timeout(Some(Duration::from_millis(900)))
        .expect("a timeout");
    assert!(manager.recv(&mut [0; 512]).is_err());
    relay.signal(Signal::CONT);
    manager.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    wait_for(&manager, "WATCHDOG=1");
}

/// A service manager that is slow for a moment: its socket is full when the status changes.
#[test]
fn a_status_that_the_service_manager_did_not_take_is_told_again() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("notify");
    let manager = with_deadline(UnixDatagram::bind(&path).expect("a socket"));
    let relay = Setup::default()
        .env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .env("WATCHDOG_USEC", "300000")
        .start();
    wait_for(&manager, "WATCHDOG=1");
    let other = UnixDatagram::unbound().expect("a socket");
    other.set_nonblocking(true).expect("an option");
    while other.send_to(b"X=1", &path).is_ok() {}
    let _till = relay.backend("till-7");
    // Several of its looks, each 100 ms after the one before.
    let_pass(Duration::from_millis(500));
    wait_for(&manager, "STATUS=ready; 1 backend connected");
}

#[test]
fn the_watchdog_is_not_fed_while_a_thread_hangs_that_only_a_restart_helps() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("notify");
    let manager = with_deadline(UnixDatagram::bind(&path).expect("a socket"));
    let relay = Setup::with(heartbeat::ALL)
        .faults()
        .env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .env("WATCHDOG_USEC", "300000")
        .start();
    // A disk that hangs is not brought back by a restart: `redelivery` waits for it, and the watchdog is fed on.
    heartbeat::set(&relay, "redelivery", "hang");
    heartbeat::readyz_says(&relay, "thread redelivery has hung for ");
    drain(&manager);
    wait_for(&manager, "WATCHDOG=1");

    // While `deadlines` hangs nobody gets an answer, and a restart helps.
    heartbeat::set(&relay, "deadlines", "hang");
    heartbeat::readyz_says(&relay, "thread deadlines has hung for ");
    drain(&manager);
    let quiet = Duration::from_millis(900); // nine feeds
    manager.set_read_timeout(Some(quiet)).expect("a timeout");
    let mut datagram = [0; 512];
    while let Ok(length) = manager.recv(&mut datagram) {
        // The status may change; it is no feed.
        let text = String::from_utf8_lossy(&datagram[..length]);
        assert!(!text.contains("WATCHDOG=1"), "{text}");
    }
    heartbeat::end_hang(&relay, "deadlines");
    manager.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    wait_for(&manager, "WATCHDOG=1");
}

/// Reads what is there.
fn drain(manager: &UnixDatagram) {
    manager.set_nonblocking(true).expect("a switch");
    while manager.recv(&mut [0; 512]).is_ok() {}
    manager.set_nonblocking(false).expect("a switch");
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("notify");
    let manager = with_deadline(UnixDatagram::bind(&path).expect("a socket"));
    let mut relay = Setup::default()
        .env("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))
        .env("WATCHDOG_USEC", "1000")
        .env("WATCHDOG_PID", "1")
        .start();
    let _till = relay.backend("till-7");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(DEADLINE), Some(0));
    loop {
        let lines = told(&manager);
        assert!(!lines.contains(&"WATCHDOG=1".to_owned()));
        if lines.contains(&"STOPPING=1".to_owned()) {
            return;
        }
    }
}

/// Starts the relay in `dir` with `sockets` as systemd hands them over: from descriptor 3 on.
fn activated(dir: &Path, sockets: &[&TcpListener]) -> Process {
    let mut script = String::new();
    for (n, socket) in sockets.iter().enumerate() {
        script.push_str(&format!("exec {}<&{}; ", n + 3, socket.as_raw_fd()));
    }
    let count = sockets.len();
    script.push_str(&format!(
        "LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" \"$@\""
    ));
    let mut command = Command::new("bash"); // dash takes no descriptor above 9
    command.arg("-c").arg(script);
    command.arg(env!("CARGO_BIN_EXE_payrelay"));
    command.env("TMPDIR", dir).current_dir(dir);
    command.args(["run", "-c", "relay.toml"]);
    let inherit = |flags| {
        for socket in sockets {
            fcntl_setfd(socket, flags).expect("a flag");
        }
    };
    inherit(FdFlags::empty());
    let process = Process::start("the relay", command);
    inherit(FdFlags::CLOEXEC);
    process
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = socket.local_addr().expect("an address");
    (socket, addr)
}

fn write_config(dir: &Path, http: &str, tcp: &str) {
    let text = format!(
        "[http]\nlisten = \"{http}\"\n[tcp]\nlisten = \"{tcp}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n"
    );
    fs::write(dir.join("relay.toml"), text).expect("relay.toml");
}

/// One callback on a connection of its own: status and outcome, or what went wrong.
fn post(to: SocketAddr, body: &str) -> Result<String, String> {
    let mut stream = TcpStream::connect(to).map_err(|e| format!("connect: {e}"))?;
    stream
        .set_read_timeout(Some(DEADLINE))
        .map_err(|e| e.to_string())?;
    let request = format!(
        "POST /notify/game-01 HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .map_err(|e| format!("send: {e}"))?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|e| format!("receive: {e}"))?;
    let status = answer.split(' ').nth(1).unwrap_or("nothing").to_owned();
    let outcome = answer
        .lines()
        .find_map(|line| line.strip_prefix("X-Payrelay-Outcome: "));
    Ok(format!("{status} {}", outcome.unwrap_or("-").trim()))
}

#[test]
fn a_restart_with_sockets_of_the_service_manager_refuses_no_connection() {
    let dir = TempDir::new().expect("a folder");
    let ((http, http_addr), (tcp, tcp_addr)) = (socket(), socket());
    write_config(dir.path(), &http_addr.to_string(), &tcp_addr.to_string());
    let mut relay = activated(dir.path(), &[&http, &tcp]);
    let (_, ready) = relay.wait_line(0, |_| true);
    assert!(ready.contains(&format!("http={http_addr} tcp={tcp_addr}")));

    let mut listen = binary();
    listen.args(["listen", "game-01", "--quiet", "--connect"]);
    listen.arg(tcp_addr.to_string()).current_dir(dir.path());
    let listen = Process::start("listen", listen);

    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let provider = thread::spawn(move || {
        let mut answers = Vec::new();
        while !asked.load(Ordering::Relaxed) {
            let body = format!("payment-{}", answers.len());
            answers.push((post(http_addr, &body), body));
        }
        answers
    });
    for _ in 0..3 {
        // Something is under way through each process.
        let before = listen.stdout().lines().count();
        listen.wait_line(before + 5, |_| true);
        relay.signal(Signal::TERM);
        assert_eq!(relay.wait_exit(DEADLINE), Some(0));
        // Nobody accepts now, and nobody is refused.
        assert!(TcpStream::connect(http_addr).is_ok() && TcpStream::connect(tcp_addr).is_ok());
        relay = activated(dir.path(), &[&http, &tcp]);
    }
    let before = listen.stdout().lines().count();
    listen.wait_line(before + 5, |_| true);
    stop.store(true, Ordering::Relaxed);
    let answers = provider.join().expect("the provider's thread");
    for (answer, body) in &answers {
        let answer = answer
            .as_deref()
            .unwrap_or_else(|e| panic!("{body}: {e}, of {} answers", answers.len()));
        match answer {
            "200 delivered" | "200 stored" => {
                listen.wait_line(0, |line| line == body);
            }
            // It had come to the old process, but not yet whole.
            answer => assert_eq!(answer, "503 draining"),
        }
    }
}

#[test]
fn sockets_that_no_listener_has_are_an_error_of_the_configuration() {
    let dir = TempDir::new().expect("a folder");
    let (http, http_addr) = socket();
    write_config(dir.path(), "127.0.0.1:0", "127.0.0.1:0");
    let mut relay = activated(dir.path(), &[&http]);
    assert_eq!(relay.wait_exit(DEADLINE), Some(78));
    let said = relay.stderr();
    assert!(
        said.contains(&format!("handed over a socket on {http_addr}"))
            && said.contains("ListenStream="),
        "{said}"
    );
}

#[test]
fn secrets_come_as_credentials() {
    let dir = TempDir::new().expect("a folder");
    fs::write(dir.path().join("tcp"), "a-secret-of-enough-length\n").expect("a credential");
    let config = dir.path().join("relay.toml");
    let write = |name: &str| {
        let text = format!(
            "[tcp]\nsecrets = [\"credential:{name}\"]\n[[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n"
        );
        fs::write(&config, text).expect("relay.toml");
    };
    let token = |folder: Option<&Path>| {
        let mut command = binary();
        command.args(["token", "game-01", "-c"]).arg(&config);
        command.env_remove("CREDENTIALS_DIRECTORY");
        command.envs(folder.map(|folder| ("CREDENTIALS_DIRECTORY", folder)));
        let mut process = Process::start("token", command);
        let code = process.wait_exit(DEADLINE);
        (code, process.stdout(), process.stderr())
    };
    write("tcp");
    let right = crate::support::token("a-secret-of-enough-length", "game-01");
    assert_eq!(token(Some(dir.path())), (Some(0), right, String::new()));
    let (code, _, said) = token(None);
    assert_eq!(code, Some(78));
    assert!(said.contains("LoadCredential="), "{said}");
    write("../tcp");
    let (code, _, said) = token(Some(dir.path()));
    assert_eq!(code, Some(78));
    assert!(said.contains("not a credential's name"), "{said}");
}
