//! Hash slots of a Redis cluster, and tags that name a bucket of them.
//!
//! Source: the Redis cluster specification: slot = CRC16(tag or key) mod 16384, CRC16 as in XMODEM (polynomial 1021).

/// Slots of a cluster.
pub const SLOTS: usize = 16_384;

/// Buckets that the relay divides a cluster's slots into. Enough to spread over many primaries, and few enough to prove each
/// with a message a second.
pub const BUCKETS: usize = 256;

/// Slots of one bucket.
pub const SLOTS_EACH: usize = SLOTS / BUCKETS;

/// The checksum that a slot comes of.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

/// The slot of a tag, which is what stands between `{` and `}` in a name.
pub fn slot(tag: &str) -> usize {
    usize::from(crc16(tag.as_bytes())) % SLOTS
}

/// A tag for each bucket: the smallest decimal number whose slot lies in the bucket's range. So buckets stay even wherever a
/// cluster's primaries divide the slots.
pub fn tags() -> Vec<String> {
    let mut tags = vec![String::new(); BUCKETS];
    let mut missing = BUCKETS;
    for n in 0u32.. {
        let text = n.to_string();
        let tag = &mut tags[slot(&text) / SLOTS_EACH];
        if tag.is_empty() {
            *tag = text;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT foo; the specification's own example for the checksum.
        assert_eq!(slot("foo"), 12_182);
        assert_eq!(crc16(b"123456789"), 0x31C3);
    }

    #[test]
    fn each_bucket_has_the_smallest_tag_of_its_range() {
        let tags = tags();
        assert_eq!(tags.len(), BUCKETS);
        for (bucket, tag) in tags.iter().enumerate() {
            let first = (0u32..).find(|n| slot(&n.to_string()) / SLOTS_EACH == bucket);
            assert_eq!(first.map(|n| n.to_string()), Some(tag.clone()));
        }
    }
}
