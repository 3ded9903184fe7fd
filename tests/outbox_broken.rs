//! Whatever bytes lie where the outbox was, the service goes on: a broken file is set aside, what can be read of it
//! goes on in a new one, and no sequence is given twice. And a file of version 1 becomes one of this version.

#[path = "common/queue.rs"]
mod queue;

use proptest::prelude::*;
use queue::{copy_as_killed, enqueue, report, unsent};
use roentgen::outbox::integrity::broken_files;
use roentgen::outbox::{Config, Enqueued, Outbox, waiting};
use roentgen::report::Report;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// More than any box counts to.
const JUMP: u64 = 1_700_000_000;

fn open(path: &Path) -> Outbox {
    Outbox::open(path, &Config::default()).unwrap()
}

/// A database with so many reports, of which so many were sent, as a killed process leaves it.
struct Left {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Left {
    fn new(reports: u64, sent: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (live, path) = (folder.path().join("live"), folder.path().join("outbox.sqlite3"));
        let mut outbox = open(&live);
        enqueue(&mut outbox, 1..=reports);
        outbox.mark_sent_up_to(sent).unwrap();
        copy_as_killed(&live, &path);
        drop(outbox);
        fs::remove_file(live).unwrap();
        Self { folder, path }
    }

    /// The same with everything in the database file and no log, and still not closed cleanly.
    fn without_log(reports: u64, sent: u64) -> Self {
        let left = Self::new(reports, sent);
        let connection = rusqlite::Connection::open(&left.path).unwrap();
        let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0);
        drop(connection);
        assert!(!left.wal().exists());
        left
    }

    fn wal(&self) -> PathBuf {
        self.folder.path().join("outbox.sqlite3-wal")
    }

