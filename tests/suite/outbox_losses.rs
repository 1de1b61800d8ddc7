//! The shared outbox against every kind of loss, in rounds from a seed: nodes are killed, their disks are deleted or come back old,
//! Redis is killed, cut off, emptied or replaced. What was answered ok is delivered, but for what both its disk and Redis have lost
//! in the same round, which the test names; and whatever is delivered twice is explained. The test keeps its own history.

mod clients;
mod history;
mod site;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use self::clients::{Clients, FLAPPING};
use self::history::LossHistory;
use self::site::{DiskState, LossSite, NODES, RedisFault};
use crate::support::{Random, heavy};

/// How many kinds of rounds there are; the last one loses disks and Redis together.
const KINDS: usize = 11;

#[test]
fn what_was_answered_ok_outlives_disks_and_redis_but_not_both_at_once() {
    rounds(6, "prefer");
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn fifty_losses_of_disks_and_redis_with_prefer() {
    rounds(50, "prefer");
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn fifty_losses_of_disks_and_redis_with_require() {
    rounds(50, "require");
}

/// A node that dies.
#[derive(Clone, Copy)]
struct NodeDeath {
    node: usize,
    disk: DiskState,
    /// It comes back when others have taken over what it had.
    is_late: bool,
}

/// What happens in a round.
#[derive(Default)]
struct RoundPlan {
    deaths: Vec<NodeDeath>,
    fault: Option<RedisFault>,
    fault_is_first: bool,
}

impl RoundPlan {
    fn of(kind: usize, random: &mut Random) -> Self {
        let node = random.below(NODES);
        let death = |node, disk, random: &mut Random| NodeDeath {
            node,
            disk,
            is_late: random.below(2) == 0,
        };
        let mut plan = Self {
            fault_is_first: random.below(2) == 0,
            ..Self::default()
        };
        let lost = [DiskState::Deleted, DiskState::Old][random.below(2)];
        match kind {
            0 => {}
            1 | 2 => plan.deaths.push(NodeDeath {
                node,
                disk: DiskState::Kept,
                is_late: kind == 2,
            }),
            3 => plan.deaths.push(death(node, DiskState::Deleted, random)),
            4 => plan.deaths.push(death(node, DiskState::Old, random)),
            5..=8 => plan.fault = Some(Self::fault(kind - 5, node, random)),
            9 => {
                let disks = [DiskState::Kept, DiskState::Deleted, DiskState::Old];
                for node in [node, (node + 1) % NODES] {
                    let disk = disks[random.below(3)];
                    plan.deaths.push(death(node, disk, random));
                }
            }
            _ => {
                plan.deaths.push(death(node, lost, random));
                plan.fault = Some(Self::fault(random.below(4), node, random));
            }
        }
        plan
    }

    fn fault(kind: usize, node: usize, random: &mut Random) -> RedisFault {
        let coin = random.below(2) == 0;
        match kind {
            0 => RedisFault::Killed,
            1 => RedisFault::CutOff { node, long: coin },
            2 => RedisFault::Flushed,
            _ => RedisFault::FailedOver { crash: coin },
        }
    }
}

/// So many rounds; each kind comes once before any comes again.
fn rounds(count: usize, mode: &'static str) {
    let _alone = heavy();
    let mut random = Random::new();
    let history = Arc::new(LossHistory::default());
    let mut site = LossSite::start(mode, Arc::clone(&history));
    site.settle();
    let clients = Clients::begin(&site, &mut random);
    let mut deck: Vec<usize> = Vec::new();
    for round in 0..count {
        if deck.is_empty() {
            deck = (0..KINDS).collect();
            for n in (1..KINDS).rev() {
                deck.swap(n, random.below(n + 1));
            }
        }
        let last_of_few = count < KINDS && round == count - 1;
        let kind = match last_of_few {
            true => KINDS - 1,
            false => deck.pop().unwrap_or_default(),
        };
        for open in &clients.open[FLAPPING..] {
            open.store(random.below(2) == 0, Ordering::SeqCst);
        }
        let plan = RoundPlan::of(kind, &mut random);
        run(&mut site, &plan, &mut random);
        let standing_still = history.posting.write();
        site.settle();
        drop(standing_still);
    }
    clients.end(&site);

    let report = history.report();
    eprintln!(
        "{} answered ok, {} acknowledged\nmore than once: {:#?}\nboth lost (all, never acknowledged): {:#?}",
        report.promised, report.acknowledged, report.twice, report.both_lost
    );
    for id in &report.unexplained {
        site.tell(id);
    }
    assert!(
        report.promised > 10 * count,
        "only {} were answered ok",
        report.promised
    );
    let (lost, twice) = (&report.lost, &report.without_reason);
    assert!(lost.is_empty(), "{} lost: {lost:#?}", lost.len());
    assert!(
        twice.is_empty(),
        "{} acknowledged twice without a reason: {twice:#?}",
        twice.len()
    );
}

/// One round, until everybody is back.
fn run(site: &mut LossSite, plan: &RoundPlan, random: &mut Random) {
    let mut a_while =
        || crate::support::let_pass(Duration::from_millis(50 + random.below(600) as u64));
    a_while();
    let mut fault = plan.fault;
    if let Some(fault) = fault.filter(|_| plan.fault_is_first) {
        site.begin(fault);
        a_while();
    }
    for death in &plan.deaths {
        let held: HashSet<String> = site.held(death.node).into_iter().collect();
        let had_lost_redis = site.has_lost_redis(death.node);
        site.kill(death.node, death.disk);
        if death.disk != DiskState::Kept {
            name_what_loses_both(site, plan, death.node, held, had_lost_redis);
        }
    }
    if let Some(fault) = fault.filter(|_| !plan.fault_is_first) {
        site.begin(fault);
    }
    a_while();
    // Those that come back at once may do so while Redis is at fault.
    for death in plan.deaths.iter().filter(|death| !death.is_late) {
        if random.below(2) == 0 {
            site.revive(death.node);
        }
    }
    if let Some(fault) = fault.take() {
        site.end(fault);
    }
    if plan.deaths.iter().any(|death| death.is_late) {
        site.wait_inherited();
    }
    for death in &plan.deaths {
        site.revive(death.node);
    }
}

/// What the node that is killed now has nowhere else.
fn name_what_loses_both(
    site: &LossSite,
    plan: &RoundPlan,
    node: usize,
    held: HashSet<String>,
    had_lost_redis: bool,
) {
    let history = &site.history;
    match plan.fault {
        Some(RedisFault::Flushed) => {
            history.loses_both(node, held, "a disk, and everything in Redis");
        }
        Some(RedisFault::FailedOver { .. }) => {
            history.loses_both(node, HashSet::new(), "a disk, and what a replica lacked");
        }
        // What was stored while Redis was away is on the disk alone; with "require" nothing is.
        Some(RedisFault::Killed | RedisFault::CutOff { .. }) if !site.is_required() => {
            history.loses_both(node, HashSet::new(), "a disk, while Redis was away");
        }
        _ if had_lost_redis && !site.is_required() => {
            history.loses_both(node, HashSet::new(), "a disk of a node that had lost Redis");
        }
        _ => {}
    }
}
