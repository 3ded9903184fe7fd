//! Fuzz target: see `targets/wire.rs`.

#![no_main]

#[path = "../targets/wire.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
