//! Which reports are dropped when, and what becomes of their room. The only place that removes a report from a sound
//! file.
//!
//! Reports leave in order, so those that were sent are the oldest: dropping the oldest drops what was sent before what
//! was not. In this order:
//!
//! 1. What the broker acknowledged more than `max_age_days` ago. Age never costs an unsent report, and nothing at all while
//!    nobody vouches for the clock: one that is years ahead would make everything old.
//! 2. Beyond `max_reports` or `max_bytes`: the oldest, in batches of a hundredth, so that a full box does not tidy up at
//!    every report. Once nothing that was sent is left, these are unsent ones: each batch is logged with its sequences
//!    and counted in [`Losses`]. The newest report always stays.
//!
//! The database file gives its room back once an eighth of it is free. It exceeds `max_bytes` by a page or two, and its
//! log (`-wal`) is at most about 8 MiB: see [`MARGIN_BYTES`]. For that, and because the line waits meanwhile, no
//! transaction is a long one, and what need not be done at once (age, giving room back) is done in several goes.

use super::{Outbox, OutboxError, last_sequence};
use crate::report::Clock;
use rusqlite::{Connection, TransactionBehavior, params};
use std::time::{Duration, Instant};

/// What database and log may together take beyond `max_bytes`.
pub const MARGIN_BYTES: u64 = 10 << 20;

/// How often age is looked at.
const TIDY: Duration = Duration::from_secs(3600);

/// How many reports one transaction removes at most, so that the log stays short.
const MOST_AT_ONCE: u64 = 1000;

/// How many pages one transaction gives back at most, for the same reason.
const MOST_PAGES: u64 = 1000;

/// How many such transactions there are in one go.
const GO: u32 = 4;

/// Reports that were given up: each was durable, and none of them reaches the broker any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Unsent ones that were dropped because of a bound.
    pub dropped: u64,
    /// Ones that cannot be delivered: too large for a packet, or damaged on the disk.
    pub undeliverable: u64,
}

impl Outbox {
    /// Removes what is too old, or some thousands of it, and writes what could not be written before. Age is looked at
    /// once an hour, or again the next time where there is more to remove, and only by a clock that is synchronised.
    pub fn tidy(&mut self, clock: Clock) -> Result<(), OutboxError> {
        self.write_mark()?;
        if self.tidied.is_some_and(|tidied| tidied.elapsed() < TIDY) {
            return Ok(());
        }
        if clock == Clock::Synchronised {
            self.drop_the_old()?;
        }
        self.make_room()
    }

    fn drop_the_old(&mut self) -> Result<(), OutboxError> {
        self.tidied = Some(Instant::now());
        let days = format!("-{} days", self.config.max_age_days);
        // Only before the first young mark: marks are made in order, so an old one behind it was made by a wrong clock. One
        // of the future says nothing.
        let too_old = self.connection.query_row(
            "WITH marks AS (SELECT up_to, at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now', ?1) AS cutoff FROM deliveries) \
             SELECT ifnull(max(up_to), 0) FROM marks WHERE at < cutoff AND up_to < ifnull( \
                 (SELECT min(up_to) FROM marks WHERE at BETWEEN cutoff AND strftime('%Y-%m-%dT%H:%M:%fZ', 'now')), \
                 9223372036854775807)",
            [days],
            |row| row.get::<_, u64>(0),
        );
        let too_old = too_old.map_err(|error| self.failed("cannot look for old reports", error))?;
        // A damaged mark must not cost more than a sent report.
        let mut done = false;
        for _ in 0..GO {
            done = self.drop_some_up_to(too_old.min(self.sent_up_to))? < MOST_AT_ONCE;
            if done {
                break;
            }
        }
        if !done {
            self.tidied = None;
        }
        Ok(())
    }

    /// Holds the bounds on count and bytes.
    pub(super) fn make_room(&mut self) -> Result<(), OutboxError> {
        let max = self.config.max_reports;
        if self.total > max {
            self.drop_oldest(self.total - max + max / 100)?;
        }
        while self.total > 1 {
            let used = self.used_bytes()?;
            if used <= self.config.max_bytes {
                break;
            }
            // As many as bring it below, by the average, and a hundredth.
            let over = used - self.config.max_bytes + self.config.max_bytes / 100;
            let share = u128::from(self.total) * u128::from(over) / u128::from(used);
            self.drop_oldest((share as u64).max(1))?;
        }
        self.give_back()
    }

