//! Under strain: what becomes of connections for which no thread is to be had.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// Runs `work` while no thread can be started in this process.
fn without_threads(work: impl FnOnce()) {
    let before = getrlimit(Resource::As);
    let limit = |current| {
        let maximum = before.maximum;
        setrlimit(Resource::As, Rlimit { current, maximum }).expect("a limit");
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
        let kib = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = kib.expect("a size in KiB");
        limit(Some((kib + 64) * 1024)); // too little for any stack
        if spawn("none", 256 * 1024, || {}).is_err() {
            break;
        }
        // A thread that has just begun gave back what it had reserved too much.
        assert!(Instant::now() < deadline, "there is always a thread");
        limit(before.current);
    }
    work();
    limit(before.current);
}

#[test]
fn a_connection_without_a_thread_is_told_so_and_the_others_are_served() {
    alone(
        "edge::tests::strain::a_connection_without_a_thread_is_told_so_and_the_others_are_served",
        || {
            let setup = open(limits(), 10, Echo);
            let mut kept = setup.client();
            assert_eq!(kept.post("a").answer().status, 200);
            without_threads(|| {
                let mut refused = setup.client();
                let answer = refused.answer();
                assert_eq!((answer.status, answer.outcome()), (503, "limit"));
                assert!(answer.says_close());
                refused.expect_end();
                assert_eq!(setup.word(), "limit");
                assert_eq!(kept.post("b").answer().body, "POST /x b");
            });
            setup.wait_connections(1);
            setup.wait_descriptors(7);
            assert_eq!(setup.client().post("c").answer().status, 200);
        },
    );
}
