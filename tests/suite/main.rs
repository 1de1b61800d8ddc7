//! The suite: what payrelay promises, shown on the real binary over real sockets, one module for each kind of promise.

mod support;

mod admin;
mod answers;
mod bytes;
mod certificates;
mod cli;
mod cluster;
mod cluster_redis;
mod cluster_storm;
mod cluster_takeover;
mod config;
mod crowd;
mod descriptors;
mod events;
mod hostile_http;
mod outbox;
mod outbox_backlog;
mod outbox_crash;
mod outbox_faults;
mod outbox_operator;
mod outbox_speed;
mod peers;
mod protocol_doc;
mod proxies;
mod routes;
mod rude;
mod sends;
mod session;
mod stop;
mod takeover;
mod tls;
mod tls_backends;
mod tls_cli;
mod verify;