    fn overwrite(&self, at: u64, bytes: &[u8]) {
        let mut file = File::options().write(true).open(&self.path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn len(&self) -> u64 {
        fs::metadata(&self.path).unwrap().len()
    }

    /// What the file's bytes are, to see later that they were kept.
    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }
}

/// Service goes on: a report is queued beyond all that were given, found again, and survives the next start.
fn goes_on(path: &Path, outbox: Outbox, beyond: u64) {
    let mut outbox = outbox;
    let Enqueued::Queued(sequence) = outbox.enqueue(&report(1_000_000)).unwrap() else { panic!("it is new") };
    assert!(sequence > beyond, "{sequence} was given before");
    let before = unsent(&mut outbox);
    assert_eq!(before.last(), Some(&sequence));
    drop(outbox);
    let mut again = open(path);
    assert!(again.set_aside().is_none(), "the new one is sound");
    assert_eq!(unsent(&mut again), before);
}

#[test]
fn a_file_of_which_nothing_can_be_read_is_set_aside_as_it_is() {
    let noise: Vec<u8> = (0..40_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let text = b"this is a text and not a database, and it is long enough to be looked at ".repeat(20);
    for (what, bytes) in [("noise", noise), ("a text", text), ("zeros", vec![0; 40_960]), ("empty", Vec::new())] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.sqlite3");
        fs::write(&path, &bytes).unwrap();
        let outbox = open(&path);
        let aside = outbox.set_aside().unwrap_or_else(|| panic!("{what}: not noticed"));
        assert_eq!((aside.kept, aside.complete), (0, false), "{what}");
        assert!(aside.path.file_name().unwrap().to_str().unwrap().starts_with("outbox.sqlite3.broken-20"), "{aside:?}");
        assert_eq!(fs::read(&aside.path).unwrap(), bytes, "{what}");
        assert_eq!(broken_files(&path), std::slice::from_ref(&aside.path));
        goes_on(&path, outbox, JUMP);
    }
}

#[test]
fn random_bytes_in_the_middle_cost_the_reports_they_hit_and_no_other() {
    let left = Left::without_log(300, 100);
    let noise: Vec<u8> = (0..2048u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    left.overwrite(left.len() / 2 / 1024 * 1024, &noise);
    let before = left.bytes();
    let mut outbox = open(&left.path);
    let aside = outbox.set_aside().expect("an unclean end is looked into").clone();
    assert!(!aside.complete);
    assert!(aside.kept >= 290, "{aside:?}");
    assert_eq!(fs::read(&aside.path).unwrap(), before, "the evidence stays as it was");
    let waits = unsent(&mut outbox);
    assert_eq!(waits.len() as u64, aside.requeued);
    assert!(waits.iter().all(|&sequence| sequence > 100), "what was sent is not sent again: {waits:?}");
    assert!(waits.len() >= 190 && waits.windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    for message in outbox.next_batch(1000).unwrap() {
        assert_eq!(message.report().unwrap(), Report { sequence: message.sequence, ..report(message.sequence) });
    }
    goes_on(&left.path, outbox, JUMP);
}

#[test]
fn a_truncated_file_gives_what_is_left_of_it() {
    let left = Left::without_log(300, 0);
    let len = left.len() * 2 / 3;
    File::options().write(true).open(&left.path).unwrap().set_len(len).unwrap();
    let mut outbox = open(&left.path);
    let aside = outbox.set_aside().expect("noticed").clone();
    assert!(!aside.complete && aside.requeued >= 100, "{aside:?}");
    assert_eq!(unsent(&mut outbox).len() as u64, aside.requeued);
    goes_on(&left.path, outbox, JUMP);
}

#[test]
fn a_torn_log_loses_at_most_its_end() {
    let left = Left::new(40, 10);
    let wal = fs::read(left.wal()).unwrap();
    for kept in [0, 16, 32, 100, wal.len() / 3, wal.len() / 2, wal.len() - 700, wal.len() - 1] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.sqlite3");
        fs::copy(&left.path, &path).unwrap();
        fs::write(folder.path().join("outbox.sqlite3-wal"), &wal[..kept]).unwrap();
        let mut outbox = open(&path);
        assert!(outbox.set_aside().is_none(), "{kept}: a log ends where its sums end");
        let there = outbox.total();
        let sent = there - outbox.unsent().unwrap();
        assert!(sent == 0 || sent == 10, "{kept}: {sent}");
        assert_eq!(unsent(&mut outbox), (sent + 1..=there).collect::<Vec<_>>(), "{kept}");
        goes_on(&path, outbox, there);
    }
    // Noise instead of a log, with a database that has nothing yet.
    fs::write(left.wal(), [0xA5; 5000]).unwrap();
    goes_on(&left.path, open(&left.path), 0);
}

#[test]
fn a_report_whose_bits_have_changed_is_never_sent() {
    let left = Left::without_log(30, 0);
    let bytes = left.bytes();
    // A digit of a probability: the file stays a perfectly sound database with perfectly sound JSON.
    let needle = b"\"probability\":0.7";
    let hits: Vec<_> = (0..bytes.len() - needle.len()).filter(|&at| &bytes[at..at + needle.len()] == needle).collect();
    assert!(hits.len() >= 10, "{}", hits.len());
    left.overwrite((hits[hits.len() / 2] + needle.len() - 1) as u64, b"9");
    let mut outbox = open(&left.path);
    assert!(outbox.set_aside().is_none());
    let mut sent = Vec::new();
    loop {
        let batch = outbox.next_batch(64).unwrap();
        let Some(last) = batch.last() else { break };
        let last = last.sequence;
        sent.extend(batch);
        outbox.mark_sent_up_to(last).unwrap();
    }
    assert_eq!(sent.len(), 29);
    assert_eq!(outbox.take_losses().undeliverable, 1);
    for message in &sent {
        assert_eq!(message.report().unwrap(), Report { sequence: message.sequence, ..report(message.sequence) });
    }
    let missing = (1..=30).find(|n| sent.iter().all(|message| message.sequence != *n)).unwrap();
    let again = outbox.enqueue(&report(missing)).unwrap();
    assert_eq!(again, Enqueued::Queued(31), "its image can be judged anew");
}

#[test]
fn a_start_that_was_interrupted_while_it_set_a_file_aside_is_taken_up() {
    // Moved, not all of it, and no new one yet; moved, and the new one made, and nothing copied.
    for with_new in [false, true] {
        let left = Left::new(20, 5);
        fs::rename(&left.path, left.folder.path().join("outbox.sqlite3.unsalvaged")).unwrap();
        if with_new {
            fs::rename(left.wal(), left.folder.path().join("outbox.sqlite3.unsalvaged-wal")).unwrap();
            let other = Left::without_log(0, 0);
            fs::copy(&other.path, &left.path).unwrap();
        }
        fs::write(left.folder.path().join("outbox.sqlite3.new"), "half").unwrap();
        let mut outbox = open(&left.path);
        let aside = outbox.set_aside().expect("taken up").clone();
        assert_eq!((aside.kept, aside.requeued, aside.complete), (20, 15, true), "{aside:?}");
        assert_eq!(unsent(&mut outbox), (6..=20).collect::<Vec<_>>());
        assert_eq!(outbox.enqueue(&report(21)).unwrap(), Enqueued::Queued(21), "nothing was lost, so they just go on");
    }
}

#[test]
fn a_new_file_that_breaks_before_the_old_one_is_read_costs_no_report() {
    let left = Left::new(20, 5);
    let unsalvaged = left.folder.path().join("outbox.sqlite3.unsalvaged");
    fs::rename(&left.path, &unsalvaged).unwrap();
    fs::rename(left.wal(), left.folder.path().join("outbox.sqlite3.unsalvaged-wal")).unwrap();
    let before = fs::read(&unsalvaged).unwrap();
    fs::write(&left.path, [0x5A; 5000]).unwrap();
    fs::write(left.wal(), "the log of that").unwrap();
    let mut outbox = open(&left.path);
    let aside = outbox.set_aside().expect("taken up").clone();
    assert_eq!((aside.kept, aside.requeued, aside.complete), (20, 15, true), "{aside:?}");
    assert_eq!(unsent(&mut outbox), (6..=20).collect::<Vec<_>>());
    let broken: Vec<_> = broken_files(&left.path).iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(broken, [vec![0x5A; 5000], before], "both stay as evidence");
    goes_on(&left.path, outbox, 20);
}

#[test]
fn the_log_of_one_broken_file_is_never_taken_for_that_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let beside = |suffix: &str| folder.path().join(format!("outbox.sqlite3{suffix}"));
    // A start was cut off when the broken file had its last name and its log not yet.
    let first = Left::new(20, 5);
    fs::copy(&first.path, beside(".broken-20260101T000000000Z")).unwrap();
    fs::copy(first.wal(), beside(".unsalvaged-wal")).unwrap();
    drop(open(&path));
    assert!(!beside(".unsalvaged-wal").exists(), "the next broken file would inherit it");
    assert_eq!(fs::read(beside(".broken-20260101T000000000Z-wal")).unwrap(), fs::read(first.wal()).unwrap());
    // Where that is gone, so is what is left of it.
    fs::write(beside(".unsalvaged-wal"), "left").unwrap();
    drop(open(&path));
    assert!(!beside(".unsalvaged-wal").exists());
}

#[test]
fn no_sequence_is_given_twice_however_often_nothing_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut last = 0;
    for round in 1..=3 {
        fs::write(&path, [0x5A; 5000]).unwrap();
        let mut outbox = open(&path);
        // More reports than seconds pass: by the clock alone the next jump would land among them.
        for n in 1..=200 {
            let sequence = outbox.enqueue(&report(round * 1000 + n)).unwrap().sequence();
            assert!(sequence > last, "{sequence} after {last}");
            last = sequence;
        }
    }
}

