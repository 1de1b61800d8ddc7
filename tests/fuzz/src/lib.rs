//! What must hold of every input, one module for each kind; `fuzz_targets` calls them with the fuzzer's inputs.

pub mod config;
pub mod edge;
#[path = "../../data/genuine.rs"]
mod genuine;
pub mod signed;
pub mod verify;
pub mod wire;
