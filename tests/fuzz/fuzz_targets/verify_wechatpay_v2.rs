//! Fuzzes `payrelay_fuzz::verify::wechatpay_v2`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| payrelay_fuzz::verify::wechatpay_v2(data));