#[test]
fn the_last_three_broken_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    for n in 0..5u8 {
        fs::write(&path, [n; 5000]).unwrap();
        drop(open(&path));
    }
    let kept: Vec<_> = broken_files(&path).iter().map(|path| fs::read(path).unwrap()[0]).collect();
    assert_eq!(kept, [2, 3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Any bytes anywhere: it opens, what it hands out is what was put in, and it goes on.
    #[test]
    fn no_damage_keeps_it_from_opening(at in 0.0..1.0f64, bytes in proptest::collection::vec(any::<u8>(), 1..3000), log: bool) {
        let left = if log { Left::new(60, 20) } else { Left::without_log(60, 20) };
        let target = if log { left.wal() } else { left.path.clone() };
        let len = fs::metadata(&target).unwrap().len();
        let mut file = File::options().write(true).open(&target).unwrap();
        file.seek(SeekFrom::Start((len as f64 * at) as u64)).unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        let mut outbox = open(&left.path);
        while let Some(message) = outbox.next_batch(1).unwrap().pop() {
            prop_assert_eq!(message.report().unwrap(), Report { sequence: message.sequence, ..report(message.sequence) });
            outbox.mark_sent_up_to(message.sequence).unwrap();
        }
        prop_assert!(matches!(outbox.enqueue(&report(1_000_000)).unwrap(), Enqueued::Queued(_)));
    }
}

/// The tables of version 1, as they lie on boxes in the field.
const VERSION_1: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE reports (
        sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
        report_id   TEXT NOT NULL UNIQUE,
        received_at TEXT NOT NULL,
        json        TEXT NOT NULL,
        sent_at     TEXT
    ) STRICT;
    CREATE INDEX reports_unsent ON reports (sequence) WHERE sent_at IS NULL;
    PRAGMA user_version = 1;
";

fn version_1(path: &Path, reports: u64, sent: u64) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch(VERSION_1).unwrap();
    for n in 1..=reports {
        let report = Report { sequence: n, ..report(n) };
        let json = serde_json::to_string(&report).unwrap();
        let sent_at = (n <= sent).then_some("2026-11-01T00:00:00.000Z");
        connection
            .execute(
                "INSERT INTO reports VALUES (?1, ?2, ?3, ?4, ?5)",
                (n, report.report_id, report.received_at, json, sent_at),
            )
            .unwrap();
    }
    // The last one was there and went: its sequence must not come again.
    connection.execute("INSERT INTO reports VALUES (?1, 'gone', '', '', NULL)", [reports + 1]).unwrap();
    connection.execute("DELETE FROM reports WHERE report_id = 'gone'", []).unwrap();
}

