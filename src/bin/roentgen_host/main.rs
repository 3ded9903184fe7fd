//! `roentgen-host`: the host tool.
fn main() {}
