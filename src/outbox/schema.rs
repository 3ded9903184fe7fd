//! The tables of the outbox, how they are made, and how a file of an earlier version becomes one of this version.
//! Nothing here decides what to keep.
//!
//! Version 2 is laid out for the wear of SD cards:
//!
//! - Pages of 1 KiB: a commit writes whole pages, and a report is about one. (A block of the card is larger, but the
//!   write-ahead log packs the pages.)
//! - What was sent is a mark in a table of its own ("sent up to here"): reports leave in order, and marking one does not
//!   write its page again.
//! - The index holds eight bytes of the id's SHA-256 instead of the id: a third of the pages that a new report may hit.
//! - Sequences need no counter that every report writes: the next one follows the last row, or `state.last_sequence`
//!   where rows were removed.
//!
//! Every report carries a checksum, since SQLite has none: a bit that flips on a card must not become a finding.

use super::OutboxError;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::Path;

/// The schema's version as SQLite's `user_version` holds it.
pub(super) const VERSION: i64 = 2;

/// Bytes of a page.
const PAGE: u32 = 1024;

/// `deliveries.up_to` says that this report and all before it need no more sending.
const TABLES: &str = "
    CREATE TABLE reports (
        sequence    INTEGER PRIMARY KEY,
        report_id   TEXT NOT NULL,
        id_key      INTEGER NOT NULL,
        received_at TEXT NOT NULL,
        checksum    INTEGER NOT NULL,
        json        TEXT NOT NULL
    ) STRICT;
    CREATE INDEX reports_by_id ON reports (id_key);
    CREATE TABLE deliveries (
        up_to       INTEGER PRIMARY KEY,
        at          TEXT NOT NULL,
        checksum    INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE undeliverable (
        sequence    INTEGER PRIMARY KEY,
        at          TEXT NOT NULL,
        reason      TEXT NOT NULL
    ) STRICT;
    CREATE TABLE state (
        only          INTEGER PRIMARY KEY CHECK (only = 1),
        clean         INTEGER NOT NULL,
        last_sequence INTEGER NOT NULL,
        dropped       INTEGER NOT NULL
    ) STRICT;
    INSERT INTO state VALUES (1, 1, 0, 0);
    PRAGMA user_version = 2;
";

/// The columns that [`Stored::read`] reads, in its order.
pub(super) const COLUMNS: &str = "sequence, report_id, received_at, checksum, json";

/// The present as this file writes it, in SQL.
pub(super) const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

/// A report as it lies in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) sequence: u64,
    pub(super) report_id: String,
    pub(super) received_at: String,
    pub(super) json: String,
}

impl Stored {
    /// From a row of [`COLUMNS`]; the sequence alone where the row is not what was written.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Result<Self, u64>> {
        let sequence = row.get(0)?;
        let text = |column| -> rusqlite::Result<Option<String>> {
            let value = row.get_ref(column)?;
            Ok(value.as_bytes().ok().and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()))
        };
        let (Some(report_id), Some(received_at), Some(json)) = (text(1)?, text(2)?, text(4)?) else {
            return Ok(Err(sequence));
        };
        let stored = Self { sequence, report_id, received_at, json };
        let is_whole = row.get_ref(3)?.as_i64().is_ok_and(|checksum| checksum == stored.checksum());
        Ok(if is_whole { Ok(stored) } else { Err(sequence) })
    }

    /// Adds the row; one of the same sequence stays as it is.
    pub(super) fn insert(&self, connection: &Connection) -> rusqlite::Result<usize> {
        connection.execute(
            "INSERT OR IGNORE INTO reports (sequence, report_id, id_key, received_at, checksum, json) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                self.sequence,
                self.report_id,
                id_key(&self.report_id),
                self.received_at,
                self.checksum(),
                self.json
            ],
        )
    }

    fn checksum(&self) -> i64 {
        checksum(&[&self.sequence.to_string(), &self.report_id, &self.received_at, &self.json])
    }
}

/// What the index holds of an id. Two ids may share it, so the id itself decides.
pub(super) fn id_key(report_id: &str) -> i64 {
    checksum(&[report_id])
}

