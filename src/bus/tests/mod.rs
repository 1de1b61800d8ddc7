//! What every kind of bus promises, shown on each: one node alone, and two nodes on one Redis, on a primary that sentinels
//! name and on a cluster, all real servers that the test starts.

mod crowd;
mod dedupe;
mod events;
mod node;
mod pair;
mod promises;
mod redis_away;
pub(in crate::bus) mod server;
mod sessions;

/// Every promise, once for each kind of bus.
macro_rules! on_every_carrier {
    ($($module:ident :: $promise:ident,)+) => {
        mod memory {
            $(#[test]
            fn $promise() {
                super::$module::$promise(&super::pair::Pair::alone());
            })+
        }

        mod redis {
            $(#[test]
            fn $promise() {
                super::$module::$promise(&super::pair::Pair::over_redis());
            })+
        }

        mod sentinel {
            $(#[test]
            fn $promise() {
                super::$module::$promise(&super::pair::Pair::over_sentinel());
            })+
        }

        mod cluster {
            $(#[test]
            fn $promise() {
                super::$module::$promise(&super::pair::Pair::over_a_cluster());
            })+
        }
    };
}

on_every_carrier! {
    promises::what_is_sent_is_answered_as_the_backend_did,
    promises::a_backend_that_is_nowhere_is_told_at_once,
    promises::a_backend_is_reached_when_it_is_told_so_and_not_when_it_has_left,
    promises::a_notification_arrives_as_it_was,
    promises::notifications_arrive_in_the_order_sent,
    promises::an_envelope_that_is_dropped_says_so,
    promises::data_is_carried_as_it_is,
    promises::every_arrival_is_heard_on_every_node,
    promises::presence_names_everybody_once,
    promises::a_bus_that_stands_says_nothing_is_wrong,
    events::an_emit_tells_on_how_many_nodes_it_was_heard,
    events::every_listener_of_a_channel_hears_and_no_other,
    events::bytes_stay_bytes_and_json_stays_json,
    events::once_fires_once_although_two_nodes_emit_together,
    events::what_is_removed_hears_no_more,
    events::listeners_may_come_and_go_while_events_fly,
    events::a_listener_that_panics_harms_nobody,
    events::what_is_too_big_is_refused_and_nothing_else_is,
    crowd::those_who_come_and_go_at_the_same_time_leave_nothing_behind,
    crowd::everybody_who_waits_to_be_reached_is_told,
}
