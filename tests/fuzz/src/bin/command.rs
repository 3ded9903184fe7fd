//! Fuzz target: see `targets/command.rs`.

#![no_main]

#[path = "../targets/command.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
