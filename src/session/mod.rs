//! The backends' side: accept, one thread per socket, the codec, the registry.
//!
//! Outside this room a backend is a name in the [`Registry`]: no socket, no mailbox and no lock leaves it.

mod acks;
mod door;
mod end;
mod hello;
mod lend;
mod link;
mod mailbox;
mod outgoing;
mod read;
mod registry;
mod serve;
mod sleep;
mod talk;
#[cfg(test)]
mod tests;
pub mod token;
mod verbs;

pub use door::Door;
pub use hello::{CREDIT_DEFAULT, CREDIT_MAX, PROTOCOL};
pub use registry::{NotSent, Registry};
pub use serve::House;
