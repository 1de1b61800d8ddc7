//! Sending and receiving under a total deadline, and the options of listeners.
//!
//! Every call tries the socket first and polls only when it must wait, so the usual case costs one system call. Knows
//! nothing of HTTP.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn` (4,096 since Linux 5.4).
const BACKLOG: i32 = 4096;

/// How long sent bytes may stay unacknowledged before the kernel gives the peer up.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Silence before the kernel asks whether the peer is still there, and between its questions.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Listens on `addr`; port 0 lets the system choose.
///
/// The connections' options are set here as well, for on Linux they inherit them: no delay, keepalive, user timeout. That
/// saves three system calls a connection.
///
/// # Errors
/// The address is in use, not this machine's, or not allowed.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    set_options(&socket)?;
    socket.bind(&SockAddr::from(addr))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Makes of `listener`, which somebody else opened, what [`listen`] gives.
///
/// # Errors
/// The system does not take an option.
pub fn adopt(listener: TcpListener) -> io::Result<TcpListener> {
    let socket = Socket::from(listener);
    set_options(&socket)?;
    Ok(socket.into())
}

/// The options of a listener's connections.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// What a receive came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, at least one, were added.
    Bytes(usize),
    /// The peer sends no more.
    End,
    /// The time is over.
    TimedOut,
    /// The connection is gone.
    Broken,
}

/// Appends what is there to `buffer`, within its capacity; waits for it until `deadline`, and no longer.
pub fn receive_until(socket: impl AsFd, buffer: &mut Vec<u8>, deadline: Instant) -> Received {
    loop {
        // Asked first each time: a peer that always has one more byte must not outrun its deadline.
        let now = Instant::now();
        if now >= deadline {
            return Received::TimedOut;
        }
        match receive(&socket, buffer, RecvFlags::DONTWAIT) {
            Ok(received) => return received,
            Err(Errno::AGAIN) => {}
            Err(_) => return Received::Broken,
        }
        if !wait(&socket, PollFlags::IN, deadline.duration_since(now)) {
            return Received::TimedOut;
        }
    }
}

/// Appends what is there to `buffer`, within its capacity, without waiting; `None`: nothing is.
pub fn receive_now(socket: impl AsFd, buffer: &mut Vec<u8>) -> Option<Received> {
    match receive(&socket, buffer, RecvFlags::DONTWAIT) {
        Ok(received) => Some(received),
        Err(Errno::AGAIN) => None,
        Err(_) => Some(Received::Broken),
    }
}

/// Appends to `buffer`, within its capacity; waits as long as the socket's own receive timeout says.
pub fn receive_waiting(socket: impl AsFd, buffer: &mut Vec<u8>) -> Received {
    match receive(&socket, buffer, RecvFlags::empty()) {
        Ok(received) => received,
        Err(Errno::AGAIN) => Received::TimedOut,
        Err(_) => Received::Broken,
    }
}

fn receive(socket: impl AsFd, buffer: &mut Vec<u8>, flags: RecvFlags) -> Result<Received, Errno> {
    loop {
        return match recv(&socket, spare_capacity(buffer), flags) {
            Ok((0, _)) => Ok(Received::End),
            Ok((bytes, _)) => Ok(Received::Bytes(bytes)),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(errno),
        };
    }
}

/// Sends what the socket takes now, and says how much; `None`: the connection is gone.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> Option<usize> {
    loop {
        // NOSIGNAL: a peer that is gone is an error here, not a SIGPIPE to the process.
        return match send(&socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => Some(sent),
            Err(Errno::AGAIN) => Some(0),
            Err(Errno::INTR) => continue,
            Err(_) => None,
        };
    }
}

/// Sends all of `head` and `body`, with one system call if the socket takes it; says whether they went before `deadline`.
pub fn send_until(socket: impl AsFd, head: &[u8], body: &[u8], deadline: Instant) -> bool {
    let (mut head, mut body) = (head, body);
    while !head.is_empty() || !body.is_empty() {
        let slices = [IoSlice::new(head), IoSlice::new(body)];
        // NOSIGNAL: a peer that is gone is an error here, not a SIGPIPE to the process.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&socket, &slices, &mut SendAncillaryBuffer::default(), flags) {
            Ok(sent) => {
                let of_head = sent.min(head.len());
                head = &head[of_head..];
                body = &body[sent - of_head..];
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !wait(&socket, PollFlags::OUT, left) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Waits until the socket is ready or `most` has passed; says whether there is a point in trying again.
pub fn wait(socket: impl AsFd, what: PollFlags, most: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(most) else {
        return false;
    };
    let mut fds = [PollFd::new(&socket, what)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => ready > 0,
        Err(errno) => errno == Errno::INTR,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::thread::{SMALL_STACK_BYTES, spawn};

    #[test]
    fn accepted_connections_inherit_the_listeners_options() -> io::Result<()> {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let _client = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        let socket = Socket::from(accepted);
        assert!(socket.tcp_nodelay()?);
        assert!(socket.keepalive()?);
        assert_eq!(socket.tcp_user_timeout()?, Some(USER_TIMEOUT));
        Ok(())
    }

    #[test]
    fn a_peer_that_reads_nothing_is_given_up_at_the_deadline() -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        let large = vec![0; 8 * 1024 * 1024];
        let start = Instant::now();
        let most = Duration::from_millis(50);
        assert!(!send_until(&ours, b"head", &large, start + most));
        assert!(start.elapsed() >= most);
        drop(theirs);
        assert!(!send_until(&ours, b"head", &[], Instant::now() + most));
        Ok(())
    }

    #[test]
    fn what_is_sent_in_parts_arrives_whole() -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        let large: Vec<u8> = (0..8 * 1024 * 1024u32).map(|n| (n >> 8) as u8).collect();
        let reader = spawn("reader", SMALL_STACK_BYTES, {
            let expected = [b"head".as_slice(), &large].concat();
            move || {
                let mut got = Vec::new();
                assert!(theirs.read_to_end(&mut got).is_ok());
                assert!(got == expected, "{} bytes came otherwise", got.len());
            }
        })?;
        let deadline = Instant::now() + Duration::from_secs(20);
        assert!(send_until(&ours, b"head", &large, deadline));
        drop(ours);
        drop(reader);
        Ok(())
    }

    #[test]
    fn a_peer_that_always_has_more_does_not_outrun_the_deadline() -> io::Result<()> {
        let (ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(&[0; 1000])?;
        let mut buffer = Vec::with_capacity(1);
        let late = Instant::now();
        assert_eq!(receive_until(&ours, &mut buffer, late), Received::TimedOut);
        assert_eq!(receive_now(&ours, &mut buffer), Some(Received::Bytes(1)));
        Ok(())
    }
}
