//! What a report costs the disk: an SD card lives as long as little is written to it. Counts the bytes that this
//! process writes and those that the kernel sends to the disk for it, log and its writing back included; so it is alone
//! in its file. With `ROENTGEN_WEAR_HISTORY=20000 … -- --nocapture` it measures on an outbox that holds so many reports
//! already.

#[path = "common/queue.rs"]
mod queue;

use queue::{enqueue, report};
use roentgen::outbox::{Config, Outbox};
use std::fs;

/// A counter of `/proc/self/io`.
fn counter(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn a_report_costs_the_disk_less_than_sixteen_kilobytes() {
    let history = setting("ROENTGEN_WEAR_HISTORY", 0);
    let measured = setting("ROENTGEN_WEAR_REPORTS", 300);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // As full as it may be, so that every report that comes makes another one go.
    let bound = (history + measured / 2).max(100);
    let config = Config { max_reports: bound, ..Config::default() };
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path, &config).unwrap();
    enqueue(&mut outbox, 1..=history);
    outbox.mark_sent_up_to(history).unwrap();
    drop(outbox);
    let mut outbox = Outbox::open(&path, &config).unwrap();
    let (written, to_disk) = (counter("wchar"), counter("write_bytes"));
    for n in history + 1..=history + measured {
        enqueue(&mut outbox, [n]);
        let sent = outbox.next_batch(64).unwrap().last().unwrap().sequence;
        outbox.mark_sent_up_to(sent).unwrap();
    }
    drop(outbox);
    let (written, to_disk) = ((counter("wchar") - written) / measured, (counter("write_bytes") - to_disk) / measured);
    let json = serde_json::to_string(&report(1)).unwrap().len();
    println!(
        "a report of {json} bytes: {written} bytes written, {to_disk} bytes to the disk ({history} reports before)"
    );
    assert!(written < 16 << 10, "{written} bytes a report");
}
