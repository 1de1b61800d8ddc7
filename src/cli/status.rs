//! `payrelay status`: which backends are connected, and where, asked of any one node.

use payrelay::admin::api::{BusState, HealthAnswer};
use payrelay::bus::Presence;
use payrelay::notification::BackendId;
use serde::Deserialize;
use serde_json::Value;

use super::api::{Api, Where, parsed, text, time};
use super::text::{one_line, one_line_after};
use super::{ConfigFile, Failure, print};

pub const HELP: &str = "\
Examples:
  payrelay status
  payrelay status --admin 10.0.0.1:9100 -c /etc/payrelay/relay.toml
  payrelay status --backend game-01 --json

It asks the running relay, at its admin port; that node asks the others who is connected to them. Version, routes, outbox and
refusals are those of the node that was asked. The token is that of the configuration.

Exit 0 if every node has answered, and --backend, if given, is connected; else 1.";

/// The most refusals that are shown, the latest.
const REFUSALS_SHOWN: usize = 5;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this backend
    #[arg(long, value_name = "ID", value_parser = BackendId::parse)]
    backend: Option<BackendId>,

    #[command(flatten)]
    at: Where,
}

/// One line of the table.
type Row = [String; 3];

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let api = Api::of(config, &args.at)?;
    let mut status = api.get("/status")?;
    if let Some(id) = &args.backend {
        keep_only(&mut status, id);
    }
    let presence = Presence::deserialize(&status)
        .map_err(|_| Failure::new("this relay is of a version without GET /status"))?;
    status["health"] = api.get("/health")?;
    let health: HealthAnswer = parsed(&status["health"])?;
    print(match args.at.json {
        true => format!("{status}\n"),
        false => for_people(&status, &presence, &health),
    })?;
    judge(&presence, args.backend.as_ref())
}

/// Leaves out every other backend.
fn keep_only(status: &mut Value, id: &BackendId) {
    let nodes = status["nodes"].as_array_mut();
    for node in nodes.into_iter().flatten() {
        if let Some(backends) = node["backends"].as_array_mut() {
            backends.retain(|backend| backend["id"] == id.as_str());
        }
    }
}

fn for_people(status: &Value, presence: &Presence, health: &HealthAnswer) -> String {
    let ready = match health.ready {
        true => "ready".to_owned(),
        false => format!("NOT READY: {}", one_line(&health.reasons.join("; "))),
    };
    format!(
        "node     {}\nrelay    payrelay {}, up for {}, {ready}\n{}\n{}\n{}",
        text(status, "node"),
        one_line(&health.version),
        span(health.uptime_ms),
        of_the_bus(&health.bus),
        of_the_node(health),
        of_the_backends(presence)
    )
}

/// Whether other nodes are reached, and by which servers.
fn of_the_bus(bus: &BusState) -> String {
    let state = match bus.reason.as_deref() {
        None => "up".to_owned(),
        Some(reason) => {
            let reason = reason.strip_prefix("redis: ").unwrap_or(reason);
            format!("DOWN, {}", one_line(reason))
        }
    };
    let mut shown = format!("bus      {}: {state}", one_line(&bus.kind));
    if let Some(age) = bus.canary_age_ms {
        shown.push_str(&format!(
            "; heard itself {:.1} s ago, {} of {} subscriptions stand",
            age as f64 / 1000.0,
            bus.subscriptions_standing,
            bus.subscriptions_wanted,
        ));
    }
    // One Redis is named by its URL, which is not shown.
    if bus.kind != "redis" && !bus.primaries.is_empty() {
        let names: Vec<String> = bus.primaries.iter().map(|name| one_line(name)).collect();
        shown.push_str(&format!("\nredis    {}", names.join(", ")));
        if bus.buckets > 1 {
            let (up, all) = (bus.buckets_up, bus.buckets);
            shown.push_str(&format!("; {up} of {all} buckets can be used"));
        }
    }
    shown
}

/// Who is connected, and where.
fn of_the_backends(presence: &Presence) -> String {
    let mut shown = String::new();
    let mut rows: Vec<Row> = Vec::new();
    for node in &presence.nodes {
        for backend in &node.backends {
            rows.push([
                one_line(&backend.id),
                one_line(&node.node),
                time(backend.since_unix_ms),
            ]);
        }
    }
    rows.sort();
    let (backends, nodes) = (rows.len(), presence.nodes.len());
    if !rows.is_empty() {
        rows.insert(0, ["BACKEND", "NODE", "SINCE"].map(str::to_owned));
        shown.push_str(&table(&rows));
        shown.push('\n');
    }
    let plural = |count| if count == 1 { "" } else { "s" };
    shown.push_str(&format!(
        "{backends} backend{} on {nodes} node{}\n",
        plural(backends),
        plural(nodes)
    ));
    shown
}

