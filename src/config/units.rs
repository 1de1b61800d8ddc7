//! Durations and sizes with their units: text in, milliseconds or bytes out.
//!
//! Nothing here knows a key. One scale serves both, so that both are read and complained about alike.

use std::ops::RangeInclusive;

/// A kind of quantity: its units, smallest first.
#[derive(Debug, PartialEq, Eq)]
pub struct Scale {
    noun: &'static str,
    /// What is needed where this scale is, for errors about types.
    pub wanted: &'static str,
    example: &'static str,
    /// Each unit, how many of the base unit it is, and what people write instead, in lower case.
    units: &'static [(&'static str, u64, &'static str)],
    /// Which unit a bare number most likely means, most likely first.
    likely: &'static [&'static str],
}

/// Durations, in milliseconds.
pub static DURATION: Scale = Scale {
    noun: "a duration",
    wanted: "a duration, such as \"10s\",",
    example: "10s",
    units: &[
        ("ms", 1, "msec millis"),
        ("s", SECOND, "sec secs second seconds"),
        ("m", MINUTE, "min mins minute minutes"),
        ("h", HOUR, "hr hour hours"),
        ("d", DAY, "day days"),
    ],
    likely: &["s", "ms", "m", "h", "d"],
};

/// Sizes, in bytes.
pub static SIZE: Scale = Scale {
    noun: "a size",
    wanted: "a size, such as \"1MiB\",",
    example: "1MiB",
    units: &[
        ("B", 1, "byte bytes"),
        ("KiB", KIB, "k kb ki"),
        ("MiB", MIB, "m mb mi"),
        ("GiB", GIB, "g gb gi"),
    ],
    likely: &["B", "MiB", "KiB", "GiB"],
};

pub const SECOND: u64 = 1000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;
pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

impl Scale {
    /// Reads `text`, digits and a unit, as a number of base units within `allowed`.
    ///
    /// # Errors
    /// It is none, or outside of `allowed`: a sentence that says so, and what is allowed.
    pub fn parse(&self, text: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        if number.is_empty() || unit.starts_with(['.', ',']) {
            let (noun, example) = (self.noun, self.example);
            let what = format!("{noun} is a whole number and a unit, such as \"{example}\"");
            return Err(self.wrong(what, number, None, &allowed));
        }
        if unit.is_empty() {
            return Err(self.bare(number, allowed));
        }
        let Some(factor) = self.factor(unit) else {
            let what = format!("not a unit of {}", self.noun);
            return Err(self.wrong(what, number, self.meant(unit), &allowed));
        };
        let base = number.parse().ok();
        let base = base.and_then(|n: u64| n.checked_mul(factor));
        base.filter(|base| allowed.contains(base))
            .ok_or_else(|| format!("out of range; allowed: {}", self.limits(&allowed)))
    }

    /// The error for `number` without a unit: names the first likely unit with which it would be allowed.
    pub fn bare(&self, number: &str, allowed: RangeInclusive<u64>) -> String {
        let fits = |unit: &&&str| {
            let base = number.parse().ok().zip(self.factor(unit));
            let base = base.and_then(|(n, factor): (u64, u64)| n.checked_mul(factor));
            base.is_some_and(|base| allowed.contains(&base))
        };
        let unit = self.likely.iter().find(fits).copied();
        let what = format!("{} needs a unit", self.noun);
        self.wrong(what, number, unit, &allowed)
    }

    /// The sentence that says `what` is wrong, what to write instead if that is known, and what is allowed.
    fn wrong(
        &self,
        what: String,
        number: &str,
        unit: Option<&str>,
        allowed: &RangeInclusive<u64>,
    ) -> String {
        let write = unit.map(|unit| format!("; write \"{number}{unit}\""));
        let units: Vec<_> = self.units.iter().map(|(unit, ..)| *unit).collect();
        let (units, limits) = (units.join(", "), self.limits(allowed));
        format!("{what}{} ({units}; {limits})", write.unwrap_or_default())
    }

    fn factor(&self, unit: &str) -> Option<u64> {
        let mut units = self.units.iter();
        units.find_map(|&(name, factor, _)| (name == unit).then_some(factor))
    }

    /// The unit that `unit` probably stands for.
    fn meant(&self, unit: &str) -> Option<&'static str> {
        let unit = unit.trim().to_ascii_lowercase();
        let mut units = self.units.iter();
        let found = units.find(|(name, _, others)| {
            name.eq_ignore_ascii_case(&unit) || others.split(' ').any(|other| other == unit)
        });
        found.map(|(name, ..)| *name)
    }

    fn limits(&self, allowed: &RangeInclusive<u64>) -> String {
        let (least, most) = (self.write(*allowed.start()), self.write(*allowed.end()));
        format!("{least} to {most}")
    }

    /// Writes `base` in the largest unit that divides it; nothing in the usual one.
    fn write(&self, base: u64) -> String {
        let mut units = self.units.iter().rev();
        match units.find(|(_, factor, _)| base.is_multiple_of(*factor)) {
            Some((unit, factor, _)) if base > 0 => format!("{}{unit}", base / factor),
            _ => format!("{base}{}", self.likely[0]),
        }
    }
}
