//! Fuzzes `payrelay_fuzz::signed::signed`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| payrelay_fuzz::signed::signed(data));
