//! Real Lua programs as backends: `tests/lua/backend.lua` under lua5.1, LuaJIT and lua5.4.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use super::{Authority, DEADLINE, Process, Relay};

/// A Lua that backends run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lua {
    V51,
    Jit,
    V54,
}

impl Lua {
    /// All that payrelay's client supports.
    pub const ALL: [Self; 3] = [Self::V51, Self::Jit, Self::V54];

    /// The interpreter's name as it is installed.
    pub fn program(self) -> &'static str {
        match self {
            Self::V51 => "lua5.1",
            Self::Jit => "luajit",
            Self::V54 => "lua5.4",
        }
    }

    /// A command that runs this Lua in the project's folder.
    pub fn command(self) -> Command {
        let program = self.program();
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
        let mut command = Command::new(program);
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    }
}

/// A Lua program connected to the relay.
pub struct LuaBackend {
    process: Process,
    /// How many lines of its output have been taken.
    taken: usize,
}

/// What a Lua backend in mode `ack` says of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub id: String,
    pub len: usize,
    pub adler32: String,
}

impl Relay {
    /// Starts `tests/lua/backend.lua` as backend `id` and waits until it is connected; through TLS, if the relay's backends
    /// come that way.
    pub fn lua_backend(&self, lua: Lua, id: &str, mode: &str) -> LuaBackend {
        let mut backend = match self.ready().tcp_tls {
            None => self.lua_backend_with(lua, self.ready().tcp, &[id, mode]),
            Some(to) => {
                let ca = Authority::get().file();
                self.lua_backend_with(lua, to, &[id, mode, "", "", &ca.to_string_lossy()])
            }
        };
        backend.line("READY");
        backend
    }

    /// Starts it with these arguments behind host and port, and does not wait.
    pub fn lua_backend_with(&self, lua: Lua, to: SocketAddr, arguments: &[&str]) -> LuaBackend {
        let mut command = lua.command();
        command.arg("tests/lua/backend.lua");
        command.args([&to.ip().to_string(), &to.port().to_string()]);
        command.args(arguments);
        let process = Process::start(lua.program(), command);
        LuaBackend { process, taken: 0 }
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

    /// Waits for a line of its log with these words.
    pub fn log_contains(&self, words: &str) -> String {
        self.process.wait_log(words)
    }

    /// Waits for the program to end by itself.
    pub fn wait_exit(&mut self) -> Option<i32> {
        self.process.wait_exit(DEADLINE)
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
