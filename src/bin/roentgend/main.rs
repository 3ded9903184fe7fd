//! `roentgend`: the daemon.
fn main() {}
