//! The backends' side: accept, one thread for each connection, its mailbox, the registry.
//!
//! A session's thread reads everything that its backend says, answers the providers, and writes what waits in the mailbox.
//! No thread reads for another. Outside this module a backend is a name in the [`Registry`]: no socket, no mailbox and no
//! lock leaves it.
//!
//! From the bottom to the top (a file uses those above it only):
//!
//! | file | what it has |
//! |---|---|
//! | `end`, `hello`, `token` | why a session ends; the first line; who may connect |
//! | `link` | the bytes that a socket has not taken yet |
//! | `outgoing` | the MSG in flight on a link, and the credit |
//! | `waker`, `mailbox` | what waits for a session; how others wake its thread |
//! | `registry`, `newcomers` | backend id → mailbox; who has not said HELLO yet |
//! | `subscription` | what a session hears of channels, and how much it may say |
//! | `context`, `state` | what sessions share; one session, and how it ends |
//! | `messages`, `verbs`, `read` | SEND, PUB, SUB; every other verb; bytes to lines |
//! | `serve` | the loop of a session's thread |
//! | `backend_listener` | accept, the limits, the start of the threads |

mod backend_listener;
mod context;
mod end;
mod hello;
mod link;
mod mailbox;
mod messages;
mod newcomers;
mod outgoing;
mod read;
mod registry;
mod serve;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
pub mod token;
mod verbs;
mod waker;

pub use backend_listener::BackendListener;
pub use context::SessionContext;
pub use hello::{CREDIT_DEFAULT, CREDIT_MAX, PROTOCOL};
pub use newcomers::NewSessions;
pub use registry::{NotSent, Registry};
