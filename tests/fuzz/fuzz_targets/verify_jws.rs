//! Fuzzes `payrelay_fuzz::signed::jws`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| payrelay_fuzz::signed::jws(data));
