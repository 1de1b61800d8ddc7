//! Real Lua programs as backends: `tests/lua/backend.lua` with each of the client's adapters.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use super::{Authority, DEADLINE, Process, Relay, Via, lua55};

/// A Lua that backends run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lua {
    V51,
    Jit,
    V53,
    V54,
    /// Not Debian's: see `lua55`.
    V55,
}

impl Lua {
    /// All that Debian has and payrelay's client supports.
    pub const ALL: [Self; 4] = [Self::V51, Self::Jit, Self::V53, Self::V54];

    /// The interpreter's name as it is installed.
    pub fn program(self) -> &'static str {
        match self {
            Self::V51 => "lua5.1",
            Self::Jit => "luajit",
            Self::V53 => "lua5.3",
            Self::V54 => "lua5.4",
            Self::V55 => "lua5.5",
        }
    }

    /// A command that runs this Lua in the project's folder.
    pub fn command(self) -> Command {
        let mut command = match self {
            Self::V55 => lua55::command(),
            _ => Command::new(installed(self.program())),
        };
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }
}

/// One of the client's adapters, and what it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    LuaSocket(Lua),
    /// LuaSocket with TLS.
    LuaSec(Lua),
    Copas(Lua),
    Cqueues(Lua),
    Luv(Lua),
    /// In an nginx of one process.
    OpenResty,
    /// In an nginx with four workers.
    OpenRestyWorkers,
    /// Over a fake of skynet's API, which Debian does not have.
    Skynet(Lua),
    /// In a loop of frames, as in Defold and Cocos.
    Push(Lua),
}

impl Adapter {
    /// As `backend.lua` is told.
    fn name(self) -> &'static str {
        match self {
            Self::LuaSocket(_) => "luasocket",
            Self::LuaSec(_) => "luasec",
            Self::Copas(_) => "copas",
            Self::Cqueues(_) => "cqueues",
            Self::Luv(_) => "luv",
            Self::OpenResty | Self::OpenRestyWorkers => "openresty",
            Self::Skynet(_) => "skynet",
            Self::Push(_) => "push",
        }
    }

    /// How it comes to the relay.
    pub fn via(self) -> Via {
        match self {
            Self::LuaSec(_) => Via::Tls,
            _ => Via::Clear,
        }
    }

    /// Whether handlers run beside each other.
    pub fn has_coroutines(self) -> bool {
        !matches!(self, Self::LuaSocket(_) | Self::LuaSec(_) | Self::Push(_))
    }

    fn command(self, folder: &Path, args: &[&str]) -> Command {
        match self {
            Self::LuaSocket(lua)
            | Self::LuaSec(lua)
            | Self::Copas(lua)
            | Self::Cqueues(lua)
            | Self::Luv(lua)
            | Self::Skynet(lua)
            | Self::Push(lua) => plain(lua, self.name(), args),
            Self::OpenResty => nginx(folder, "off", self.name(), args),
            Self::OpenRestyWorkers => nginx(folder, "on", self.name(), args),
        }
    }
}

fn installed(program: &str) -> &str {
    let mut probe = Command::new(program);
    let probe = probe
        .arg("-v")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(
        probe.is_ok(),
        "{program} is not on this machine; tests/run installs it"
    );
    program
}

fn plain(lua: Lua, name: &str, args: &[&str]) -> Command {
    let mut command = lua.command();
    command.arg("tests/lua/backend.lua").arg(name).args(args);
    command
}

/// Debian's modules; elsewhere nginx (OpenResty's own) has them built in.
const NGINX_MODULES: [&str; 2] = ["ndk_http_module.so", "ngx_http_lua_module.so"];

/// What an nginx.conf begins with here.
pub fn nginx_preamble() -> String {
    let mut conf = String::new();
    for module in NGINX_MODULES {
        let file = Path::new("/usr/lib/nginx/modules").join(module);
        if file.exists() {
            conf += &format!("load_module {};\n", file.display());
        }
    }
    if geteuid().is_root() {
        conf += "user root;\n"; // its workers read the project's files, wherever these are
    }
    conf
}

