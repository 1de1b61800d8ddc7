//! Which stored notifications are meant, as a query or an order says it.

use serde::Deserialize;

use crate::notification::NotificationId;
use crate::outbox::{Filter, State};

/// The most ids in one order.
const IDS_MAX: usize = 100;

/// Which notifications an order is about; at least one key, or `all`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterParams {
    pub ids: Vec<String>,
    pub backend: Option<String>,
    pub state: Option<String>,
    pub route: Option<String>,
    pub event: Option<String>,
    pub since: Option<u64>,
    pub all: bool,
    pub after: i64,
    /// Pending ones may be dropped too.
    pub pending: bool,
}

impl FilterParams {
    /// The filter; an error says which value is none.
    pub fn filter(self) -> Result<Filter, &'static str> {
        if self.ids.len() > IDS_MAX {
            return Err("at most 100 ids at once\n");
        }
        let ids = self.ids.iter().map(|id| NotificationId::parse(id));
        let state = self.state.as_deref().map(State::parse);
        Ok(Filter {
            ids: ids
                .collect::<Option<_>>()
                .ok_or("an id has 26 characters of 0-9 A-Z\n")?,
            backend: self.backend,
            state: state
                .map(|state| state.ok_or("a state is pending, done or dead\n"))
                .transpose()?,
            route: self.route,
            event: self.event,
            since_unix_ms: self.since,
        })
    }
}

/// What an order was about, for the log.
pub fn in_words(filter: &Filter) -> String {
    let mut words: Vec<String> = filter.ids.iter().map(ToString::to_string).collect();
    words.truncate(IDS_MAX);
    let state = filter.state.map(State::as_str);
    for (key, value) in [
        ("backend", filter.backend.as_deref()),
        ("state", state),
        ("route", filter.route.as_deref()),
        ("event", filter.event.as_deref()),
    ] {
        words.extend(value.map(|value| format!("{key}={}", value.escape_debug())));
    }
    words.extend(filter.since_unix_ms.map(|since| format!("since={since}")));
    match words.is_empty() {
        true => "all".into(),
        false => words.join(" "),
    }
}