/// Routes, outbox and refusals of the node that was asked.
fn of_the_node(health: &HealthAnswer) -> String {
    let mut lines = Vec::new();
    for route in &health.routes {
        let checks = route.checks.as_deref();
        let checks = checks.unwrap_or("nothing is checked");
        lines.push(format!(
            "route    {}: {}",
            one_line(&route.name),
            one_line(checks)
        ));
    }
    match &health.outbox {
        None => lines.push("outbox   none: delivery.undelivered is \"refuse\"".into()),
        Some(outbox) => {
            let oldest = match outbox.pending {
                0 => String::new(),
                _ => format!(", the oldest for {}", span(outbox.oldest_ms)),
            };
            let (pending, dead) = (outbox.pending, outbox.dead);
            lines.push(format!("outbox   {pending} pending{oldest}; {dead} dead"));
            for unknown in &outbox.unknown_backends {
                let like = one_line_after(" ", unknown.like.as_deref(), " is known.");
                lines.push(format!(
                    "         {} pending for {}, a backend that was never here since this node started: is the id in notify_url right?{like}",
                    unknown.pending,
                    one_line(&unknown.id),
                ));
            }
        }
    }
    for refusal in health.refusals.iter().take(REFUSALS_SHOWN) {
        let route = one_line_after(" ", refusal.route.as_deref(), "");
        lines.push(format!(
            "refused  {}{route}: {}, {} times, last {}",
            one_line(&refusal.kind),
            one_line(&refusal.reason),
            refusal.count,
            time(refusal.last_unix_ms)
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Milliseconds in the two largest units that fit.
fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Columns as wide as their widest cell.
fn table(rows: &[Row]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let line = |[a, b, c]: &Row| format!("{a:<first$}  {b:<second$}  {c}\n");
    rows.iter().map(line).collect()
}

/// What is wrong with what was shown.
fn judge(presence: &Presence, backend: Option<&BackendId>) -> Result<(), Failure> {
    let mut wrong = Vec::new();
    if let Some(trouble) = &presence.trouble {
        wrong.push(format!("only a part is known: {}", one_line(trouble)));
    }
    for node in &presence.silent {
        wrong.push(format!("{} did not answer", one_line(node)));
    }
    if let Some(id) = backend
        && presence.nodes.iter().all(|node| node.backends.is_empty())
    {
        wrong.push(format!("{id} is not connected"));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(wrong.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(trouble: Value, silent: Value) -> Value {
        serde_json::json!({
            "node": "pay-1-0a1b2c",
            "bus": {"kind": "redis", "up": true, "reason": null, "canary_age_ms": 412,
                "subscriptions_wanted": 5, "subscriptions_standing": 4},
            "nodes": [
                {"node": "pay-1-0a1b2c", "backends": [{"id": "till-10", "since_unix_ms": 0}]},
                {"node": "pay-22-0a1b2d", "backends": [{"id": "a", "since_unix_ms": 951_782_399_999_u64}]},
            ],
            "silent": silent,
            "trouble": trouble,
        })
    }

    fn health() -> HealthAnswer {
        let health = serde_json::json!({
            "node": "pay-1-0a1b2c", "version": "0.1.0", "uptime_ms": 3_725_000, "ready": true, "reasons": [],
            "bus": {"kind": "redis", "up": true, "reason": null, "canary_age_ms": 412,
                "subscriptions_wanted": 5, "subscriptions_standing": 4},
            "outbox": {"pending": 3, "done": 0, "dead": 1, "oldest_ms": 61_000, "unknown_backend": 2,
                "unknown_backends": [{"id": "gmae-01", "pending": 2, "like": "game-01"}]},
            "sessions": 0, "http_connections": 0, "http_in_flight": 0, "queued": 0, "memory_bytes": 0,
            "fd_free": 0, "fd_total": 0, "minutes": [], "warnings": [],
            "refusals": [{"kind": "signature", "route": "/notify/{id}", "reason": "mismatch", "count": 7, "last_unix_ms": 0}],
            "routes": [{"name": "/notify/{id}", "path": "/notify/{id}", "checks": null}],
        });
        HealthAnswer::deserialize(&health).expect("the health")
    }

    #[test]
    fn people_read_a_table() {
        let status = status(Value::Null, serde_json::json!([]));
        let presence = Presence::deserialize(&status).expect("the presence");
        assert_eq!(
            for_people(&status, &presence, &health()),
            "node     pay-1-0a1b2c\n\
             relay    payrelay 0.1.0, up for 1h 2m, ready\n\
             bus      redis: up; heard itself 0.4 s ago, 4 of 5 subscriptions stand\n\
             route    /notify/{id}: nothing is checked\n\
             outbox   3 pending, the oldest for 1m 1s; 1 dead\n         \
             2 pending for gmae-01, a backend that was never here since this node started: is the id in notify_url right? game-01 is known.\n\
             refused  signature /notify/{id}: mismatch, 7 times, last 1970-01-01T00:00:00.000Z\n\
             \n\
             BACKEND  NODE           SINCE\n\
             a        pay-22-0a1b2d  2000-02-28T23:59:59.999Z\n\
             till-10  pay-1-0a1b2c   1970-01-01T00:00:00.000Z\n\
             \n\
             2 backends on 2 nodes\n"
        );
        assert!(judge(&presence, None).is_ok());
    }

    #[test]
    fn what_is_incomplete_fails_and_says_why() {
        let mut status = status("redis: away".into(), serde_json::json!(["pay-3-\u{1b}[2J"]));
        let id = BackendId::parse("b").expect("an id");
        keep_only(&mut status, &id);
        let presence = Presence::deserialize(&status).expect("the presence");
        let failure = judge(&presence, Some(&id)).expect_err("a failure");
        assert_eq!(
            failure.words,
            "payrelay: only a part is known: redis: away; pay-3-\\u{1b}[2J did not answer; b is not connected"
        );
    }
}
