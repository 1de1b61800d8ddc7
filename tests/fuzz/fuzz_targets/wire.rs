//! Fuzzes `payrelay_fuzz::wire::run`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| payrelay_fuzz::wire::run(data));
