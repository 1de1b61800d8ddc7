//! The recipes of doc/proxies.md, run as they stand there with the real nginx and the real HAProxy; only addresses, ports
//! and file names are the test's.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::{
    Authority, DEADLINE, Process, Random, RawHttp, Relay, Setup, Wire, eventually, held_addr, hold,
    pause, post_request,
};

/// The client that the relay's `allow` has, and one that it has not.
const ALLOWED: &str = "127.0.0.5";
const STRANGER: &str = "127.0.0.6";

/// The blocks of a section of doc/proxies.md: relay.toml's, and the proxy's.
fn recipe(heading: &str, language: &str) -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/proxies.md");
    let text = fs::read_to_string(path).expect("doc/proxies.md");
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section {heading:?}"));
    let block = |language: &str| {
        let begin = format!("```{language}\n");
        let rest = section
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no {language}"))
            .1;
        rest.split_once("```").expect("its end").0.to_owned()
    };
    (block("toml"), block(language))
}

/// A proxy before a relay.
struct Proxied {
    relay: Relay,
    _proxy: Process,
    addr: SocketAddr,
    _dir: TempDir,
}

/// Starts a relay with `toml`, and before it what `command` makes of a free port and the relay.
fn start(toml: &str, mut command: impl FnMut(&Path, u16, &Relay) -> Command) -> Proxied {
    // Ports are the system's, and trusted addresses this host's; the rest stays as it is written.
    let toml: String = toml
        .lines()
        .map(|line| match line.starts_with("listen") {
            true => "listen = \"127.0.0.1:0\"\n".to_owned(),
            false => {
                line.replace("fullchain.pem", "cert.pem")
                    .replace("privkey.pem", "key.pem")
                    + "\n"
            }
        })
        .collect();
    let allow = format!("[http]\nallow = [\"{ALLOWED}\"]\n");
    let relay = Setup::with(&format!("{toml}{allow}")).certified().start();
    let dir = TempDir::with_prefix("payrelay-proxy-").expect("a folder");
    Authority::get().issue(dir.path());
    let pem = |file: &str| fs::read_to_string(dir.path().join(file)).expect("PEM");
    fs::write(
        dir.path().join("both.pem"),
        pem("cert.pem") + &pem("key.pem"),
    )
    .expect("written");
    // These programs cannot be told to choose a port, and a free one can be taken meanwhile: then another. The system gives the
    // port to nobody else while it is bound here, and they bind beside that.
    for _ in 0..5 {
        let held = hold(SocketAddr::from(([127, 0, 0, 1], 0)));
        let addr = held_addr(&held);
        let mut proxy = Process::start("the proxy", command(dir.path(), addr.port(), &relay));
        let mut up = false;
        eventually("the proxy listens, or has ended", || {
            up = TcpStream::connect(addr).is_ok();
            up || !proxy.is_running()
        });
        if up && proxy.is_running() {
            return Proxied {
                relay,
                _proxy: proxy,
                addr,
                _dir: dir,
            };
        }
        eprintln!("{addr}: {}", proxy.stderr());
        pause();
    }
    panic!("the proxy does not start");
}

fn nginx(dir: &Path, modules: &str, body: &str) -> Command {
    let conf = format!(
        "{modules}\ndaemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 256; }}\n{body}\n"
    );
    fs::write(dir.join("nginx.conf"), conf).expect("written");
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(dir)
        .args(["-c", "nginx.conf", "-e", "stderr"]);
    command
}

fn haproxy(dir: &Path, body: &str) -> Command {
    let file = dir.join("haproxy.cfg");
    fs::write(&file, format!("global\n    maxconn 256\n\n{body}\n")).expect("written");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    command
}

impl Proxied {
    /// A TLS connection from `source` to the proxy.
    fn from(&self, source: &str) -> RawHttp {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let source: SocketAddr = format!("{source}:0").parse().expect("an address");
        socket
            .bind(&source.into())
            .expect("an address of this host");
        socket.connect(&self.addr.into()).expect("a connection");
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let client = Arc::clone(self.relay.client());
        RawHttp::over(Wire::seal(stream, &client))
    }

