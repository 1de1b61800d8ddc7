//! The right to answer one request.

use std::fmt;
use std::sync::Arc;

use super::framing::Framing;
use super::pending::Persistence;
use super::refusal::Refusal;
use super::reply::{self, ConnectionHeader, Response};
use super::table::Connection;

/// The right, and the duty, to answer one request, once, from any thread. Dropped unused, it answers 503: the provider must not
/// wait in vain.
pub struct Responder(Option<PendingResponse>);

/// A request that has no answer yet.
struct PendingResponse {
    connection: Arc<Connection>,
    shape: Framing,
}

impl Responder {
    /// Makes the answer due to the request of `shape` that came over `connection`.
    pub(super) fn new(connection: Arc<Connection>, shape: Framing) -> Self {
        connection.answer.begin();
        Self(Some(PendingResponse { connection, shape }))
    }

    /// One that has answered already.
    #[cfg(test)]
    pub(crate) fn used() -> Self {
        Self(None)
    }

    /// Answers. Does not wait, whatever the peer does. An answer that comes after `answer_deadline` is dropped.
    pub fn answer(mut self, reply: &Response) {
        if let Some(due) = self.0.take() {
            due.answer(reply);
        }
    }
}

impl PendingResponse {
    fn answer(&self, reply: &Response) {
        let table = &self.connection.table;
        let persistence = match self.shape.keep_alive && !table.is_closing() {
            true => Persistence::Keep,
            false => Persistence::Close,
        };
        let header = match (persistence, self.shape.http_1_0) {
            (Persistence::Keep, false) => ConnectionHeader::None,
            (Persistence::Keep, true) => ConnectionHeader::KeepAlive,
            (Persistence::Close, _) => ConnectionHeader::Close,
        };
        let mut bytes = Vec::new();
        reply::render(&mut bytes, reply, header, self.shape.is_head);
        let connection = &self.connection;
        let mut kept = false;
        connection
            .answer
            .write(&connection.channel, bytes, persistence, |now| {
                connection.waits(now);
                kept = true;
            });
        if kept {
            table.has_begun_to_wait(connection);
        }
    }

    fn refuse(&self, refusal: Refusal) {
        let table = &self.connection.table;
        table.watcher.refused(refusal.word());
        self.answer(&refusal.reply(table.name));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(due) = self.0.take() {
            due.refuse(Refusal::Unanswered);
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(due) => write!(f, "Responder({})", due.connection.peer),
            None => f.write_str("Responder(used)"),
        }
    }
}