/// The checksum of a delivery.
pub(super) fn delivery_checksum(up_to: u64, at: &str) -> i64 {
    checksum(&[&up_to.to_string(), at])
}

/// The first eight bytes of the SHA-256 of the parts, each closed by a zero byte.
fn checksum(parts: &[&str]) -> i64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let hash = hash.finalize();
    i64::from_be_bytes(std::array::from_fn(|i| hash[i]))
}

/// Notes that everything up to a sequence needs no more sending, as of `at`.
pub(super) fn add_delivery(connection: &Connection, up_to: u64, at: &str) -> rusqlite::Result<usize> {
    connection.execute(
        "INSERT OR IGNORE INTO deliveries (up_to, at, checksum) VALUES (?1, ?2, ?3)",
        params![up_to, at, delivery_checksum(up_to, at)],
    )
}

/// Makes a new file with its tables. Whoever looks finds all of it or nothing.
pub(super) fn create(path: &Path) -> Result<(), OutboxError> {
    let new = super::integrity::beside(path, ".new");
    let of_file = |what| {
        let new = new.clone();
        move |error| OutboxError::File { path: new, what, error }
    };
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let left = super::integrity::beside(&new, suffix);
        if left.exists() {
            fs::remove_file(&left).map_err(of_file("cannot remove what an interrupted start left"))?;
        }
    }
    let make = || -> rusqlite::Result<()> {
        let connection = Connection::open(&new)?;
        connection.execute_batch(&format!("PRAGMA page_size = {PAGE}; PRAGMA auto_vacuum = INCREMENTAL;"))?;
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} COMMIT;"))?;
        connection.close().map_err(|(_, error)| error)
    };
    make().map_err(|error| OutboxError::of(path, "cannot make a new one", error))?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(of_file("cannot write it to the disk"))?;
    fs::rename(&new, path).map_err(of_file("cannot give it its name"))?;
    super::integrity::sync_folder(path)
}

/// Makes a file of version 1 one of this version, in one transaction. Its reports, their sequences and what was sent
/// stay.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let last: Option<u64> = transaction
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'reports'", [], |row| row.get(0))
        .optional()?;
    transaction.execute_batch("DROP INDEX reports_unsent; ALTER TABLE reports RENAME TO reports_1;")?;
    transaction.execute_batch(TABLES)?;
    copy_version_1(&transaction)?;
    transaction.execute_batch("DROP TABLE reports_1;")?;
    transaction.execute("UPDATE state SET last_sequence = ?1", [last.unwrap_or(0)])?;
    transaction.commit()
}

/// Copies the rows. Version 1 had a mark at each; what was sent after the first unsent one is sent once more.
fn copy_version_1(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut statement = transaction
        .prepare("SELECT sequence, report_id, received_at, json, sent_at FROM reports_1 ORDER BY sequence")?;
    let mut rows = statement.query([])?;
    let mut all_sent = true;
    while let Some(row) = rows.next()? {
        let (sequence, sent_at): (u64, Option<String>) = (row.get(0)?, row.get(4)?);
        let stored = Stored { sequence, report_id: row.get(1)?, received_at: row.get(2)?, json: row.get(3)? };
        stored.insert(transaction)?;
        all_sent &= sent_at.is_some();
        if let Some(sent_at) = sent_at.filter(|_| all_sent) {
            add_delivery(transaction, sequence, &sent_at)?;
        }
    }
    Ok(())
}

/// Gives a file of version 1 the page size of this version, and the means to give space back, which only a rewrite of
/// the whole file can. A file that cannot be rewritten now works as it is.
pub(super) fn rebuild(connection: &Connection) -> rusqlite::Result<()> {
    let auto_vacuum: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
    if auto_vacuum == 2 {
        return Ok(());
    }
    // The page size of a file in WAL mode cannot change.
    let mode: String = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    let page_size = if mode == "delete" { format!("PRAGMA page_size = {PAGE};") } else { String::new() };
    connection.execute_batch(&format!("{page_size} PRAGMA auto_vacuum = INCREMENTAL; VACUUM;"))
}
