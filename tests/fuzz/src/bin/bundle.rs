//! Fuzz target: see `targets/bundle.rs`.

#![no_main]

#[path = "../targets/bundle.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
