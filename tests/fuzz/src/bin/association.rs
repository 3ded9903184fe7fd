//! Fuzz target: see `targets/association.rs`.

#![no_main]

#[path = "../targets/association.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
