//! Who is evicted, who is not, and what a new connection waits for.

use std::io;
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::edge::table::GRACE;
use crate::edge::tests::wait_asleep;

fn table(grace: Duration) -> Arc<ConnectionTable> {
    let mut table = ConnectionTable::new("http", Arc::new(()));
    table.grace = grace;
    Arc::new(table)
}

fn admit(table: &Arc<ConnectionTable>, most: usize) -> io::Result<(Admission, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (stream, peer) = listener.accept()?;
    let fds = FdBudget::with(100);
    Ok((
        table.admit(Transport::new(stream, None), peer, most, &fds, |_| ()),
        client,
    ))
}

fn admitted(table: &Arc<ConnectionTable>) -> io::Result<(ConnectionGuard, Arc<Connection>)> {
    match admit(table, usize::MAX)?.0 {
        Admission::Admitted(guard) => {
            let connection = guard.connection().map(Arc::clone);
            Ok((guard, connection.ok_or(io::ErrorKind::NotFound)?))
        }
        Admission::Full(_) => Err(io::ErrorKind::StorageFull.into()),
    }
}

fn evicted(table: &ConnectionTable) -> Option<Arc<Connection>> {
    match table.evict_longest_waiting() {
        Evicted::Told(connection) => Some(connection),
        Evicted::Unread | Evicted::None => None,
    }
}

#[test]
fn of_evicted_and_whole_exactly_one_wins() -> io::Result<()> {
    let table = table(GRACE);
    let (_guard, connection) = admitted(&table)?;
    assert!(connection.is_whole());
    connection.has_begun(); // its next one
    assert!(evicted(&table).is_none(), "it is busy");
    connection.waits(Instant::now());
    connection.has_begun();
    assert!(evicted(&table).is_some());
    assert!(connection.is_gone());
    assert!(!connection.is_whole(), "it was evicted first");
    assert!(evicted(&table).is_none(), "twice");
    Ok(())
}

#[test]
fn a_lingering_connection_is_evicted_before_a_waiting_one() -> io::Result<()> {
    let table = table(GRACE);
    let (_first, first) = admitted(&table)?;
    let (_second, second) = admitted(&table)?;
    second.lingers();
    assert!(evicted(&table).is_some());
    assert!(second.is_gone() && !first.is_gone());
    Ok(())
}

#[test]
fn closing_ends_only_connections_without_a_part_of_a_request() -> io::Result<()> {
    let table = table(GRACE);
    let (_idle, idle) = admitted(&table)?;
    let (_begun, begun) = admitted(&table)?;
    let (_busy, busy) = admitted(&table)?;
    begun.has_begun();
    assert!(busy.is_whole());
    let (_kept, kept) = admitted(&table)?;
    assert!(kept.is_whole());
    kept.waits(Instant::now() + Duration::from_micros(1));
    table.begin_closing();
    table.end_kept();
    let all = [idle, begun, busy, kept];
    let gone = || all.each_ref().map(|connection| connection.is_gone());
    assert_eq!(gone(), [false, false, false, true]);
    table.end_idle();
    assert_eq!(gone(), [true, false, false, true]);
    Ok(())
}

#[test]
fn a_new_connection_waits_for_one_that_is_just_being_answered() -> io::Result<()> {
    let table = table(Duration::from_secs(20));
    let (guard, connection) = admitted(&table)?;
    assert!(connection.is_whole());
    let theirs = Arc::clone(&table);
    let answered = crate::thread::spawn("answered", 64 * 1024, move || {
        // The new connection is waiting...
        while !theirs.wanted.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        connection.waits(Instant::now());
        theirs.has_begun_to_wait(&connection);
        while !connection.is_gone() {
            std::thread::yield_now();
        }
        drop((connection, guard));
    })?;
    assert!(matches!(admit(&table, 1)?.0, Admission::Admitted(_)));
    drop(answered);
    Ok(())
}

#[test]
fn a_new_connection_waits_for_one_that_is_ending() -> io::Result<()> {
    let table = table(Duration::ZERO);
    let (guard, connection) = admitted(&table)?;
    // Off the list, as when a guard begins to be dropped; its socket is still open.
    table.list.lock().connections.remove(&connection.number);
    let theirs = Arc::clone(&table);
    let newcomer = crate::thread::spawn("newcomer-17", 64 * 1024, move || {
        let came = admit(&theirs, 1);
        assert!(matches!(came, Ok((Admission::Admitted(_), _))));
    })?;
    wait_asleep("newcomer-17");
    drop((connection, guard));
    drop(newcomer);
    assert_eq!(table.present(), 0, "it came in, and has left");
    assert_eq!(table.list.lock().next, 2);
    Ok(())
}