    /// Drops so many of the oldest reports, but not the newest.
    fn drop_oldest(&mut self, reports: u64) -> Result<(), OutboxError> {
        let reports = reports.min(self.total.saturating_sub(1));
        if reports == 0 {
            return Ok(());
        }
        let last = self.connection.query_row(
            "SELECT sequence FROM reports ORDER BY sequence LIMIT 1 OFFSET ?1",
            [reports - 1],
            |row| row.get(0),
        );
        let last = last.map_err(|error| self.failed("cannot look for the oldest reports", error))?;
        self.drop_up_to(last)
    }

    /// Drops all reports up to this sequence.
    fn drop_up_to(&mut self, last: u64) -> Result<(), OutboxError> {
        while self.drop_some_up_to(last)? > 0 {}
        Ok(())
    }

    /// Drops the oldest reports up to this sequence, at most [`MOST_AT_ONCE`], and returns how many those were.
    fn drop_some_up_to(&mut self, last: u64) -> Result<u64, OutboxError> {
        let sent_up_to = self.sent_up_to;
        let batch = drop_batch(&mut self.connection, last, sent_up_to);
        let batch = batch.map_err(|error| self.failed("cannot drop the oldest reports", error))?;
        if batch.removed == 0 {
            return Ok(0);
        }
        self.total = self.total.saturating_sub(batch.removed);
        self.waiting.set(None);
        self.losses.dropped += batch.unsent;
        self.sent_up_to = self.sent_up_to.max(batch.last_unsent);
        self.stored_up_to = self.stored_up_to.max(batch.last_unsent);
        if batch.unsent > 0 {
            log::warn!(
                "outbox {}: full; {} reports that were never sent are lost, sequences {} to {}: let the box reach its \
                 broker, or raise outbox.max_reports and outbox.max_bytes",
                self.path.display(),
                batch.unsent,
                batch.first_unsent,
                batch.last_unsent
            );
        }
        Ok(batch.removed)
    }

    /// Bytes of the pages that hold something.
    fn used_bytes(&mut self) -> Result<u64, OutboxError> {
        let pages = Pages::of(&self.connection).map_err(|error| self.failed("cannot read its size", error))?;
        Ok((pages.all - pages.free) * pages.bytes)
    }

    /// Gives free pages back to the file system once they are an eighth of the file; less is soon used again.
    fn give_back(&mut self) -> Result<(), OutboxError> {
        let give_back = || -> rusqlite::Result<()> {
            let pages = Pages::of(&self.connection)?;
            let keep = pages.all / 8;
            if pages.free <= keep.max(256) {
                return Ok(());
            }
            // Half stays for the reports to come.
            let mut rest = pages.free - keep / 2;
            for _ in 0..GO {
                let some = rest.min(MOST_PAGES);
                // A statement is a transaction; each of its steps frees a page.
                let mut statement = self.connection.prepare(&format!("PRAGMA incremental_vacuum({some})"))?;
                let mut rows = statement.query([])?;
                while rows.next()?.is_some() {}
                rest -= some;
                if rest == 0 {
                    break;
                }
            }
            Ok(())
        };
        give_back().map_err(|error| self.failed("cannot give room back", error))
    }
}

/// The file's pages.
struct Pages {
    all: u64,
    free: u64,
    bytes: u64,
}

impl Pages {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        let ask = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, u64>(0));
        Ok(Self { all: ask("page_count")?, free: ask("freelist_count")?, bytes: ask("page_size")? })
    }
}

/// What one transaction dropped.
struct Batch {
    removed: u64,
    unsent: u64,
    first_unsent: u64,
    last_unsent: u64,
}

