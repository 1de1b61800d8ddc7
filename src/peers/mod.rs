//! Who a peer is, by its address: networks that it may come from, and how often it has failed.
//!
//! | part | what lives there |
//! |---|---|
//! | `network` | `10.0.0.0/8`: parsed, and asked whether an address is in it |
//! | `failures` | how many times each peer has failed of late, in bounded memory |
//!
//! Nothing here owns a socket or knows what a failure is.

mod failures;
mod network;

pub use failures::{Failures, Judged};
pub use network::{BadNetwork, Network, Networks};