/// A command that runs nginx in `folder` with `nginx.conf` there, but with the project's folder as the current one.
pub fn nginx_command(folder: &Path) -> Command {
    let mut command = Command::new(installed("nginx"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"));
    command
}

fn nginx(folder: &Path, master: &str, name: &str, args: &[&str]) -> Command {
    let template = include_str!("../../lua/backend_nginx.conf");
    let words: Vec<String> = std::iter::once(&name)
        .chain(args)
        .map(|word| format!("{word:?}"))
        .collect();
    let template = template.replace("master_process MASTER", &format!("master_process {master}"));
    let template = template.replace("FOLDER", &folder.to_string_lossy());
    let conf = nginx_preamble() + &template.replace("BACKEND_ARGS", &words.join(", "));
    fs::write(folder.join("nginx.conf"), conf).expect("nginx.conf is written");
    nginx_command(folder)
}

/// How a Lua backend is to be started.
pub struct LuaSetup<'a> {
    pub adapter: Adapter,
    pub id: &'a str,
    /// What it does with messages; see `backend.lua`.
    pub mode: &'a str,
    pub token: &'a str,
    pub max: usize,
    /// With TLS: whose certificates it trusts, and the name that the relay's must have ("": the address it connects to).
    pub cafile: PathBuf,
    pub name: &'a str,
    /// With OpenResty: after how many messages it goes on in another timer.
    pub timer_messages: usize,
}

impl<'a> LuaSetup<'a> {
    pub fn new(adapter: Adapter, id: &'a str, mode: &'a str) -> Self {
        Self {
            adapter,
            id,
            mode,
            token: "",
            max: 16,
            cafile: Authority::get().file(),
            name: "",
            timer_messages: 1000,
        }
    }

    /// Starts it towards `to`, connected or not.
    pub fn start(&self, to: SocketAddr) -> LuaBackend {
        let folder = TempDir::with_prefix("payrelay-").expect("a folder for the backend");
        let (host, port, max) = (
            to.ip().to_string(),
            to.port().to_string(),
            self.max.to_string(),
        );
        let (cafile, timer) = (
            self.cafile.to_string_lossy(),
            self.timer_messages.to_string(),
        );
        let args = [
            &host, &port, self.id, self.mode, self.token, &max, &cafile, self.name, &timer,
        ];
        let command = self.adapter.command(folder.path(), &args);
        let process = Process::start(self.adapter.name(), command);
        LuaBackend {
            process,
            adapter: self.adapter,
            taken: 0,
            folder,
        }
    }
}

/// A Lua program connected to the relay.
pub struct LuaBackend {
    process: Process,
    adapter: Adapter,
    /// How many lines of its output have been taken.
    taken: usize,
    folder: TempDir,
}

/// What a Lua backend in mode `ack` says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub id: String,
    pub len: usize,
    pub adler32: String,
}

impl Relay {
    /// Starts a Lua backend with LuaSocket and waits until it is connected.
    pub fn lua_backend(&self, lua: Lua, id: &str, mode: &str) -> LuaBackend {
        let mut backend = LuaSetup::new(Adapter::LuaSocket(lua), id, mode).start(self.ready().tcp);
        backend.line("READY");
        backend
    }
}

impl LuaBackend {
    /// Waits for the next line that begins with `word`, and gives the rest of it.
    pub fn line(&mut self, word: &str) -> String {
        let (at, line) = self
            .process
            .wait_line(self.taken, |line| line.starts_with(word));
        self.taken = at + 1;
        line[word.len()..].trim().to_owned()
    }

    /// How many lines so far began with `word`.
    pub fn count(&self, word: &str) -> usize {
        let printed = self.process.stdout();
        printed
            .lines()
            .filter(|line| line.starts_with(word))
            .count()
    }

    /// How many sockets its process has open.
    pub fn sockets(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process.pid());
        let links = fs::read_dir(folder).expect("its descriptors");
        links
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|link| link.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// All that it printed so far.
    pub fn printed(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }

    /// Waits for the next message, in mode `ack`.
    pub fn got(&mut self) -> Got {
        let rest = self.line("GOT ");
        let words: Vec<&str> = rest.split(' ').collect();
        assert_eq!(words.len(), 4, "{rest:?}");
        Got {
            id: words[0].to_owned(),
            len: words[1].parse().expect("a length"),
            adler32: words[2].to_owned(),
        }
    }

    /// Waits for the next message, in mode `echo-hex`: its id, and its body in hex.
    pub fn hex(&mut self) -> (String, String) {
        let rest = self.line("HEX ");
        let (id, body) = rest.split_once(' ').expect("an id and a body");
        (
            id.to_owned(),
            if body == "-" {
                String::new()
            } else {
                body.to_owned()
            },
        )
    }

    /// Asks the program's own HTTP server (nginx) over its socket, in any of its workers: what it answers.
    pub fn request(&self) -> String {
        let mut stream = UnixStream::connect(self.folder.path().join("http")).expect("nginx");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a read timeout");
        stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Tells the program's host to read its configuration again (nginx).
    pub fn reload(&self) {
        self.process.signal(Signal::HUP);
    }

    /// Waits for the program to end by itself after a clean close().
    pub fn expect_closed(&mut self) {
        self.line("CLOSED");
        assert_eq!(
            self.process.wait_exit(DEADLINE),
            Some(0),
            "{:?}",
            self.adapter
        );
    }
}

impl Drop for LuaBackend {
    fn drop(&mut self) {
        if self.adapter == Adapter::OpenRestyWorkers && self.process.is_running() {
            self.process.signal(Signal::TERM); // so that the workers go with it
            self.process.wait_exit(DEADLINE);
        }
    }
}

/// The checksum that `backend.lua` prints (RFC 1950, in lower-case hex): cheap in every Lua, and it sees order.
pub fn adler32(bytes: &[u8]) -> String {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    format!("{:08x}", (b << 16) | a)
}