/// Drops the oldest reports up to `last`, at most [`MOST_AT_ONCE`], and notes which of them were never sent.
fn drop_batch(connection: &mut Connection, last: u64, sent_up_to: u64) -> rusqlite::Result<Batch> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (removed, end): (u64, u64) = transaction.query_row(
        "SELECT count(*), ifnull(max(sequence), 0) FROM \
         (SELECT sequence FROM reports WHERE sequence <= ?1 ORDER BY sequence LIMIT ?2)",
        params![last, MOST_AT_ONCE],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (unsent, first_unsent, last_unsent): (u64, u64, u64) = transaction.query_row(
        "SELECT count(*), ifnull(min(sequence), 0), ifnull(max(sequence), 0) FROM reports \
         WHERE sequence > ?1 AND sequence <= ?2",
        params![sent_up_to, end],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if removed > 0 {
        remove(&transaction, 0, end)?;
    }
    if unsent > 0 {
        // Nothing up to here needs sending any more.
        super::schema::add_delivery(&transaction, last_unsent, &super::now(&transaction)?)?;
        transaction.execute("UPDATE state SET dropped = dropped + ?1", [unsent])?;
    }
    transaction.commit()?;
    Ok(Batch { removed, unsent, first_unsent, last_unsent })
}

/// Removes the reports of these sequences, and what is kept about them, except the last mark of what was sent. Their
/// sequences are not given again.
pub(super) fn remove(connection: &Connection, first: u64, last: u64) -> rusqlite::Result<usize> {
    let last_given = last_sequence(connection)?;
    connection.execute("UPDATE state SET last_sequence = ?1 WHERE last_sequence < ?1", [last_given])?;
    let removed = connection.execute("DELETE FROM reports WHERE sequence BETWEEN ?1 AND ?2", [first, last])?;
    if first == 0 {
        connection.execute(
            "DELETE FROM deliveries WHERE up_to <= ?1 AND up_to < (SELECT max(up_to) FROM deliveries)",
            [last],
        )?;
        connection.execute("DELETE FROM undeliverable WHERE sequence <= ?1", [last])?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::super::schema::Stored;
    use super::*;

    /// An outbox with so many reports of a usual size, put in at once.
    fn outbox(folder: &tempfile::TempDir, reports: u64) -> Outbox {
        let mut outbox = Outbox::open(&folder.path().join("outbox.sqlite3"), &Default::default()).unwrap();
        let transaction = outbox.connection.transaction().unwrap();
        for sequence in 1..=reports {
            let (report_id, received_at) = (format!("report {sequence}"), "2026-01-01T00:00:00.000Z".to_owned());
            Stored { sequence, report_id, received_at, json: "0".repeat(1200) }.insert(&transaction).unwrap();
        }
        transaction.commit().unwrap();
        outbox.total = reports;
        outbox
    }

    fn sent_on(outbox: &mut Outbox, up_to: u64, at: &str) {
        outbox.mark_sent_up_to(up_to).unwrap();
        let changed = outbox.connection.execute("UPDATE deliveries SET at = ?1 WHERE up_to = ?2", (at, up_to)).unwrap();
        assert_eq!(changed, 1);
    }

    #[test]
    fn a_clock_that_was_wrong_for_a_while_costs_no_history() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = outbox(&folder, 9);
        sent_on(&mut outbox, 1, "2970-01-01T00:00:00.000Z");
        sent_on(&mut outbox, 2, "2020-01-01T00:00:00.000Z");
        outbox.mark_sent_up_to(4).unwrap();
        outbox.mark_sent_up_to(6).unwrap();
        sent_on(&mut outbox, 8, "1970-01-01T00:01:00.000Z");
        outbox.tidied = None;
        outbox.tidy(Clock::Synchronised).unwrap();
        assert_eq!((outbox.total(), find(&outbox, 2), find(&outbox, 3)), (7, false, true));
    }

    #[test]
    fn a_long_history_that_is_too_old_goes_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let mut outbox = outbox(&folder, 20_000);
        outbox.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let file = outbox.bytes();
        sent_on(&mut outbox, 19_000, "2020-01-01T00:00:00.000Z");
        outbox.tidied = None;
        for left in [16_000, 12_000, 8_000, 4_000, 1_000, 1_000] {
            outbox.tidy(Clock::Synchronised).unwrap();
            assert_eq!(outbox.total(), left);
            assert!(outbox.bytes() <= file + MARGIN_BYTES, "{} of {file}", outbox.bytes());
        }
        assert!(outbox.tidied.is_some(), "all that is old is gone");
        for _ in 0..20 {
            outbox.make_room().unwrap();
        }
        let path = outbox.path.clone();
        drop(outbox);
        // The last pages leave the file when the log is written back.
        let left = std::fs::metadata(path).unwrap().len();
        assert!(left < file / 8, "{left} of {file}");
    }

    fn find(outbox: &Outbox, sequence: u64) -> bool {
        super::super::find(&outbox.connection, &format!("report {sequence}")).unwrap().is_some()
    }
}
