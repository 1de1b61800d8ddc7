//! A loop that hangs or panics is reported, and one that is idle is not.

use super::*;

fn pulse(name: &str) -> Pulse {
    Pulse::new(Role::vital(name, "nothing works"))
}

#[test]
fn a_turn_that_does_not_end_hangs_and_an_idle_loop_does_not() {
    let pulse = pulse("test-hang");
    let began = Instant::now();
    let at = |seconds| began + Duration::from_secs(seconds);
    let state = &pulse.0;
    state.look(began, false);
    for second in 1..60 {
        state.look(at(second), false);
    }
    assert_eq!(state.ailment(at(60)), None, "idle");
    pulse.busy();
    state.look(at(60), false);
    state.look(at(64), false);
    assert_eq!(state.ailment(at(64)), None, "not long enough");
    let words = |at| state.ailment(at).map(|ailment| ailment.words);
    let hung = "thread test-hang has hung for 7 s: nothing works; restart payrelay if that goes on";
    assert_eq!(words(at(67)).as_deref(), Some(hung));
    pulse.busy();
    assert_eq!(words(at(67)), None, "one step further");
    state.look(at(67), false);
    state.look(at(127), true);
    assert_eq!(words(at(127)), None, "the whole process stood still");
    pulse.idle();
    assert_eq!(words(at(200)), None);
}

#[test]
fn a_panic_is_reported_and_the_loop_is_started_again() {
    let (tell, told) = bounded(8);
    let (go_on, wait) = bounded::<()>(0);
    let mut calls = 0;
    let thread = supervise(
        Role::vital("test-panic", "?"),
        SMALL_STACK_BYTES,
        move |pulse| {
            pulse.busy();
            calls += 1;
            let _ = tell.send(calls);
            assert!(calls > 1, "the first one fails");
            pulse.idle();
            let _ = wait.recv();
        },
    );
    let within = Duration::from_secs(20);
    assert_eq!(told.recv_timeout(within), Ok(1));
    assert_eq!(told.recv_timeout(within), Ok(2));
    let own = |threads: Vec<ThreadReading>| {
        threads
            .into_iter()
            .find(|thread| thread.name == "test-panic")
    };
    let reading = own(threads()).expect("it is known");
    assert_eq!((reading.is_well, reading.restarts), (false, 1));
    assert!(
        ailments()
            .iter()
            .any(|ailment| ailment.words.starts_with("thread test-panic panicked ")),
        "{:?}",
        ailments()
    );
    drop(go_on);
    drop(thread);
    assert_eq!(own(threads()), None, "a loop that has ended is not missed");
}
