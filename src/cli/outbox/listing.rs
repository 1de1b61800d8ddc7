//! `payrelay outbox list` and `show`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use payrelay::notification::{NotificationId, unix_ms};
use serde_json::json;

use super::super::api::{Api, Node, Where, all_answered, text, time, timeline};
use super::super::terminal::{Tone, out};
use super::super::text::readable;
use super::super::{ConfigFile, Failure, print, print_json, say};
use super::{COUNT_MAX, Filter};

/// How many notifications the relay tells of at once.
const PAGE: usize = 200;

/// How wide a column of names is: as the longest of a page, within these limits.
const COLUMN_MIN: usize = 7;
const COLUMN_MAX: usize = 40;

pub fn list(config: &ConfigFile, filter: &Filter, limit: usize, at: &Where) -> Result<(), Failure> {
    let api = Api::of(config, at)?;
    let (mut told, mut more) = (0, 0);
    let silent =
        api.each_node(|node| list_of(&api, node, filter, limit, at, (&mut told, &mut more)))?;
    match more {
        0 => {}
        COUNT_MAX.. => say(format_args!(
            "more than {COUNT_MAX} more; --limit N shows them"
        )),
        more => say(format_args!(
            "{more} more; --limit {} shows them",
            told as u64 + more
        )),
    }
    let gone = tell_gone(&api);
    all_answered(&silent, "may have others")?;
    gone
}

/// Names the nodes that are gone, whose notifications only Redis has.
fn tell_gone(api: &Api) -> Result<(), Failure> {
    let answer = api.get("/outbox?limit=1")?;
    let Some(gone) = answer["gone"].as_array() else {
        return Err(Failure::new(
            "Redis is away: whether it has others, of nodes that are gone, is not known",
        ));
    };
    for one in gone {
        say(format_args!(
            "{} of the node {} are in Redis: if it is gone they are not in this list, and another node takes them over after \
             outbox.inherit_after",
            text(one, "count"),
            text(one, "node")
        ));
    }
    match gone.len() {
        0 => Ok(()),
        count => Err(Failure::new(format_args!("{count} nodes are not heard of"))),
    }
}

/// Lists what one node has, as long as fewer than `limit` were told, and counts what is beyond.
fn list_of(
    api: &Api,
    node: &Node,
    filter: &Filter,
    limit: usize,
    at: &Where,
    (told, more): (&mut usize, &mut u64),
) -> Result<(), Failure> {
    let mut after = 0;
    let wide = time(unix_ms()).len();
    while *told < limit {
        let page = PAGE.min(limit - *told);
        let target = format!("/outbox?after={after}&limit={page}{}", filter.query());
        let answer = api.get(&node.target(&target))?;
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        let widest = |key: &str| {
            let lengths = messages.iter().map(|one| text(one, key).chars().count());
            lengths.max().unwrap_or(0).clamp(COLUMN_MIN, COLUMN_MAX)
        };
        let (backend, event) = (widest("backend"), widest("event"));
        if *told == 0 && !at.json && !messages.is_empty() {
            let head = format!(
                "{:<26} {:<wide$} {:<8} {:>5} {:<backend$} {:<event$} {:<16} WHY",
                "ID", "TAKEN", "STATE", "TRIES", "BACKEND", "EVENT", "NODE"
            );
            print(format_args!("{}\n", out(Tone::Head, head)))?;
        }
        for mut message in messages {
            *told += 1;
            if at.json {
                message["node"] = json!(node.name);
                print_json(&message)?;
                continue;
            }
            let state = text(&message, "state");
            let tone = Tone::of_state(&state);
            print(format_args!(
                "{:<26} {:<wide$} {} {:>5} {:<backend$} {:<event$} {:<16} {}\n",
                text(&message, "id"),
                time(message["at"].as_u64().unwrap_or(0)),
                out(tone, format_args!("{state:<8}")),
                text(&message, "tries"),
                text(&message, "backend"),
                text(&message, "event"),
                node.name,
                text(&message, "why"),
            ))?;
        }
        match answer["next"].as_i64() {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
    *more += count(api, node, &filter.query(), after)?;
    Ok(())
}

pub fn show(
    config: &ConfigFile,
    id: NotificationId,
    body: bool,
    at: &Where,
) -> Result<(), Failure> {
    let api = Api::of(config, at)?;
    let query = if body { "?body=1" } else { "" };
    let (nodes, silent) = api.nodes()?;
    let (mut found, mut failed) = (None, None);
    for node in &nodes {
        match api.get(&node.target(&format!("/outbox/{id}{query}"))) {
            Ok(mut message) => {
                message["node"] = json!(node.name);
                found = Some(message);
                break;
            }
            Err(failure) => failed = Some(failure),
        }
    }
    let Some(message) = found else {
        all_answered(&silent, "may have it")?;
        return Err(failed.unwrap_or_else(|| Failure::new("no node has it")));
    };
    if at.json {
        return print_json(&message);
    }
    let mut shown = String::new();
    for key in [
        "id", "backend", "route", "verified", "event", "state", "tries", "bytes", "node", "why",
    ] {
        shown.push_str(&format!("{key:<9} {}\n", text(&message, key)));
    }
    shown.push_str(&format!(
        "taken     {}\n\n",
        time(message["at"].as_u64().unwrap_or(0))
    ));
    shown.push_str(&timeline(&message));
    if body {
        match message["damaged"].as_bool() {
            Some(true) => shown.push_str("\nwhat it carries was damaged on disk\n"),
            _ => {
                let headers = message["headers"].as_str().unwrap_or_default();
                let body = message["body_base64"].as_str().unwrap_or_default();
                let body = BASE_64.decode(body).unwrap_or_default();
                shown.push_str(&format!(
                    "\n{}\n",
                    readable(headers.replace('\r', "").as_bytes())
                ));
                shown.push_str(&readable(&body));
                shown.push('\n');
            }
        }
    }
    print(shown)
}

/// How many there are behind the row `after`, as far as [`COUNT_MAX`].
pub fn count(api: &Api, node: &Node, query: &str, mut after: i64) -> Result<u64, Failure> {
    let mut count = 0;
    loop {
        let target = format!("/outbox?after={after}&limit=500{query}");
        let answer = api.get(&node.target(&target))?;
        count += answer["messages"].as_array().map_or(0, Vec::len) as u64;
        match answer["next"].as_i64() {
            Some(next) if count < COUNT_MAX => after = next,
            _ => return Ok(count),
        }
    }
}
