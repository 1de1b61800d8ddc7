//! Lua 5.5, which Debian does not have: the suite's own binary is its interpreter, as a program of its own. Sockets are
//! the system's, behind the names of LuaSocket (there is none for this Lua) as far as the client and the tests use them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mlua::{
    AnyUserData, IntoLuaMulti, Lua, LuaString, Result, Table, UserData, UserDataMethods, Value,
    Variadic,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The test that is the interpreter.
const INTERPRETER: &str = "support::lua55::interpreter";

/// A command that runs this Lua; the program and its arguments are to be added. (For the test harness they are names of
/// tests that do not exist.)
pub fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["-q", "--nocapture", "--ignored", "--exact", INTERPRETER]);
    command
}

/// A TCP socket: like LuaSocket's, it gives nil and why, and what it did take or get.
#[derive(Default)]
struct Tcp {
    stream: Option<TcpStream>,
    /// `None`: for ever.
    timeout: Option<Duration>,
}

impl Tcp {
    fn connect(&mut self, host: &str, port: u16) -> std::result::Result<(), String> {
        let ip = host.parse().map_err(|_| "not an address".to_owned())?;
        let to = SocketAddr::new(ip, port);
        let within = self.timeout.unwrap_or(Duration::from_secs(60));
        let stream = TcpStream::connect_timeout(&to, within).map_err(|error| error.to_string())?;
        stream.set_nonblocking(true).map_err(|e| e.to_string())?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Calls `io` until it is done, waiting for `flags` in between; `Err` is why it was not.
    fn attempt(
        &mut self,
        flags: PollFlags,
        mut io: impl FnMut(&mut TcpStream) -> std::io::Result<bool>,
    ) -> std::result::Result<(), &'static str> {
        let stream = self.stream.as_mut().ok_or("closed")?;
        loop {
            match io(stream) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), flags)];
                    let wait = self.timeout.map(timespec);
                    if poll(&mut fds, wait.as_ref()).unwrap_or(0) == 0 {
                        return Err("timeout");
                    }
                }
                Err(_) => return Err("closed"),
            }
        }
    }
}

fn timespec(span: Duration) -> Timespec {
    Timespec::try_from(span).expect("a span")
}

/// A span as LuaSocket takes it: none, or a negative one, is for ever.
fn span(seconds: Option<f64>) -> Option<Duration> {
    seconds
        .filter(|seconds| *seconds >= 0.0)
        .map(Duration::from_secs_f64)
}

impl UserData for Tcp {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method_mut("settimeout", |_, tcp, seconds: Option<f64>| {
            tcp.timeout = span(seconds);
            Ok(1)
        });
        methods.add_method_mut("setoption", |_, tcp, (name, on): (String, bool)| {
            assert_eq!(name, "tcp-nodelay");
            let set = tcp.stream.as_ref().map(|stream| stream.set_nodelay(on));
            Ok(set.is_some_and(|set| set.is_ok()))
        });
        methods.add_method_mut("connect", |lua, tcp, (host, port): (String, u16)| match tcp
            .connect(&host, port)
        {
            Ok(()) => (1,).into_lua_multi(lua),
            Err(why) => (Value::Nil, why).into_lua_multi(lua),
        });
        methods.add_method_mut(
            "send",
            |lua, tcp, (bytes, from): (LuaString, Option<usize>)| {
                let bytes = bytes.as_bytes();
                let mut at = from.unwrap_or(1) - 1;
                let sent = tcp.attempt(PollFlags::OUT, |stream| {
                    at += stream.write(&bytes[at..])?;
                    Ok(at == bytes.len())
                });
                match sent {
                    Ok(()) => (at,).into_lua_multi(lua),
                    Err(why) => (Value::Nil, why, at).into_lua_multi(lua),
                }
            },
        );
        methods.add_method_mut("receive", |lua, tcp, count: usize| {
            let (mut bytes, mut got) = (vec![0; count], 0);
            let received = tcp.attempt(PollFlags::IN, |stream| {
                match stream.read(&mut bytes[got..])? {
                    0 => return Err(ErrorKind::UnexpectedEof.into()),
                    n => got += n,
                }
                Ok(got == count)
            });
            let text = lua.create_string(&bytes[..got])?;
            match received {
                Ok(()) => (text,).into_lua_multi(lua),
                Err(why) => (Value::Nil, why, text).into_lua_multi(lua),
            }
        });
        methods.add_method_mut("close", |_, tcp, ()| {
            tcp.stream = None;
            Ok(1)
        });
    }
}

