//! A notification goes on to an HTTP program: body and headers as the provider sent them, and the program's status decides.

use std::time::Duration;

use super::acknowledgement::Acknowledgement;
use crate::cli::Failure;
use crate::cli::tls::TlsArgs;
use crate::client::frames::Message;
use crate::client::http::{ClientRequest, OWN_HEADERS};
use crate::client::tls::Trust;
use crate::client::url::HttpUrl;

/// How long the program may take. The relay itself waits for an ACK for `tcp.ack_timeout`, 60 s by default.
const DEADLINE: Duration = Duration::from_secs(30);

/// Where notifications go on to.
#[derive(Clone, Debug)]
pub struct HttpForwarder {
    url: HttpUrl,
    trust: Option<Trust>,
}

impl HttpForwarder {
    /// # Errors
    /// For `https` the system has no list of authorities.
    pub fn to(url: HttpUrl) -> Result<Self, Failure> {
        let trust = url
            .sealed
            .then(|| TlsArgs::default().trust(&url.place, None));
        Ok(Self {
            trust: trust.transpose()?,
            url,
        })
    }

    /// Posts `message`: 2xx acknowledges it, everything else refuses it.
    pub fn post(&self, message: &Message) -> Acknowledgement {
        let answer = ClientRequest {
            method: "POST",
            place: &self.url.place,
            trust: self.trust.as_ref(),
            target: &self.url.target,
            headers: &headers(message),
            body: &message.body,
            deadline: DEADLINE,
        }
        .send();
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => Acknowledgement::Ack,
            Ok(answer) => Acknowledgement::Nack(format!("HTTP {}", answer.status)),
            Err(error) => Acknowledgement::refused(&error.to_string()),
        }
    }
}

/// The forwarded headers, and what the relay says of the notification.
fn headers(message: &Message) -> Vec<(String, String)> {
    let head = String::from_utf8_lossy(&message.head);
    // The first line is the request line.
    let forwarded = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut headers: Vec<(String, String)> = forwarded
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()))
        .collect();
    for (name, value) in [
        ("X-Payrelay-Id", &message.id),
        ("X-Payrelay-Route", &message.route),
        ("X-Payrelay-Event", &message.event),
        ("X-Payrelay-Try", &message.tries),
        ("X-Payrelay-Verified", &message.verified),
    ] {
        // An event key is whatever the provider wrote: it must not begin another header.
        let value = value.chars().filter(|c| !c.is_control()).collect();
        headers.push((name.to_owned(), value));
    }
    headers
}
