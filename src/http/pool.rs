//! The tiny_http pool: `http.workers` threads that judge requests.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Sender, bounded};
use tiny_http::{Request, Server};

use super::handler::RequestHandler;
use super::link::{PROOF_MAX, WorkerLink, WorkerLinkError, WorkerSocket};
use super::request::{NUMBER_HEADER, PEER_HEADER, PROOF_HEADER, PendingRequests, RequestView};
use crate::fds::FdBudget;
use crate::heartbeat::{self, Pulse, Role};
use crate::thread::JoinOnDrop;

/// A worker's stack, in bytes: it parses JSON at a bounded depth, and verifies signatures.
const STACK_BYTES: usize = 256 * 1024;

/// Why the pool did not start.
#[derive(Debug)]
pub enum PoolError {
    /// The link to the workers.
    Link(WorkerLinkError),
    /// The system has no room for another thread.
    Thread(io::Error),
}

/// The workers, and the socket on which tiny_http serves them. Dropping the pool ends them.
pub struct Pool {
    workers: Workers,
    link: Arc<WorkerLink>,
    // After the server, whose last words go through it.
    _socket: WorkerSocket,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} workers)", self.workers.threads.len())
    }
}

/// The workers that have started. Dropping them ends them.
struct Workers {
    stopping: Arc<AtomicBool>,
    server: Arc<Server>,
    threads: Vec<JoinOnDrop>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for _ in &self.threads {
            self.server.unblock(); // wakes one
        }
        self.threads.clear();
    }
}

/// What a worker works with.
#[derive(Clone)]
struct WorkerContext {
    server: Arc<Server>,
    stopping: Arc<AtomicBool>,
    pending: Arc<PendingRequests>,
    proof: Sender<()>,
    handler: Arc<RequestHandler>,
}

impl Pool {
    /// Starts `count` workers, and opens the link to them.
    ///
    /// # Errors
    /// No socket, too few descriptors, or no room for another thread.
    pub fn start(
        count: usize,
        handler: &Arc<RequestHandler>,
        fds: &FdBudget,
    ) -> Result<Self, PoolError> {
        let (socket, server) = WorkerSocket::bind().map_err(PoolError::Link)?;
        let (proof, proven) = bounded(1);
        let context = WorkerContext {
            server: Arc::new(server),
            stopping: Arc::new(AtomicBool::new(false)),
            pending: Arc::default(),
            proof,
            handler: Arc::clone(handler),
        };
        let mut workers = Workers {
            stopping: Arc::clone(&context.stopping),
            server: Arc::clone(&context.server),
            threads: Vec::with_capacity(count),
        };
        for number in 0..count {
            let theirs = context.clone();
            let name = format!("http-worker-{number}");
            let role = Role::vital(name, "requests are judged by fewer threads");
            let worker = heartbeat::supervise(role, STACK_BYTES, move |pulse| work(&theirs, pulse));
            workers.threads.push(worker.map_err(PoolError::Thread)?);
        }
        let link = WorkerLink::open_within(PROOF_MAX, socket.path(), context.pending, proven, fds);
        Ok(Self {
            workers,
            link: Arc::new(link.map_err(PoolError::Link)?),
            _socket: socket,
        })
    }

    /// The way to the workers.
    pub fn link(&self) -> &Arc<WorkerLink> {
        &self.link
    }
}

fn work(context: &WorkerContext, pulse: &Pulse) {
    while !context.stopping.load(Ordering::SeqCst) {
        pulse.idle();
        let received = context.server.recv();
        pulse.busy();
        match received {
            Ok(request) => {
                // A responder that is dropped in the unwinding answers 503.
                if catch_unwind(AssertUnwindSafe(|| take(context, &request))).is_err() {
                    log::error!("a request made this worker panic; it goes on with the next");
                }
                // Just dropped, it would write 500 to the link, and this worker wait for the requests before it to do so.
                drop(request.into_writer());
            }
            Err(error) => {
                if !context.stopping.load(Ordering::SeqCst) {
                    log::error!("tiny_http: {error}");
                }
            }
        }
    }
}

/// One request from the link.
fn take(context: &WorkerContext, request: &Request) {
    let headers: Vec<(&str, &str)> = request
        .headers()
        .iter()
        .map(|header| (header.field.as_str().as_str(), header.value.as_str()))
        .collect();
    if header(&headers, PROOF_HEADER).is_some() {
        let _ = context.proof.try_send(()); // a second one has nobody who waits
        return;
    }
    let pending = header(&headers, NUMBER_HEADER)
        .and_then(|number| number.parse().ok())
        .and_then(|number| context.pending.take(number));
    let Some(pending) = pending else {
        return; // the link broke, and its requests were answered
    };
    context.handler.metrics.http_worker_request();
    let view = RequestView {
        method: request.method().as_str(),
        target: request.url(),
        headers: &headers,
        peer: header(&headers, PEER_HEADER).and_then(ip),
    };
    context
        .handler
        .handle(&view, pending.body, pending.responder);
}

/// The address in the link's own header, which has a port unless a proxy gave the address alone.
fn ip(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse().ok().map(|both: SocketAddr| both.ip());
    text.parse().ok().or_else(with_port)
}

fn header<'r>(headers: &[(&'r str, &'r str)], name: &str) -> Option<&'r str> {
    let named = |(found, _): &&(&str, &str)| found.eq_ignore_ascii_case(name);
    headers.iter().find(named).map(|(_, value)| *value)
}
