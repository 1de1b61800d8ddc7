//! What a provider's request comes to: its route, whether it is genuine, the notification, and the answer.
//!
//! With `http.workers = 0` the connection's own thread does this; with N the request goes over the [`WorkerLink`] to the tiny_http
//! server, whose N workers do it. Which of the two is decided at start. Neither thread waits for a backend: it hands the
//! notification to [`Delivery`] together with the right to answer, and goes on.
//!
//! A request comes here whole, bounded and re-written by the edge, so nothing here is hostile in its framing; its content may be.
//!
//! | file | what lives there |
//! |---|---|
//! | `handler` | route, signature, id, hand-over to the delivery |
//! | `link` | the way to the workers |
//! | `pool` | the workers |
//! | `head` | the head of a request as it goes to a worker. Pure |
//! | `request` | a request as it is judged, and what of it waits beside the link |
//! | `route` | `[[route]]`, prepared |
//! | `refusal` | why a request makes no notification, and the answer to it |

mod handler;
mod head;
mod link;
mod pool;
mod refusal;
mod request;
mod route;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::handler::RequestHandler;
pub use self::head::write as write_head;
pub use self::link::{LINK_FDS, WorkerLink, WorkerLinkError};
pub use self::pool::{Pool, PoolError};
use self::request::{PendingRequest, RequestView};
pub use self::route::Routes;
use crate::edge::{Handler, HttpRequest, RefusedRequest, Responder};

/// Where a whole request is judged; chosen at start.
pub enum HandOver {
    /// On the connection's own thread: `http.workers = 0`.
    Inline(Arc<RequestHandler>),
    /// By the tiny_http workers; but what a peer sends that has failed too often waits for its turn on the connection's own
    /// thread, so that it keeps no worker from others.
    ToWorkers(Arc<WorkerLink>, Arc<RequestHandler>),
}

impl Handler for HandOver {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        let body = request.body.to_vec();
        match self {
            Self::ToWorkers(link, handler) if handler.suspected(request.peer.ip()).is_none() => {
                link.send(request, PendingRequest { body, responder });
            }
            Self::ToWorkers(_, handler) | Self::Inline(handler) => {
                let headers: Vec<_> = head::kept(request.headers).collect();
                let view = RequestView {
                    method: request.method,
                    target: request.target,
                    headers: &headers,
                    peer: Some(request.peer.ip()),
                };
                handler.handle(&view, body, responder);
            }
        }
    }

    fn refused(&self, request: &RefusedRequest<'_>) {
        let (Self::ToWorkers(_, handler) | Self::Inline(handler)) = self;
        handler.log_refused(&handler.routes(), request);
    }
}
