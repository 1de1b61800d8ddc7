//! The work that is measured, the same for the clock (`speed`) and for the count of instructions (`instructions`).
//!
//! A new piece of work, a verifier for one, is a file here and a line in [`all`].

mod codec;
mod session;

/// Something to measure: a name, and how to get ready to do it again and again.
pub struct Work {
    /// As it stands in the baseline.
    pub name: &'static str,
    /// Gets ready; what comes back does it once each time it is called.
    pub prepare: fn() -> Box<dyn FnMut()>,
    /// Whether it is the same to the last instruction each time: no second thread has a part in it.
    #[allow(dead_code, reason = "a clock does not ask")]
    pub steady: bool,
}

/// Everything that is measured.
pub fn all() -> Vec<Work> {
    codec::WORK.into_iter().chain(session::WORK).collect()
}

/// The piece of work called `name`.
pub fn named(name: &str) -> Option<Work> {
    all().into_iter().find(|work| work.name == name)
}
