//! Sessions over real sockets: what no single file of this module can promise alone.

mod acks;
mod ending;
mod order;
mod setup;
mod talk;

/// Numbers that differ from run to run; the seed is printed so that a failure can be had again.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let seed = std::env::var("PAYRELAY_SEED").ok();
        let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |since| since.as_nanos() as u64)
        });
        println!("PAYRELAY_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }
}
