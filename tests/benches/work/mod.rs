//! The work that is measured, the same for the clock (`speed`) and for the count of instructions (`instructions`).
//!
//! A new kind of work is a file here and a line in [`all`].

mod codec;
mod session;
mod verify;

/// Something to measure: a name, and how to get ready to do it again and again.
pub struct Work {
    /// As it stands in the baseline.
    pub name: &'static str,
    /// Gets ready; what comes back does it once each time it is called.
    pub prepare: fn() -> Box<dyn FnMut()>,
    /// How its instructions can be counted.
    #[allow(dead_code, reason = "a clock does not ask")]
    pub count: Count,
}

/// How many instructions a piece of work is each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// As many, to the last one: no second thread has a part in it.
    Same,
    /// Nearly as many.
    Near,
    /// That depends on the processor, which the crypto crate asks what it can: a record of one says nothing of another.
    Varies,
}

/// Everything that is measured.
pub fn all() -> Vec<Work> {
    let all = codec::WORK.into_iter().chain(session::WORK);
    all.chain(verify::WORK).collect()
}

/// The piece of work called `name`.
pub fn named(name: &str) -> Option<Work> {
    all().into_iter().find(|work| work.name == name)
}
