//! The Lua client with every adapter that can run here: one list of scenarios, each on a relay of its own.

mod connection;
mod coroutines;
mod examples;
mod openresty;
mod rude_relay;
mod traffic;

use std::net::SocketAddr;

use crate::support::{
    Adapter, Lua, LuaBackend, LuaSetup, Pending, Random, Relay, adler32, eventually, held_addr,
    hold, token,
};

/// For each adapter a module with a test for each scenario of the named list.
macro_rules! adapters {
    ($($list:ident { $($name:ident: $adapter:expr;)* })*) => {
        $($(mod $name {
            use super::*;
            $list!($adapter);
        })*)*
    };
}

macro_rules! scenarios {
    ($adapter:expr; $($($path:ident)::+),*) => {
        $(scenarios!(@one $adapter; $($path)::+);)*
    };
    (@one $adapter:expr; $scenario:ident) => {
        #[test]
        fn $scenario() {
            super::$scenario($adapter);
        }
    };
    (@one $adapter:expr; $module:ident::$scenario:ident) => {
        #[test]
        fn $scenario() {
            super::$module::$scenario($adapter);
        }
    };
}

/// What every adapter is tried with.
macro_rules! all_in_one_thread {
    ($adapter:expr) => {
        scenarios!($adapter; all_byte_values, empty_body, body_of_one_mib, burst_beyond_the_credit, connection::relay_restarted,
            connection::takeover, slow_handler_with_touch, handler_error, token_refused, connection::relay_draining, connection::heartbeats_while_idle,
            connection::silence, connection::relay_stopped_for_a_while, connection::close_with_one_in_flight, send_publish_and_subscribe, pause_is_kept,
            connection::slow_handlers_over_a_hand_over, traffic::kills_lose_nothing, traffic::memory_stays_flat,
            rude_relay::slow_body, rude_relay::endless_line, rude_relay::closes_with_messages_in_flight);
    };
}

/// And what takes a library with coroutines.
macro_rules! all {
    ($adapter:expr) => {
        all_in_one_thread!($adapter);
        scenarios!($adapter; coroutines::send_that_waits, coroutines::close_that_waits,
            coroutines::stuck_callback);
    };
}

/// Under another Lua: the bytes, an error through pcall, and a handler that yields where there are coroutines.
macro_rules! some {
    ($adapter:expr) => {
        scenarios!($adapter; all_byte_values, handler_error, slow_handler_with_touch);
    };
}

adapters! {
    all_in_one_thread {
        luasec_on_lua54: Adapter::LuaSec(Lua::V54);
        luasocket_on_lua54: Adapter::LuaSocket(Lua::V54);
        luasocket_on_lua55: Adapter::LuaSocket(Lua::V55);
        push_on_lua51: Adapter::Push(Lua::V51);
        push_on_lua55: Adapter::Push(Lua::V55);
    }
    all {
        copas_on_luajit: Adapter::Copas(Lua::Jit);
        cqueues_on_lua54: Adapter::Cqueues(Lua::V54);
        luv_on_lua54: Adapter::Luv(Lua::V54);
        openresty_on_nginx: Adapter::OpenResty;
        skynet_on_lua54: Adapter::Skynet(Lua::V54);
        skynet_on_lua55: Adapter::Skynet(Lua::V55);
    }
    some {
        luasocket_on_lua51: Adapter::LuaSocket(Lua::V51);
        luasocket_on_luajit: Adapter::LuaSocket(Lua::Jit);
        luasocket_on_lua53: Adapter::LuaSocket(Lua::V53);
        luasec_on_lua51: Adapter::LuaSec(Lua::V51);
        luasec_on_luajit: Adapter::LuaSec(Lua::Jit);
        luasec_on_lua53: Adapter::LuaSec(Lua::V53);
        copas_on_lua51: Adapter::Copas(Lua::V51);
        cqueues_on_lua51: Adapter::Cqueues(Lua::V51);
        cqueues_on_lua53: Adapter::Cqueues(Lua::V53);
        luv_on_luajit: Adapter::Luv(Lua::Jit);
        luv_on_lua53: Adapter::Luv(Lua::V53);
        skynet_on_lua53: Adapter::Skynet(Lua::V53);
        push_on_luajit: Adapter::Push(Lua::Jit);
    }
}

/// The client's tests that need no socket, as tests/run has them for each Lua of Debian's.
#[test]
fn its_own_tests_pass_under_lua55() {
    for program in ["tests/lua/core_test.lua", "tests/lua/client_test.lua"] {
        let run = Lua::V55.command().arg(program).output().expect("Lua 5.5");
        assert!(run.status.success(), "{program}: {run:?}");
    }
}

