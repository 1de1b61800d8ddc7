//! Durations and sizes with their units: text in, milliseconds or bytes out.
//!
//! Nothing here knows a key. One scale serves both, so that both are read and complained about alike.

use std::fmt;
use std::ops::RangeInclusive;

/// A kind of quantity: its units, smallest first.
#[derive(Debug, PartialEq, Eq)]
pub struct Scale {
    noun: &'static str,
    /// What is needed where this scale is, for errors about types.
    pub wanted: &'static str,
    example: &'static str,
    /// Each unit and how many of the base unit it is.
    units: &'static [(&'static str, u64)],
    /// What people write instead, in lower case, and what they mean.
    nicknames: &'static [(&'static str, &'static str)],
    /// Which unit a bare number most likely means, most likely first.
    likely: &'static [&'static str],
}

/// Durations, in milliseconds.
pub static DURATION: Scale = Scale {
    noun: "a duration",
    wanted: "a duration, such as \"10s\",",
    example: "10s",
    units: &[
        ("ms", 1),
        ("s", SECOND),
        ("m", MINUTE),
        ("h", HOUR),
        ("d", DAY),
    ],
    nicknames: &[
        ("msec", "ms"),
        ("millis", "ms"),
        ("sec", "s"),
        ("secs", "s"),
        ("second", "s"),
        ("seconds", "s"),
        ("min", "m"),
        ("mins", "m"),
        ("minute", "m"),
        ("minutes", "m"),
        ("hr", "h"),
        ("hour", "h"),
        ("hours", "h"),
        ("day", "d"),
        ("days", "d"),
    ],
    likely: &["s", "ms", "m", "h", "d"],
};

/// Sizes, in bytes.
pub static SIZE: Scale = Scale {
    noun: "a size",
    wanted: "a size, such as \"1MiB\",",
    example: "1MiB",
    units: &[("B", 1), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB)],
    nicknames: &[
        ("byte", "B"),
        ("bytes", "B"),
        ("k", "KiB"),
        ("kb", "KiB"),
        ("ki", "KiB"),
        ("m", "MiB"),
        ("mb", "MiB"),
        ("mi", "MiB"),
        ("g", "GiB"),
        ("gb", "GiB"),
        ("gi", "GiB"),
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

/// Why a text is no such quantity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuantity {
    scale: &'static Scale,
    allowed: RangeInclusive<u64>,
    why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// Not digits and a unit.
    Shape,
    /// Digits alone; what to write instead.
    NoUnit(Option<String>),
    /// Not a unit of this scale; what to write instead.
    BadUnit(Option<String>),
    OutOfRange,
}

impl Scale {
    /// Reads `text`, digits and a unit, as a number of base units within `allowed`.
    pub fn parse(
        &'static self,
        text: &str,
        allowed: RangeInclusive<u64>,
    ) -> Result<u64, BadQuantity> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let why = if number.is_empty() || unit.starts_with(['.', ',']) {
            Why::Shape
        } else if unit.is_empty() {
            return Err(self.bare(number, allowed));
        } else if let Some(factor) = self.factor(unit) {
            match number
                .parse::<u64>()
                .ok()
                .and_then(|n| n.checked_mul(factor))
            {
                Some(base) if allowed.contains(&base) => return Ok(base),
                _ => Why::OutOfRange,
            }
        } else {
            Why::BadUnit(self.meant(number, unit))
        };
        Err(BadQuantity {
            scale: self,
            allowed,
            why,
        })
    }

    /// The error for `number` without a unit: names the first likely unit with which it would be allowed.
    pub fn bare(&'static self, number: &str, allowed: RangeInclusive<u64>) -> BadQuantity {
        let fits = |unit: &&&str| {
            let base = number
                .parse::<u64>()
                .ok()
                .zip(self.factor(unit))
                .and_then(|(n, factor)| n.checked_mul(factor));
            base.is_some_and(|base| allowed.contains(&base))
        };
        let write = self
            .likely
            .iter()
            .find(fits)
            .map(|unit| format!("{number}{unit}"));
        BadQuantity {
            scale: self,
            allowed,
            why: Why::NoUnit(write),
        }
    }

    fn factor(&self, unit: &str) -> Option<u64> {
        self.units
            .iter()
            .find_map(|&(name, factor)| (name == unit).then_some(factor))
    }

    fn meant(&self, number: &str, unit: &str) -> Option<String> {
        let unit = unit.trim().to_ascii_lowercase();
        let by_case = self
            .units
            .iter()
            .map(|&(name, _)| (name, name))
            .find(|(name, _)| name.eq_ignore_ascii_case(&unit));
        let (_, unit) = by_case.or_else(|| {
            self.nicknames
                .iter()
                .copied()
                .find(|(nick, _)| *nick == unit)
        })?;
        Some(format!("{number}{unit}"))
    }

    /// Writes `base` in the largest unit that divides it; nothing in the usual one.
    fn write(&self, base: u64) -> String {
        let whole = self
            .units
            .iter()
            .rev()
            .find(|(_, factor)| base.is_multiple_of(*factor));
        match whole {
            Some((unit, factor)) if base > 0 => format!("{}{unit}", base / factor),
            _ => format!("{base}{}", self.likely[0]),
        }
    }
}

impl std::error::Error for BadQuantity {}

impl fmt::Display for BadQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scale,
            allowed,
            why,
        } = self;
        let units: Vec<_> = scale.units.iter().map(|(unit, _)| *unit).collect();
        let limits = format!(
            "{} to {}",
            scale.write(*allowed.start()),
            scale.write(*allowed.end())
        );
        let write = match why {
            Why::OutOfRange => return write!(f, "out of range; allowed: {limits}"),
            Why::Shape => {
                write!(
                    f,
                    "{} is a whole number and a unit, such as \"{}\"",
                    scale.noun, scale.example
                )?;
                &None
            }
            Why::NoUnit(write) => {
                write!(f, "{} needs a unit", scale.noun)?;
                write
            }
            Why::BadUnit(write) => {
                write!(f, "not a unit of {}", scale.noun)?;
                write
            }
        };
        if let Some(write) = write {
            write!(f, "; write \"{write}\"")?;
        }
        write!(f, " ({}; {limits})", units.join(", "))
    }
}