#[test]
fn a_file_of_version_1_keeps_its_reports_sequences_and_marks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    version_1(&path, 200, 150);
    assert_eq!(waiting(&path).unwrap(), 50, "doctor may come before the daemon");
    let mut outbox = open(&path);
    assert!(outbox.set_aside().is_none());
    assert_eq!(unsent(&mut outbox), (151..=200).collect::<Vec<_>>());
    assert_eq!(outbox.next_batch(1).unwrap()[0].report().unwrap(), Report { sequence: 151, ..report(151) });
    let known = outbox.known(&report(7).report_id).unwrap();
    assert_eq!(known, Some(Enqueued::AlreadyKnown { sequence: 7, sent: true }));
    assert_eq!(outbox.enqueue(&report(201)).unwrap(), Enqueued::Queued(202));
    drop(outbox);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let ask = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!((ask("user_version"), ask("page_size"), ask("auto_vacuum")), (2, 1024, 2));
    assert_eq!(connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0)).unwrap(), "wal");
}

#[test]
fn a_migration_that_is_killed_happens_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    version_1(&path, 50, 20);
    // A reader keeps the old pages in use: the file cannot be rewritten now, and works as it is.
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM reports;").unwrap();
    let left = folder.path().join("left.sqlite3");
    copy_as_killed(&path, &left);
    let mut outbox = open(&path);
    assert_eq!(unsent(&mut outbox).len(), 30);
    drop(outbox);
    drop(reader);
    for path in [&path, &left] {
        let mut outbox = open(path);
        assert_eq!(unsent(&mut outbox), (21..=50).collect::<Vec<_>>());
        drop(outbox);
        let connection = rusqlite::Connection::open(path).unwrap();
        assert_eq!(connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0)).unwrap(), 2);
    }
}

#[test]
fn a_broken_file_of_version_1_gives_its_reports_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    version_1(&path, 300, 100);
    let len = fs::metadata(&path).unwrap().len();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(len / 2 / 4096 * 4096)).unwrap();
    file.write_all(&[0x5A; 4096]).unwrap();
    drop(file);
    let mut outbox = open(&path);
    let aside = outbox.set_aside().expect("version 1 is always looked into").clone();
    assert!(!aside.complete && aside.kept >= 250, "{aside:?}");
    assert!(unsent(&mut outbox).len() >= 150);
    goes_on(&path, outbox, JUMP);
}
