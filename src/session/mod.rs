//! The backends' side: accept, one thread per socket, the codec, the registry.

pub mod wire;