/// A relay and a backend that is connected to it.
fn pair(adapter: Adapter, mode: &str) -> (Relay, LuaBackend) {
    pair_with(adapter, mode, "")
}

fn pair_with(adapter: Adapter, mode: &str, fragment: &str) -> (Relay, LuaBackend) {
    let relay = relay_for(adapter, fragment);
    let till = connected(&relay, &LuaSetup::new(adapter, "till-7", mode));
    (relay, till)
}

fn relay_for(adapter: Adapter, fragment: &str) -> Relay {
    Relay::backends_via(adapter.via(), fragment)
}

/// Where its backends come.
fn door(relay: &Relay) -> SocketAddr {
    relay.ready().tcp_tls.unwrap_or(relay.ready().tcp)
}

fn connected(relay: &Relay, setup: &LuaSetup) -> LuaBackend {
    let mut till = setup.start(door(relay));
    till.line("READY");
    till
}

/// The fragment with which a relay comes back to where its backends look for it.
fn same_port(relay: &Relay) -> String {
    let ready = relay.ready();
    match ready.tcp_tls {
        None => format!("[tcp]\nlisten = \"{}\"", ready.tcp),
        Some(tls) => {
            format!("[tcp.tls]\nlisten = \"{tls}\"\ncert = \"cert.pem\"\nkey = \"key.pem\"")
        }
    }
}

fn served(relay: &Relay, till: &mut LuaBackend, body: &[u8]) {
    let answer = relay.post("/notify/till-7", body).answer();
    assert_eq!(answer.told(), (200, "delivered"));
    let got = till.got();
    assert_eq!((got.id.as_str(), got.len), (answer.id(), body.len()));
    assert_eq!(got.adler32, adler32(body));
}

/// A clean end: what said stop is acknowledged, and the program is over.
fn stop(relay: &Relay, mut till: LuaBackend) {
    let answer = relay.post("/notify/till-7", b"stop").answer();
    assert_eq!(answer.told(), (200, "delivered"));
    till.expect_closed();
}

fn hex_served(relay: &Relay, till: &mut LuaBackend, body: &[u8]) {
    let answer = relay.post("/notify/till-7", body).answer();
    assert_eq!(answer.told(), (200, "delivered"));
    let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(till.hex(), (answer.id().to_owned(), hex));
}

fn all_byte_values(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "echo-hex");
    let every: Vec<u8> = (0..=255).collect();
    let backwards: Vec<u8> = every.iter().rev().copied().collect();
    for body in [
        &every[..],
        &backwards,
        b"\r\n\r\r\n\0",
        b"\n",
        b"ACK id=1\nMSG =3\n",
    ] {
        hex_served(&relay, &mut till, body);
    }
    stop(&relay, till);
}

fn empty_body(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "echo-hex");
    for body in [&b""[..], b"x", b"", b""] {
        hex_served(&relay, &mut till, body);
    }
    stop(&relay, till);
}

fn body_of_one_mib(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "ack");
    let body = Random::new().bytes(1024 * 1024);
    served(&relay, &mut till, &body);
    served(&relay, &mut till, b"and the next");
    stop(&relay, till);
}

fn burst_beyond_the_credit(adapter: Adapter) {
    let relay = relay_for(adapter, "");
    let mut setup = LuaSetup::new(adapter, "till-7", "slow:0.02");
    setup.max = 4;
    let mut till = connected(&relay, &setup);
    let burst: Vec<Pending> = (0..40)
        .map(|n| relay.post("/notify/till-7", format!("number {n}").as_bytes()))
        .collect();
    let mut ids: Vec<String> = Vec::new();
    for answer in burst {
        let answer = answer.answer();
        assert_eq!(answer.told(), (200, "delivered"));
        ids.push(answer.id().to_owned());
    }
    let mut got: Vec<String> = (0..40).map(|_| till.got().id).collect();
    ids.sort();
    got.sort();
    assert_eq!(got, ids, "each once");
    stop(&relay, till);
}

fn slow_handler_with_touch(adapter: Adapter) {
    // Without TOUCH the relay would forget it after 1.5 s, and the ACK would be one for an unknown id. To who sends TOUCH it
    // sends no PING, so after 1.5 s of silence the client sends one, and has until 2.5 s to hear the PONG.
    let (relay, mut till) = pair_with(
        adapter,
        "slow:3",
        "[tcp]\nack_timeout = \"1500ms\"\nheartbeat = \"1s\"",
    );
    served(&relay, &mut till, b"takes three seconds");
    assert_eq!(
        relay.metric("payrelay_receipts_total{result=\"expired\"}"),
        0.0
    );
    assert_eq!(till.count("READY"), 1, "{}", till.printed());
    stop(&relay, till);
}

