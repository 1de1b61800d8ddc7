//! The guard of a batch: whether the counts of its publishes can be believed.
//!
//! PUBLISH succeeds on a replica, on a primary that has been replaced, and on one that is cut off; it counts the subscribers of
//! that server only. `DEL` of a key that does not exist is refused in all these cases. So each batch ends with it, and
//! anything but an integer means that the batch's counts prove nothing.

use redis::{RedisError, Value};

use super::link::LinkError;

/// What the guard's reply says of its batch and of the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Guard {
    /// The counts are the primary's.
    Proven,
    /// They are, and the server has another trouble that the operator should know.
    ProvenBut(LinkError),
    /// The counts prove nothing, and this may pass: stay connected.
    Wait(LinkError),
    /// The counts prove nothing, and this server is not the primary: connect anew.
    Leave(LinkError),
}

impl Guard {
    /// What `reply` says.
    pub fn of(reply: &Result<Value, RedisError>) -> Self {
        let error = match reply {
            Ok(Value::Int(_)) => return Self::Proven,
            Ok(_) => return Self::Wait(LinkError("the guard got a strange reply".into())),
            Err(error) => error,
        };
        let because = |words: &str| LinkError(format!("{words} ({error})"));
        match error.code() {
            // Only the owner of the slot answers so, while it hands the slot over.
            Some("ASK") => Self::Proven,
            Some("MISCONF") => Self::ProvenBut(because(
                "Redis cannot save to its disk and refuses to write, so an event that arrives at two nodes is not recognised",
            )),
            Some("READONLY") => Self::Leave(because("this server is a replica, not the primary")),
            Some("MASTERDOWN") => Self::Leave(because(
                "this server is a replica that has lost its primary",
            )),
            Some("NOREPLICAS") => Self::Wait(because(
                "the primary has too few replicas (min-replicas-to-write) and may have been replaced",
            )),
            Some("CLUSTERDOWN") => Self::Wait(because("the cluster is down")),
            Some("LOADING") => Self::Wait(because("Redis is loading its data")),
            Some("MOVED") => Self::Wait(LinkError("slots have moved to another primary".into())),
            Some("NOPERM") => Self::Wait(because(
                "the user lacks a right: each batch is guarded with DEL, which needs +del and ~<redis.prefix>:*",
            )),
            _ => Self::Wait(LinkError::from_reply(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: &str) -> Guard {
        let bytes = format!("-{error}\r\n");
        let reply = redis::parse_redis_value(bytes.as_bytes()).expect("a reply");
        Guard::of(&match reply {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        })
    }

    #[test]
    fn each_error_of_a_server_that_may_not_write_has_its_rule() {
        assert_eq!(Guard::of(&Ok(Value::Int(0))), Guard::Proven);
        assert_eq!(of("ASK 7 127.0.0.1:7001"), Guard::Proven);
        let rules = [
            (
                "READONLY You can't write against a read only replica.",
                "leave",
            ),
            ("MASTERDOWN Link with MASTER is down", "leave"),
            ("NOREPLICAS Not enough good replicas to write.", "wait"),
            ("CLUSTERDOWN The cluster is down", "wait"),
            ("LOADING Redis is loading the dataset in memory", "wait"),
            ("MOVED 7 127.0.0.1:7001", "wait"),
            ("NOPERM this user has no permissions", "wait"),
            ("TRYAGAIN Multiple keys request during rehashing", "wait"),
            ("ERR unknown", "wait"),
            ("MISCONF Redis is configured to save RDB snapshots", "but"),
        ];
        for (error, rule) in rules {
            let guard = of(error);
            let found = match &guard {
                Guard::Proven => "proven",
                Guard::ProvenBut(_) => "but",
                Guard::Wait(_) => "wait",
                Guard::Leave(_) => "leave",
            };
            assert_eq!(found, rule, "{error}: {guard:?}");
        }
    }
}
