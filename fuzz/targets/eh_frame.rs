#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| trapline_symbols::fuzz::eh_frame(bytes));
