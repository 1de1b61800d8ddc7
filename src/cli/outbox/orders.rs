//! `payrelay outbox retry`, `drop` and `forget`: what changes something, on every node.

use std::io::IsTerminal;

use payrelay::outbox::State;
use serde_json::{Value, json};

use super::super::api::{Api, Node, Where, all_answered};
use super::super::terminal::{ProgressLine, Tone, out};
use super::super::{ConfigFile, Failure, print, print_json, say};
use super::{COUNT_MAX, Change, listing};

/// How many ids one order carries; the admin port takes small requests.
const IDS_AT_ONCE: usize = 100;

/// Has every node retry or drop (`target`, `done`) what `change` names.
pub fn order(
    config: &ConfigFile,
    change: &Change,
    target: &str,
    done: &str,
    pending: bool,
) -> Result<(), Failure> {
    let api = Api::of(config, &change.at)?;
    let (mut changed, mut in_hand) = (0, 0);
    let progress = ProgressLine::new();
    // A backlog takes many rounds.
    let mut add = |answer: &Value| {
        changed += answer["changed"].as_u64().unwrap_or(0);
        in_hand += answer["in_hand"].as_u64().unwrap_or(0);
        progress.show(format_args!("{changed} {done} so far"));
    };
    let silent = api.each_node(|node| order_of(&api, node, change, target, pending, &mut add))?;
    drop(progress);
    if change.at.json {
        print_json(&json!({ "changed": changed, "in_hand": in_hand }))?;
    } else {
        let tone = if changed > 0 { Tone::Good } else { Tone::Odd };
        print(format_args!(
            "{}\n",
            out(tone, format_args!("{changed} {done}"))
        ))?;
        if in_hand > 0 {
            print(format_args!(
                "{in_hand} left alone: a session has them in hand just now\n"
            ))?;
        }
    }
    all_answered(&silent, "may have others of these")?;
    match changed + in_hand {
        0 => Err(Failure::new("the outbox has none of these")),
        _ => Ok(()),
    }
}

/// Has one node do it, and gives `add` what each round came to.
fn order_of(
    api: &Api,
    node: &Node,
    change: &Change,
    target: &str,
    pending: bool,
    add: &mut dyn FnMut(&Value),
) -> Result<(), Failure> {
    let ids: Vec<String> = change.ids.iter().map(ToString::to_string).collect();
    // Without ids there is one order, which may take several rounds.
    let mut chunks: Vec<&[String]> = ids.chunks(IDS_AT_ONCE).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for chunk in chunks {
        let mut after = 0;
        loop {
            let mut order = change.filter.order();
            order["ids"] = json!(chunk);
            order["all"] = change.all.into();
            order["after"] = after.into();
            order["pending"] = pending.into();
            let answer = api.order(&node.target(target), &order)?;
            add(&answer);
            match answer["next"].as_i64() {
                Some(next) => after = next,
                None => break,
            }
        }
    }
    Ok(())
}

/// Has every node forget that it knows `event`.
pub fn forget(config: &ConfigFile, event: &str, at: &Where) -> Result<(), Failure> {
    let api = Api::of(config, at)?;
    let order = json!({ "event": event });
    let (mut forgotten, mut asked) = (0_u64, Vec::new());
    let silent = api.each_node(|node| {
        let answer = api.order(&node.target("/outbox/forget"), &order)?;
        forgotten += answer["forgotten"].as_u64().unwrap_or(0);
        asked.push(node.name.clone());
        Ok(())
    })?;
    if at.json {
        print_json(&json!({ "forgotten": forgotten, "nodes": asked, "silent": silent.len() }))?;
    } else if forgotten > 0 {
        print(format_args!("{forgotten} forgotten\n"))?;
    }
    all_answered(
        &silent,
        "may still know this event: ask again when they answer",
    )?;
    match forgotten {
        0 => Err(Failure::new(format_args!(
            "none of {} nodes knows this event as delivered or stored; if it is answered as a duplicate, ask again right after that",
            asked.len()
        ))),
        _ => Ok(()),
    }
}

/// Whether pending ones may be among what is deleted. Their providers were told ok, so that needs a question, if there are any.
pub fn may_drop(config: &ConfigFile, change: &mut Change, yes: bool) -> Result<bool, Failure> {
    if change.ids.is_empty() && change.filter.state.is_none() {
        change.filter.state = Some(State::Dead);
        change.all = false;
    }
    if yes || matches!(change.filter.state, Some(State::Dead | State::Done)) {
        return Ok(yes);
    }
    let api = Api::of(config, &change.at)?;
    let mut pending = 0;
    // One that does not answer, or has none of these, is the order's to tell of.
    for node in &api.nodes()?.0 {
        if change.ids.is_empty() {
            pending += listing::count(&api, node, &change.filter.query(), 0)?;
        }
        for id in &change.ids {
            let row = api.get(&node.target(&format!("/outbox/{id}")));
            pending += u64::from(row.is_ok_and(|row| row["state"] == "pending"));
        }
    }
    if pending == 0 {
        return Ok(false);
    }
    let words = format!(
        "{pending}{} of these are pending: their providers were told ok and will not send them again",
        if pending >= COUNT_MAX { " or more" } else { "" }
    );
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format_args!(
            "{words}; nothing was dropped. To delete them all the same: --yes"
        )));
    }
    say(format_args!("{words}. Delete them for good? [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(true),
        false => Err(Failure::new("nothing was dropped")),
    }
}
