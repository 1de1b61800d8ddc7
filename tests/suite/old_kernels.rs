//! The relay on Linux 3.10, the kernel of CentOS 7: strace answers every later call to the system with ENOSYS, as that kernel
//! would.

use std::process::Command;
use std::{env, fs};

use rustix::process::Signal;

use super::readme::page;
use crate::support::{DEADLINE, Setup, UNDER, eventually};

/// Calls that came after Linux 3.10 and that a program such as this one, its libraries or glibc may try.
const LATER: &str = "renameat2,seccomp,getrandom,memfd_create,bpf,execveat,userfaultfd,membarrier,mlock2,copy_file_range,\
                     preadv2,pwritev2,pkey_mprotect,pkey_alloc,pkey_free,statx,rseq,io_uring_setup,io_uring_enter,\
                     pidfd_send_signal,pidfd_open,pidfd_getfd,clone3,close_range,openat2,faccessat2,epoll_pwait2,futex_waitv,\
                     sched_setattr,sched_getattr";

/// Whether programs may be traced here; if not, says so loudly.
fn may_trace() -> bool {
    let tried = Command::new("strace")
        .args(["-q", "-o", "/dev/null", "true"])
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        eprintln!("NOT TESTED: strace may not trace here");
    }
    may
}

fn under() -> String {
    format!("strace -D -f -q -o calls.txt -e trace={LATER} -e inject={LATER}:error=ENOSYS")
}

/// The outbox's own tests, every relay of theirs traced.
#[test]
fn the_outbox_keeps_its_promises_on_the_calls_of_linux_3_10() {
    if !may_trace() {
        return;
    }
    let tests = env::current_exe().expect("the tests");
    let output = Command::new(tests)
        .args(["outbox::", "--test-threads=4"])
        .env(UNDER, under())
        .output()
        .expect("the tests again");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains(" 0 passed"), "{told}");
}

#[test]
fn the_whole_relay_runs_on_the_calls_of_linux_3_10() {
    // What .ci/release holds the binary to, and what follows.
    assert!(page("README.md").contains("Linux 3.10 and glibc 2.17"));
    if !may_trace() {
        return;
    }
    let fragment = "[http]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }\n[delivery]\nundelivered = \"store\"\n\
                    [tcp]\nsecrets = [\"a-secret-of-enough-length\"]\n[log]\nfile = \"payrelay.log\"";
    let under: &'static str = under().leak();
    let mut relay = Setup::with(fragment).certified().under(under).start();
    let token = crate::support::token("a-secret-of-enough-length", "till-7");

    // The demo: a callback through TLS reaches a backend with a token, and its ACK is the answer.
    let mut till = relay.backend_with("till-7", &format!("token={token}"));
    let answer = relay.post("/notify/till-7", b"hello");
    till.message().ack();
    assert_eq!(answer.answer().outcome(), "delivered");
    drop(till);
    eventually("the session has ended", || {
        relay.metric("payrelay_sessions") == 0.0
    });
    // The outbox: stored, synced, there after a crash, delivered.
    assert_eq!(
        relay.post("/notify/till-7", b"kept").answer().outcome(),
        "stored"
    );
    relay.signal(Signal::HUP);
    eventually("it is reloaded", || {
        fs::read_to_string(relay.path("payrelay.log")).is_ok_and(|log| log.contains("reloaded"))
    });
    relay.signal(Signal::KILL);
    relay.wait_exit(DEADLINE);
    let calls = fs::read_to_string(relay.path("calls.txt")).expect("strace's file");
    assert!(
        calls.contains("ENOSYS") && calls.contains("INJECTED"),
        "nothing was refused: {calls}"
    );
    relay.start_again(Setup::with(fragment).under(under));
    let mut till = relay.backend_with("till-7", &format!("token={token}"));
    till.expect("MSG id=* try=* =*", b"kept").ack();
    eventually("the outbox is empty", || {
        relay.metric("payrelay_outbox_messages{state=\"pending\"}") == 0.0
    });
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(DEADLINE), Some(0));
}
