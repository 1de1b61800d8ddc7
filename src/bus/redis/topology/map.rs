//! The slots of a cluster, as `CLUSTER NODES` tells them. Pure.
//!
//! Source of the format: the Redis documentation of CLUSTER NODES. A line is
//! `id ip:port@bus-port[,hostname] flags primary ping-sent pong-received config-epoch link-state [slot …]`.

use crate::bus::redis::slots::{BUCKETS, SLOTS, SLOTS_EACH};

/// The owner of a slot, and the configuration epoch in which it became that.
type Owner = (String, u64);

/// What one node of the cluster says.
#[derive(Debug, Default)]
pub struct NodesReply {
    /// For each slot its owner.
    slots: Vec<Option<Owner>>,
    /// Every node's address, to be asked the next time.
    pub nodes: Vec<String>,
}

/// Reads `text`. `asked`: the host that was asked, for nodes that do not know their own address.
pub fn read(text: &str, asked: &str) -> NodesReply {
    let mut reply = NodesReply {
        slots: vec![None; SLOTS],
        nodes: Vec::new(),
    };
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(_id), Some(address), Some(flags)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let flags: Vec<&str> = flags.split(',').collect();
        if flags.contains(&"noaddr") || flags.contains(&"handshake") {
            continue;
        }
        let Some(name) = name(address, asked) else {
            continue;
        };
        reply.nodes.push(name.clone());
        let epoch = words.nth(3).and_then(|word| word.parse().ok());
        let Some(epoch) = epoch.filter(|_| flags.contains(&"master")) else {
            continue;
        };
        // After the link's state. A slot that is being handed over stands in brackets and is still its owner's.
        for slot in words.skip(1).filter(|slot| !slot.starts_with('[')) {
            let (first, last) = slot.split_once('-').unwrap_or((slot, slot));
            if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>())
                && let Some(slots) = reply.slots.get_mut(first..=last)
            {
                slots.fill(Some((name.clone(), epoch)));
            }
        }
    }
    reply
}

/// `ip:port@bus-port[,hostname]` as `host:port`.
fn name(address: &str, asked: &str) -> Option<String> {
    let (ip_port, rest) = address.split_once('@')?;
    let (ip, port) = ip_port.rsplit_once(':')?;
    // A host name is announced on purpose, since the address cannot be reached from outside.
    let host = rest.split(',').nth(1).filter(|host| !host.is_empty());
    let host = host.unwrap_or(if ip.is_empty() { asked } else { ip });
    Some(match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    })
}

/// The slots as this node believes them.
#[derive(Debug)]
pub struct SlotMap {
    slots: Vec<Option<Owner>>,
}

impl Default for SlotMap {
    fn default() -> Self {
        Self {
            slots: vec![None; SLOTS],
        }
    }
}

impl SlotMap {
    /// Takes over what a node says. A slot changes its owner only to an equal or higher epoch: a primary that was stopped and
    /// wakes up tells what was true before.
    pub fn learn(&mut self, reply: NodesReply) {
        for (known, reply) in self.slots.iter_mut().zip(reply.slots) {
            let Some((name, epoch)) = reply else { continue };
            match known {
                Some((_, since)) if epoch < *since => {}
                _ => *known = Some((name, epoch)),
            }
        }
    }

    /// The primary of each bucket whose tag lies in the slot that `slot_of` says.
    pub fn primaries(&self, slot_of: &[usize]) -> Vec<Option<String>> {
        debug_assert_eq!((slot_of.len(), SLOTS_EACH * BUCKETS), (BUCKETS, SLOTS));
        let owner = |slot: &usize| self.slots[*slot].as_ref().map(|(name, _)| name.clone());
        slot_of.iter().map(owner).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
07c37df 127.0.0.1:30004@31004,hostname4 slave e7d1eec 0 1426238317239 4 connected
67ed2db :30002@31002 master - 0 1426238316232 2 connected 5461-10922 [93-<-292f8b3]
292f8b3 127.0.0.1:30003@31003, master,fail? - 0 1426238318243 3 connected 10923-16383
824fe11 :0@0 slave,noaddr 67ed2db 0 1426238316232 5 disconnected
e7d1eec ::1:30001@31001 myself,master - 0 0 1 connected 0-92 94-5460
";

    fn owner(map: &SlotMap, slot: usize) -> Option<&str> {
        map.slots[slot].as_ref().map(|(name, _)| name.as_str())
    }

    #[test]
    fn nodes_are_read_with_their_slots() {
        let mut map = SlotMap::default();
        let reply = read(NODES, "redis.internal");
        let nodes = [
            "hostname4:30004",
            "redis.internal:30002",
            "127.0.0.1:30003",
            "[::1]:30001",
        ];
        assert_eq!(reply.nodes, nodes);
        map.learn(reply);
        for (slot, wanted) in [
            (0, Some("[::1]:30001")),
            (92, Some("[::1]:30001")),
            (93, None),
            (5461, Some("redis.internal:30002")),
            (16_383, Some("127.0.0.1:30003")),
        ] {
            assert_eq!(owner(&map, slot), wanted, "{slot}");
        }
        for broken in [
            "",
            "x",
            "a b c",
            "a 1@2 master - 0 0 x connected 0-1",
            "a h:1@2 master - 0 0 1 c 9-1 99999",
        ] {
            map.learn(read(broken, "h"));
        }
        assert_eq!(owner(&map, 0), Some("[::1]:30001"));
    }

    #[test]
    fn an_older_epoch_says_nothing_new() {
        let line =
            |port: u16, epoch: u64| format!("x h:{port}@1 master - 0 0 {epoch} connected 0-9\n");
        let mut map = SlotMap::default();
        for (port, epoch, wanted) in [
            (1, 5, "h:1"),
            (2, 4, "h:1"),
            (2, 5, "h:2"),
            (3, 6, "h:3"),
            (1, 5, "h:3"),
        ] {
            map.learn(read(&line(port, epoch), "h"));
            assert_eq!(owner(&map, 7), Some(wanted));
        }
    }
}