fn handler_error(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "error");
    for _ in 0..2 {
        let answer = relay.post("/notify/till-7", b"CANARY-body").answer();
        assert_eq!(answer.told(), (503, "refused"));
        till.line("RAISED");
    }
    relay.log_contains("the handler failed, as it was told to");
    let printed = till.printed();
    assert!(
        printed.contains("the handler failed, as it was told to"),
        "{printed}"
    );
    assert!(!printed.contains("CANARY"), "a body was printed");
    stop(&relay, till);
}

fn token_refused(adapter: Adapter) {
    let secret = "a-secret-of-some-length-0123456789-0123";
    let (good, bad) = (token(secret, "till-7"), token(secret, "till-8"));
    let relay = relay_for(adapter, &format!("[tcp]\nsecrets = [\"{secret}\"]"));
    let mut setup = LuaSetup::new(adapter, "till-7", "ack");
    setup.token = &bad;
    let mut refused = setup.start(door(&relay));
    let said = refused.line("LOG error the relay said bad-token");
    let wait = said.rsplit_once("next try in ").expect("a wait").1;
    let wait: f64 = wait.trim_end_matches(" s").parse().expect("seconds");
    assert!((30.0..=45.0).contains(&wait), "{wait}");
    assert_eq!(refused.count("READY"), 0);

    setup.token = &good;
    let mut till = connected(&relay, &setup);
    served(&relay, &mut till, b"with the right one");
    for printed in [refused.printed(), till.printed()] {
        assert!(
            !printed.contains(&good) && !printed.contains(&bad),
            "a token was printed"
        );
    }
    stop(&relay, till);
}

fn pause_is_kept(adapter: Adapter) {
    let (mut relay, mut till) = pair(adapter, "pause");
    served(&relay, &mut till, b"pause");
    let waits = |relay: &Relay| {
        let waiting = relay.post("/notify/till-7", b"waits");
        eventually("it waits in the relay", || {
            relay.metric("payrelay_queue_depth") == 1.0
        });
        waiting
    };
    drop(waits(&relay));
    relay.restart_with(&same_port(&relay));
    till.line("READY");
    let waiting = waits(&relay);
    let mut other = relay.backend("till-8");
    other.send("SEND to=till-7 =6\nresume");
    assert_eq!(waiting.answer().told(), (200, "delivered"));
    till.got();
    stop(&relay, till);
}

fn send_publish_and_subscribe(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "bus");
    let mut other = LuaSetup::new(adapter, "till-8", "bus").start(door(&relay));
    for backend in [&mut till, &mut other] {
        backend.line("SUBSCRIBED ok");
    }
    let tell = |what: &str| {
        let answer = relay.post("/notify/till-7", what.as_bytes()).answer();
        assert_eq!(answer.told(), (200, "delivered"));
    };
    tell("publish news to everybody");
    for backend in [&mut till, &mut other] {
        assert_eq!(backend.line("EVENT "), "news to everybody");
    }
    tell("send till-8 good day");
    assert_eq!(other.line("DATA "), "till-7 good day");
    tell("send nobody good day");
    eventually("it knows what became of all three", || {
        till.count("TOLD ok") == 2 && till.count("TOLD offline") == 1
    });
    stop(&relay, till);
}

#[test]
fn a_backend_that_waits_for_a_relay_connects_when_it_comes() {
    let held = hold(SocketAddr::from(([127, 0, 0, 1], 0)));
    let to = held_addr(&held);
    let adapters = [
        Adapter::LuaSocket(Lua::V54),
        Adapter::Copas(Lua::Jit),
        Adapter::Cqueues(Lua::V54),
        Adapter::Luv(Lua::V54),
        Adapter::OpenResty,
        Adapter::Skynet(Lua::V54),
    ];
    let mut waiting: Vec<LuaBackend> = adapters
        .iter()
        .enumerate()
        .map(|(n, adapter)| LuaSetup::new(*adapter, &format!("till-{n}"), "ack").start(to))
        .collect();
    for till in &mut waiting {
        till.line("LOG warn could not connect to ");
    }
    let relay = Relay::with(&format!("[tcp]\nlisten = \"{to}\""));
    for (n, till) in waiting.iter_mut().enumerate() {
        till.line("READY");
        let answer = relay.post(&format!("/notify/till-{n}"), b"x").answer();
        assert_eq!(answer.told(), (200, "delivered"));
    }
}
