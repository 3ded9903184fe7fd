//! The outbox keeps within its bounds: the oldest go first, what was sent before what was not, losses are counted, and
//! the file gives its room back. (That count and order hold in any sequence of events, `outbox.rs` checks against a
//! list.)

#[path = "common/queue.rs"]
mod queue;

use queue::{enqueue, report, unsent};
use roentgen::outbox::retention::MARGIN_BYTES;
use roentgen::outbox::{Config, Enqueued, Losses, Outbox};
use roentgen::report::Clock;
use std::fs;
use std::path::Path;

fn sent_on(path: &Path, up_to: u64, at: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let changed = connection.execute("UPDATE deliveries SET at = ?1 WHERE up_to = ?2", (at, up_to)).unwrap();
    assert_eq!(changed, 1);
}

#[test]
fn age_costs_what_was_sent_long_ago_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    enqueue(&mut outbox, 1..=9);
    outbox.mark_sent_up_to(3).unwrap();
    outbox.mark_sent_up_to(6).unwrap();
    drop(outbox);
    sent_on(&path, 3, "2020-01-01T00:00:00.000Z");
    // Received in January 2026 all of them: that is not what counts.
    let mut outbox = Outbox::open(&path, &Config { max_age_days: 1, ..Config::default() }).unwrap();
    outbox.tidy(Clock::Unsynchronised).unwrap();
    assert_eq!(outbox.total(), 9, "a clock that nobody vouches for may be years ahead");
    outbox.tidy(Clock::Synchronised).unwrap();
    assert_eq!((outbox.total(), unsent(&mut outbox)), (6, vec![7, 8, 9]));
    assert_eq!(outbox.known(&report(3).report_id).unwrap(), None);
    assert!(outbox.known(&report(4).report_id).unwrap().is_some());
    assert_eq!(outbox.take_losses(), Losses::default());
}

#[test]
fn sequences_go_on_where_everything_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    enqueue(&mut outbox, 1..=5);
    outbox.mark_sent_up_to(5).unwrap();
    drop(outbox);
    sent_on(&path, 5, "2020-01-01T00:00:00.000Z");
    // The altered mark counts no longer: the reports would be sent again before they could go.
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    assert_eq!(unsent(&mut outbox).len(), 5, "a mark that is not what was written costs no report");
    drop(outbox);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("UPDATE state SET last_sequence = 5; DELETE FROM reports;").unwrap();
    drop(connection);
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    assert_eq!(outbox.enqueue(&report(6)).unwrap(), Enqueued::Queued(6));
}

#[test]
fn bytes_are_bounded_at_every_moment_and_losses_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let config = Config { max_bytes: 2 << 20, ..Config::default() };
    let mut outbox = Outbox::open(&path, &config).unwrap();
    let (all, sent) = (3000, 500);
    for n in 1..=all {
        enqueue(&mut outbox, [n]);
        if n == sent {
            outbox.mark_sent_up_to(n).unwrap();
        }
        assert!(outbox.bytes() <= config.max_bytes + MARGIN_BYTES, "{} bytes after {n}", outbox.bytes());
    }
    let Losses { dropped, undeliverable } = outbox.take_losses();
    let (oldest, total) = (unsent(&mut outbox)[0], outbox.total());
    assert_eq!((oldest, outbox.unsent().unwrap()), (all - total + 1, total), "the newest, without a gap");
    assert_eq!((dropped + sent + outbox.total(), undeliverable), (all, 0), "lost, sent and kept are all there were");
    assert!(dropped > 0 && outbox.total() > 1000, "{dropped} of {all}, {} kept", outbox.total());
    drop(outbox);
    // The log is gone with the last process: now the file alone.
    assert!(
        fs::metadata(&path).unwrap().len() <= config.max_bytes + (64 << 10),
        "{}",
        fs::metadata(&path).unwrap().len()
    );

    let mut outbox = Outbox::open(&path, &Config { max_reports: 100, ..config }).unwrap();
    assert_eq!(outbox.total(), 99, "a hundredth more than must go");
    let before = unsent(&mut outbox);
    drop(outbox);
    let bytes = fs::metadata(&path).unwrap().len();
    assert!(bytes < 600 << 10, "room is given back: {bytes}");
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    assert_eq!(unsent(&mut outbox), before);
}

#[test]
fn other_bounds_are_taken_while_nothing_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    enqueue(&mut outbox, 1..=150);
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    outbox.reconfigure(&Config { max_reports: 100, ..Config::default() });
    assert_eq!(outbox.total(), 150);
    other.execute_batch("ROLLBACK").unwrap();
    outbox.tidy(Clock::Unsynchronised).unwrap();
    assert_eq!(outbox.total(), 99, "a hundredth more than must go");
}
