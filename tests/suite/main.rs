//! The suite: what payrelay promises, shown on the real binary over real sockets, one module for each kind of promise.

mod support;

mod admin;
mod answers;
mod bytes;
mod certificates;
mod cli;
mod cli_bench;
mod clients;
mod cluster;
mod cluster_redis;
mod cluster_storm;
mod cluster_takeover;
mod config;
mod crowd;
mod descriptors;
mod events;
mod hostile_http;
mod peers;
mod protocol_doc;
mod proxies;
mod routes;
mod rude;
mod seeds;
mod sends;
mod session;
mod stop;
mod takeover;
mod tls;
mod tls_backends;
mod tls_cli;
mod verify;
