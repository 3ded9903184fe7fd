//! Fuzz target: see `targets/archive.rs`.

#![no_main]

#[path = "../targets/archive.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
