//! The suite: what payrelay promises, shown on the real binary over real sockets, one module for each kind of promise.

mod support;

mod admin;
mod answers;
mod bytes;
mod cli;
mod config;
mod crowd;
mod descriptors;
mod hostile_http;
mod outbox;
mod outbox_backlog;
mod outbox_crash;
mod outbox_faults;
mod peers;
mod protocol_doc;
mod routes;
mod rude;
mod session;
mod stop;
mod takeover;
mod tls;
mod tls_backends;