/// Those of `sockets` that are ready, in a table.
fn select(
    lua: &Lua,
    (reading, writing, seconds): (Option<Table>, Option<Table>, Option<f64>),
) -> Result<(Table, Table)> {
    let mut wanted: Vec<(AnyUserData, TcpStream, PollFlags)> = Vec::new();
    for (table, flags) in [(reading, PollFlags::IN), (writing, PollFlags::OUT)] {
        let Some(table) = table else { continue };
        for socket in table.sequence_values::<AnyUserData>() {
            let socket = socket?;
            let stream = socket
                .borrow::<Tcp>()?
                .stream
                .as_ref()
                .map(|s| s.try_clone());
            if let Some(Ok(stream)) = stream {
                wanted.push((socket, stream, flags));
            }
        }
    }
    let mut fds: Vec<PollFd<'_>> = wanted
        .iter()
        .map(|(_, stream, flags)| PollFd::from_borrowed_fd(stream.as_fd(), *flags))
        .collect();
    poll(&mut fds, span(seconds).map(timespec).as_ref()).expect("poll");
    let (readable, writable) = (lua.create_table()?, lua.create_table()?);
    for ((socket, _, flags), fd) in wanted.iter().zip(&fds) {
        let ready = if *flags == PollFlags::IN {
            &readable
        } else {
            &writable
        };
        if !fd.revents().is_empty() {
            ready.push(socket)?;
        }
    }
    Ok((readable, writable))
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a time after 1970").as_secs_f64()
}

/// What `require("socket")` gives.
fn socket(lua: &Lua) -> Result<Table> {
    let socket = lua.create_table()?;
    socket.set("tcp", lua.create_function(|_, ()| Ok(Tcp::default()))?)?;
    socket.set("gettime", lua.create_function(|_, ()| Ok(now()))?)?;
    socket.set("select", lua.create_function(select)?)?;
    let sleep = |_: &Lua, seconds: f64| {
        poll(&mut [], span(Some(seconds)).map(timespec).as_ref()).expect("poll");
        Ok(())
    };
    socket.set("sleep", lua.create_function(sleep)?)?;
    Ok(socket)
}

/// Rust's Lua is safe, and so has no library `debug`; the client and the tests want a traceback only.
fn debug(lua: &Lua) -> Result<Table> {
    let traceback = lua.create_function(|lua, args: Variadic<Value>| {
        let text = args.iter().find_map(|arg| arg.as_string());
        let level = args.iter().find_map(Value::as_usize).unwrap_or(1);
        lua.traceback(text.and_then(|text| text.to_str().ok()).as_deref(), level)
    })?;
    let debug = lua.create_table()?;
    debug.set("traceback", traceback)?;
    Ok(debug)
}

/// Runs the program that follows the interpreter's own arguments.
fn run(program: &str, args: &[String]) -> Result<()> {
    let lua = Lua::new();
    let globals = lua.globals();
    assert_eq!(globals.get::<String>("_VERSION")?, "Lua 5.5");
    globals.set("debug", debug(&lua)?)?;
    globals.set("arg", lua.create_sequence_from(args.iter().cloned())?)?;
    let loaded: Table = globals.get::<Table>("package")?.get("loaded")?;
    loaded.set("socket", socket(&lua)?)?;
    let text = std::fs::read_to_string(program).expect(program);
    lua.load(text).set_name(format!("@{program}")).exec()
}

#[test]
#[ignore = "no test: it runs what Lua::V55 starts"]
fn interpreter() {
    let mut args = std::env::args()
        .skip_while(|arg| arg != INTERPRETER)
        .skip(1);
    // With all ignored tests it is started, too.
    let Some(program) = args.next() else { return };
    let args: Vec<String> = args.collect();
    if let Err(error) = run(&program, &args) {
        eprintln!("{error}");
        #[expect(clippy::exit, reason = "this is the program itself")]
        std::process::exit(1);
    }
}
