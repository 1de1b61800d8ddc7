//! A connection on which notifications are posted, one after the other, without waiting for the socket.

use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::answers::ANSWER_BYTES_MAX;
use super::plan::{Endpoint, Plan};
use super::poller::Poller;
use super::stamp::BodyStamp;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection to a relay, and the post on it.
#[derive(Debug, Default)]
pub struct ProviderConnection {
    /// What it is called among the ready.
    number: usize,
    /// `None`: to be opened for the next post.
    pub socket: Option<TcpStream>,
    /// The one on its way.
    pub post: Option<BodyStamp>,
    /// Its head and the stamp of its body.
    head: Vec<u8>,
    /// How much of the head and of what follows it has gone.
    gone: usize,
    /// Bytes of the answer.
    pub came: Vec<u8>,
    /// When anything last happened here, in nanoseconds since the run began.
    pub used_ns: u64,
}

impl ProviderConnection {
    /// The one of this number, not opened yet.
    pub fn at(number: usize) -> Self {
        Self {
            number,
            ..Self::default()
        }
    }

    /// Connects to the relay whose turn it is.
    ///
    /// # Errors
    /// It is not there, or the system has no room.
    pub fn open(&mut self, plan: &Plan, poller: &Poller, now_ns: u64) -> io::Result<()> {
        let place = &plan.http[self.number % plan.http.len()];
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", place.text));
        let socket = TcpStream::connect_timeout(&place.address, CONNECT_DEADLINE).map_err(named)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        poller.add(&socket, self.number as u64)?;
        self.socket = Some(socket);
        self.came.clear();
        self.used_ns = now_ns;
        Ok(())
    }

    /// Begins to write a post.
    pub fn begin(&mut self, post: BodyStamp, plan: &Plan) {
        let Endpoint { text, .. } = &plan.http[self.number % plan.http.len()];
        self.head.clear();
        let _ = write!(
            self.head,
            "POST {} HTTP/1.1\r\nHost: {text}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            plan.target_of(plan.backend_of(post.n)),
            plan.body_bytes
        );
        post.write(&mut self.head);
        self.gone = 0;
        self.post = Some(post);
    }

    /// Writes what the socket takes of the post on its way.
    pub fn write(&mut self, plan: &Plan) -> io::Result<()> {
        let Some(socket) = &mut self.socket else {
            return Ok(());
        };
        let head_bytes = self.head.len();
        while self.post.is_some() && self.gone < head_bytes + plan.after_stamp.len() {
            let head = &self.head[self.gone.min(head_bytes)..];
            let rest = &plan.after_stamp[self.gone.saturating_sub(head_bytes)..];
            match socket.write_vectored(&[IoSlice::new(head), IoSlice::new(rest)]) {
                Ok(written) => self.gone += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has come; says whether the connection is over.
    pub fn read(&mut self) -> bool {
        let mut piece = [0; 4096];
        let Some(socket) = &mut self.socket else {
            return false;
        };
        loop {
            match socket.read(&mut piece) {
                Ok(0) => return true,
                Ok(came) => {
                    self.came.extend_from_slice(&piece[..came]);
                    if came < piece.len() {
                        return false;
                    }
                    if self.came.len() > 2 * ANSWER_BYTES_MAX {
                        return true;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }
}
