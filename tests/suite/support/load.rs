//! Many providers and many backends at once, in few threads, with a history of who got what.

use std::collections::HashMap;
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::http::{Answer, post_request};
use super::{Backend, DEADLINE, Random, Relay};

/// So many notifications to so many backends, all in flight at the same time: no backend acknowledges anything before
/// every backend has received everything.
pub struct Load {
    pub backends: usize,
    /// Notifications to each backend.
    pub each: usize,
    /// Threads on either side.
    pub threads: usize,
}

/// What was posted and what was received.
#[derive(Default)]
pub struct LoadRecord {
    pub posts: Vec<PostRecord>,
    pub deliveries: Vec<Delivery>,
}

/// One notification as its provider saw it.
pub struct PostRecord {
    pub backend: String,
    pub body: Vec<u8>,
    pub answer: Result<Answer, String>,
    /// Whether the connection ended after that one answer, with nothing more.
    pub ended: bool,
}

/// One notification as a backend saw it.
pub struct Delivery {
    pub backend: String,
    pub id: String,
    pub body: Vec<u8>,
}

impl Load {
    /// Runs it against `relay`, whose routes must have `/notify/{id}`.
    pub fn run(&self, relay: &Relay) -> LoadRecord {
        let names: Vec<String> = (0..self.backends).map(|n| format!("crowd-{n}")).collect();
        let backends: Vec<_> = names
            .iter()
            .map(|name| (name.clone(), relay.backend(name)))
            .collect();
        let posts = self.posts(&names);
        let (tell_received, received) = bounded::<()>(self.threads);
        let (open_gate, gate) = bounded::<()>(0);

        let mut history = LoadRecord::default();
        thread::scope(|scope| {
            let receivers: Vec<_> = shares(backends, self.threads)
                .into_iter()
                .map(|share| {
                    let (tell, gate) = (tell_received.clone(), gate.clone());
                    scope.spawn(move || receive(share, self.each, &tell, &gate))
                })
                .collect();
            let posters: Vec<_> = shares(posts, self.threads)
                .into_iter()
                .map(|share| scope.spawn(move || post(share, relay)))
                .collect();
            for _ in &receivers {
                // A receiver that failed says so itself, when it is joined.
                let _ = received.recv_timeout(DEADLINE * 2);
            }
            drop(open_gate);
            for receiver in receivers {
                history
                    .deliveries
                    .extend(receiver.join().expect("a backend failed"));
            }
            for poster in posters {
                history
                    .posts
                    .extend(poster.join().expect("a provider failed"));
            }
        });
        history
    }

    /// Bodies that no two notifications share, in an order that spreads every backend over the whole run.
    fn posts(&self, names: &[String]) -> Vec<(String, Vec<u8>)> {
        let mut random = Random::new();
        let mut posts = Vec::new();
        for round in 0..self.each {
            for name in names {
                let mut body = format!("{name} {round} ").into_bytes();
                let filler = random.below(600);
                body.extend(random.bytes(filler));
                posts.push((name.clone(), body));
            }
        }
        posts
    }
}

fn receive(
    mut backends: Vec<(String, Backend)>,
    each: usize,
    tell: &Sender<()>,
    gate: &Receiver<()>,
) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for (name, backend) in &mut backends {
        for _ in 0..each {
            let message = backend.message();
            deliveries.push(Delivery {
                backend: name.clone(),
                id: message.id(),
                body: message.frame.body().to_vec(),
            });
        }
    }
    let _ = tell.send(());
    let _ = gate.recv(); // its other end is dropped when everybody has everything
    let mut of_backend: HashMap<&str, String> = HashMap::new();
    for delivery in &deliveries {
        *of_backend.entry(&delivery.backend).or_default() += &format!("ACK id={}\n", delivery.id);
    }
    for (name, backend) in &mut backends {
        backend.send_bytes(of_backend[name.as_str()].as_bytes());
        backend.settle(); // and nothing more had come for it
    }
    deliveries
}

fn post(share: Vec<(String, Vec<u8>)>, relay: &Relay) -> Vec<PostRecord> {
    let sent: Vec<_> = share
        .into_iter()
        .map(|(backend, body)| {
            let mut connection = relay.http();
            let headers = [("Connection", "close")];
            connection.send(&post_request(
                &format!("/notify/{backend}"),
                &headers,
                &body,
            ));
            (backend, body, connection)
        })
        .collect();
    let answered = sent.into_iter().map(|(backend, body, mut connection)| {
        let answer = connection
            .answer()
            .and_then(|a| a.ok_or_else(|| "closed without an answer".to_owned()));
        let ended = matches!(connection.answer(), Ok(None));
        PostRecord {
            backend,
            body,
            answer,
            ended,
        }
    });
    answered.collect()
}

/// Deals `all` out to `hands` lists, one after the other.
pub fn shares<T>(all: Vec<T>, hands: usize) -> Vec<Vec<T>> {
    let mut shares: Vec<Vec<T>> = (0..hands).map(|_| Vec::new()).collect();
    for (n, one) in all.into_iter().enumerate() {
        shares[n % hands].push(one);
    }
    shares
}

impl LoadRecord {
    /// Every notification was answered once with 200, delivered once, to the backend it was for, unchanged, and under
    /// the id that its provider was told.
    pub fn assert_each_once_none_crossed(&self) {
        let mut by_id: HashMap<&str, &Delivery> = HashMap::new();
        for delivery in &self.deliveries {
            let before = by_id.insert(&delivery.id, delivery);
            assert!(before.is_none(), "{} was delivered twice", delivery.id);
        }
        for post in &self.posts {
            let to = &post.backend;
            let answer = match &post.answer {
                Ok(answer) => answer,
                Err(problem) => panic!("a notification to {to} was not answered: {problem}"),
            };
            assert_eq!(answer.told(), (200, "delivered"), "to {to}");
            assert!(post.ended, "more than one answer to a notification to {to}");
            let Some(delivery) = by_id.remove(answer.id()) else {
                panic!(
                    "{} to {to} was answered ok and not delivered, or answered twice",
                    answer.id()
                );
            };
            assert_eq!(&delivery.backend, to, "{} crossed over", delivery.id);
            assert!(
                delivery.body == post.body,
                "{} to {to} has another's body",
                delivery.id
            );
        }
        assert!(
            by_id.is_empty(),
            "{} deliveries that nobody posted",
            by_id.len()
        );
    }
}
