//! The map of the house.

pub mod config;
pub mod edge;
pub mod fds;
pub mod notification;
pub mod thread;
