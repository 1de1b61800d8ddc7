//! Many messages through each adapter: what they leave in memory, and what is lost when something is killed under them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::{connected, relay_for, same_port, stop};
use crate::support::{Adapter, Gate, Lua, LuaSetup, RawHttp, eventually, heavy, post_request};

/// In flight at once: no more than the credit, so that nothing is refused as too much.
const PROVIDERS: usize = 12;

/// What a program may grow by after it has warmed up: its collector's noise, and not a kilobyte a message.
const GROWTH_KIB_MAX: usize = 4 * 1024;

/// Posts `count` bodies from several providers at once, each on one connection as long as it lasts; the ids that were answered
/// ok. `answered` counts all answers meanwhile.
fn post_all(gate: &Gate, count: usize, body: &[u8], answered: &AtomicUsize) -> Vec<String> {
    let request = post_request("/notify/till-7", &[], body);
    let taken = AtomicUsize::new(0);
    let ok = Mutex::new(Vec::new());
    let provide = || {
        let mut connection = RawHttp::connect(gate.clone());
        while taken.fetch_add(1, Ordering::SeqCst) < count {
            // A relay that was killed answers nobody any more.
            let Ok(answer) = connection.exchange(&request) else {
                return;
            };
            if answer.status == 200 {
                ok.lock().push(answer.id().to_owned());
            }
            answered.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        for _ in 0..PROVIDERS {
            scope.spawn(provide);
        }
    });
    ok.into_inner()
}

fn memory(adapter: Adapter, messages: usize) {
    let relay = relay_for(adapter, "[log]\nlevel = \"warn\"");
    let till = connected(&relay, &LuaSetup::new(adapter, "till-7", "quiet"));
    let body = [b'x'; 8 * 1024];
    let post = |count: usize| {
        let ok = post_all(&relay.gate(), count, &body, &AtomicUsize::new(0));
        assert_eq!(ok.len(), count, "{}", till.printed());
        till.process().rss_kib()
    };
    // As many to warm up: nginx's Lua reaches its full size only after some ten thousand.
    let warm = post(messages);
    let grown = post(messages).saturating_sub(warm);
    eprintln!("{adapter:?}: {grown} KiB more after {messages} messages, from {warm}");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more, from {warm}");
    stop(&relay, till);
}

pub fn memory_stays_flat(adapter: Adapter) {
    memory(adapter, 1600);
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn memory_stays_flat_over_fifty_thousand_messages() {
    let _alone = heavy();
    for adapter in [
        Adapter::LuaSocket(Lua::V54),
        Adapter::LuaSec(Lua::V54),
        Adapter::Copas(Lua::Jit),
        Adapter::Cqueues(Lua::V54),
        Adapter::Luv(Lua::V54),
        Adapter::OpenResty,
        Adapter::Skynet(Lua::V54),
        Adapter::Skynet(Lua::V55),
        Adapter::Push(Lua::V51),
    ] {
        memory(adapter, 50_000);
    }
}

/// Everything that was answered ok, as delivered or as stored, is handled in the end.
pub fn kills_lose_nothing(adapter: Adapter) {
    let store = "[delivery]\nundelivered = \"store\"\nack_deadline = \"2s\"\n\
        [outbox]\nretry_first = \"100ms\"\nretry_max = \"1s\"\n";
    let mut relay = relay_for(adapter, store);
    let mut till = connected(&relay, &LuaSetup::new(adapter, "till-7", "ack"));
    let mut ok = Vec::new();
    let mut printed = String::new();
    // First the backend, then the relay.
    for kills_relay in [false, true] {
        let answered = AtomicUsize::new(0);
        let gate = relay.gate();
        let answers = thread::scope(|scope| {
            let posting = scope.spawn(|| post_all(&gate, 300, b"pay", &answered));
            eventually("traffic", || answered.load(Ordering::SeqCst) >= 60);
            if kills_relay {
                relay.restart_with(&(store.to_owned() + &same_port(&relay)));
            } else {
                till.kill();
                printed += &till.printed();
                till = connected(&relay, &LuaSetup::new(adapter, "till-7", "ack"));
            }
            posting.join().expect("the providers")
        });
        assert!(answers.len() >= 60);
        ok.extend(answers);
    }
    let mut missing = ok;
    eventually("everything that was answered ok is handled", || {
        let all = format!("{printed}{}", till.printed());
        missing.retain(|id| !all.contains(&format!("GOT {id} ")));
        missing.is_empty()
    });
    till.line("READY");
    stop(&relay, till);
}