    /// What every recipe must do.
    fn holds(&self) {
        let mut till = self.relay.backend("till-7");
        let mut random = Random::new();
        eventually("the proxy takes the relay for ready", || {
            let mut first = self.from(ALLOWED);
            let answer = first.exchange(&post_request("/notify/nobody", &[], b"x"));
            answer.is_ok_and(|answer| answer.outcome() == "offline")
        });
        // A kept connection, bodies of every kind, and the answer in the relay's own words.
        let mut provider = self.from(ALLOWED);
        for length in [0, 1, 1000, 70_000, 1 << 20] {
            let body = random.bytes(length);
            provider.send(&post_request("/notify/till-7?a=%20b&c=%2F", &[], &body));
            till.expect("MSG id=* h=0 =*", &body).ack();
            let answer = provider.must_answer();
            assert_eq!(
                (answer.told(), answer.text()),
                ((200, "delivered"), "success".to_owned())
            );
        }
        // Chunked, as some providers send.
        let mut chunked = self.from(ALLOWED);
        chunked.send(
            b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n\
              5\r\nhello\r\n0\r\n\r\n",
        );
        till.expect("MSG id=* h=0 =5", b"hello").ack();
        assert_eq!(chunked.must_answer().told(), (200, "delivered"));
        // A refusal is the relay's, too, and the proxy makes no second notification of it.
        provider.send(&post_request("/notify/till-7", &[], b"no"));
        till.expect("MSG id=* =2", b"no").nack("");
        assert_eq!(provider.must_answer().told(), (503, "refused"));
        till.settle();
        // Strangers do not come in, whatever they say of themselves.
        let forged = [("X-Forwarded-For", ALLOWED), ("X-Real-IP", ALLOWED)];
        for headers in [&[][..], &forged] {
            let mut stranger = self.from(STRANGER);
            stranger.send(&post_request("/notify/till-7", headers, b"hello"));
            let told = stranger.answer().expect("an answer or a close");
            assert!(told.is_none_or(|answer| answer.status == 403));
        }
        till.settle();
    }
}

#[test]
fn nginx_ends_tls() {
    let (toml, recipe) = recipe("nginx ends TLS", "nginx");
    let proxied = start(&toml, |dir, port, relay| {
        let body = recipe
            .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
            .replace("127.0.0.1:8080", &relay.ready().http.to_string())
            .replace("/etc/nginx/fullchain.pem", "cert.pem")
            .replace("/etc/nginx/privkey.pem", "key.pem");
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let paths = paths
            .map(|kind| format!("{kind}_temp_path {kind};\n"))
            .concat();
        nginx(
            dir,
            "",
            &format!("http {{\naccess_log off;\n{paths}{body}}}"),
        )
    });
    proxied.holds();
    let mut large = proxied.from(ALLOWED);
    large.send(b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!(large.must_answer().status, 413);
}

#[test]
fn nginx_passes_tls_on() {
    let (toml, recipe) = recipe("nginx passes TLS on", "nginx");
    let proxied = start(&toml, |dir, port, relay| {
        let body = recipe
            .replace("listen 443", &format!("listen 127.0.0.1:{port}"))
            .replace("127.0.0.1:8443", &relay.ready().http.to_string());
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        let modules = match Path::new(module).exists() {
            true => format!("load_module {module};"),
            false => String::new(), // built in, elsewhere
        };
        nginx(dir, &modules, &body)
    });
    proxied.holds();
}

#[test]
fn haproxy_ends_tls() {
    let (toml, recipe) = recipe("HAProxy ends TLS", "haproxy");
    let proxied = start(&toml, |dir, port, relay| {
        let pem = dir.join("both.pem");
        let body = recipe
            .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
            .replace("127.0.0.1:8080", &relay.ready().http.to_string())
            .replace("port 9100", &format!("port {}", relay.ready().admin.port()))
            .replace("/etc/haproxy/pay.pem", &pem.to_string_lossy());
        haproxy(dir, &body)
    });
    proxied.holds();
}

#[test]
fn haproxy_passes_tls_on() {
    let (toml, recipe) = recipe("HAProxy passes TLS on", "haproxy");
    let proxied = start(&toml, |dir, port, relay| {
        let body = recipe
            .replace("bind :443", &format!("bind 127.0.0.1:{port}"))
            .replace("127.0.0.1:8443", &relay.ready().http.to_string())
            .replace("port 9100", &format!("port {}", relay.ready().admin.port()));
        haproxy(dir, &body)
    });
    proxied.holds();
}

/// A balancer that keeps its connections for longer than the relay would send a request into one that is just closing.
#[test]
fn a_connection_may_be_idle_for_as_long_as_the_configuration_says() {
    let relay = Setup::with("[http]\nidle = \"1s\"\n").start();
    let mut client = relay.http();
    let began = std::time::Instant::now();
    assert_eq!(client.post("/notify/nobody", b"x").outcome(), "offline");
    client.expect_closed();
    let idle = began.elapsed();
    assert!(idle >= std::time::Duration::from_secs(1), "{idle:?}");
    let relay = Relay::start();
    let mut client = relay.http();
    assert_eq!(client.post("/notify/nobody", b"x").outcome(), "offline");
    let more_than_the_other = std::time::Duration::from_millis(1500);
    assert!(
        !client.stirs(more_than_the_other),
        "closed after less than 60 s"
    );
}
