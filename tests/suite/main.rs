//! The suite: what payrelay promises, shown on the real binary over real sockets, one module for each kind of promise.

mod support;

mod admin;
mod answers;
mod bytes;
mod cli;
mod cluster;
mod cluster_redis;
mod cluster_storm;
mod cluster_takeover;
mod config;
mod crowd;
mod descriptors;
mod hostile_http;
mod protocol_doc;
mod routes;
mod rude;
mod session;
mod stop;
mod takeover;
