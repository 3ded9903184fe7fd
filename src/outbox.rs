//! The durable queue between judging and publishing (SQLite). A report is in here before its file leaves the drop
//! folder, and is marked sent only once the broker acknowledged it. Not a sink: it never talks to the network.
//!
//! A report is identified by its `report_id` (content hash, bundle hash, preprocessing version). The same image judged
//! again by the same model is the same report: [`Outbox::enqueue`] then queues nothing and says under which sequence the
//! first one stands, sent or not. So a file that is dropped twice is settled twice and reported once, and a crash
//! between enqueueing and settling costs nothing but a second look at the file.

use crate::report::Report;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The schema's version as SQLite's `user_version` holds it.
const SCHEMA_VERSION: i64 = 1;

/// `AUTOINCREMENT`, so that a sequence is never given twice, even after rows were removed.
const SCHEMA: &str = "
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

/// The queue cannot be used; the daemon stops, since it may not judge what it cannot keep.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// SQLite or the disk below it failed.
    #[error("outbox {path}: {what}: {error}")]
    Database {
        /// The database file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What SQLite said.
        #[source]
        error: rusqlite::Error,
    },
    /// The file is no database, or no longer one.
    #[error(
        "outbox {path} is not a sound SQLite database ({error}); move it away together with its -wal and -shm files \
         (a new one is made at the start, and reports that waited in the old one are not sent)"
    )]
    Unsound {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        error: rusqlite::Error,
    },
    /// A newer version of the program wrote this file.
    #[error(
        "outbox {path} has schema version {found}, this program knows {SCHEMA_VERSION}; \
         install the version that wrote it, or move the file away once its reports are delivered"
    )]
    Schema {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A report does not go to or come from its JSON.
    #[error("outbox {path}: report {sequence} is not valid JSON of a report: {error}")]
    Json {
        /// The database file.
        path: PathBuf,
        /// Which report; 0 before it had a sequence.
        sequence: u64,
        /// What the parser said.
        #[source]
        error: serde_json::Error,
    },
}

impl OutboxError {
    fn of(path: &Path, what: &'static str, error: rusqlite::Error) -> Self {
        let path = path.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Unsound { path, error },
            _ => Self::Database { path, what, error },
        }
    }
}

/// What became of a report that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is durable now, under this sequence.
    Queued(u64),
    /// The same image was judged by the same model before; nothing was added.
    AlreadyKnown {
        /// The first report's sequence.
        sequence: u64,
        /// Whether the broker has acknowledged that one.
        sent: bool,
    },
}

impl Enqueued {
    /// The sequence under which the report stands.
    pub fn sequence(self) -> u64 {
        match self {
            Enqueued::Queued(sequence) | Enqueued::AlreadyKnown { sequence, .. } => sequence,
        }
    }
}

/// The durable queue.
#[derive(Debug)]
pub struct Outbox {
    path: PathBuf,
    connection: Connection,
}

impl Outbox {
    /// Opens the queue, creating it where it is missing.
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        let failed = |what| move |error| OutboxError::of(path, what, error);
        let connection = Connection::open(path).map_err(failed("cannot open"))?;
        connection.busy_timeout(Duration::from_secs(10)).map_err(failed("cannot set the busy timeout"))?;
        // WAL, so that the drain can read while a report is written; FULL, so that a commit is on the disk on return.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(failed("cannot switch to WAL"))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed("cannot set synchronous=FULL"))?;
        let mut outbox = Self { path: path.to_owned(), connection };
        outbox.migrate()?;
        Ok(outbox)
    }

    /// How many reports wait in the queue in `path`, without changing anything there; 0 when it has no tables yet.
    pub fn waiting(path: &Path) -> Result<u64, OutboxError> {
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        // Without a WAL nobody has it open, and reading it as immutable spares SQLite the making of one. With one, it is
        // read beside whoever writes it.
        let immutable = if Path::new(&wal).exists() { "" } else { "?immutable=1" };
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let connection =
            Connection::open_with_flags(format!("file://{}{immutable}", percent_encoded(&absolute)), flags)
                .map_err(|error| OutboxError::of(path, "cannot open", error))?;
        let outbox = Self { path: path.to_owned(), connection };
        let version: i64 = outbox
            .connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| outbox.failed("cannot read its version", error))?;
        match version {
            0 => Ok(0),
            SCHEMA_VERSION => outbox.unsent(),
            found => Err(OutboxError::Schema { path: path.to_owned(), found }),
        }
    }

    fn migrate(&mut self) -> Result<(), OutboxError> {
        let path = self.path.clone();
        let failed = |what| move |error| OutboxError::of(&path, what, error);
        let create = || -> rusqlite::Result<i64> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if found == 0 {
                transaction.execute_batch(SCHEMA)?;
                transaction.commit()?;
                return Ok(SCHEMA_VERSION);
            }
            Ok(found)
        };
        let mut create = create;
        let found = create().map_err(failed("cannot read or create its tables"))?;
        if found != SCHEMA_VERSION {
            return Err(OutboxError::Schema { path: self.path.clone(), found });
        }
        Ok(())
    }

    /// Makes a report durable and gives it its sequence (written into the stored JSON). On return it is on the disk.
    pub fn enqueue(&mut self, report: &Report) -> Result<Enqueued, OutboxError> {
        let path = &self.path;
        let failed = |error| OutboxError::of(path, "cannot store a report", error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let known = transaction
            .query_row(
                "SELECT sequence, sent_at IS NOT NULL FROM reports WHERE report_id = ?1",
                [&report.report_id],
                |row| Ok(Enqueued::AlreadyKnown { sequence: row.get(0)?, sent: row.get(1)? }),
            )
            .optional()
            .map_err(failed)?;
        if let Some(known) = known {
            return Ok(known);
        }
        // The sequence stands inside the JSON too, so it is needed before the row: inside an immediate transaction
        // nobody else can take it.
        let last: Option<u64> = transaction
            .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'reports'", [], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        let sequence = last.unwrap_or(0) + 1;
        let stored = Report { sequence, ..report.clone() };
        let json = serde_json::to_string(&stored).map_err(|error| OutboxError::Json {
            path: path.clone(),
            sequence,
            error,
        })?;
        transaction
            .execute(
                "INSERT INTO reports (sequence, report_id, received_at, json) VALUES (?1, ?2, ?3, ?4)",
                params![sequence, stored.report_id, stored.received_at, json],
            )
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Enqueued::Queued(sequence))
    }

    /// The oldest report that the broker has not acknowledged.
    pub fn next_unsent(&self) -> Result<Option<Report>, OutboxError> {
        let row: Option<(u64, String)> = self
            .connection
            .query_row(
                "SELECT sequence, json FROM reports WHERE sent_at IS NULL ORDER BY sequence LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(|error| self.failed("cannot read the next report", error))?;
        let Some((sequence, json)) = row else { return Ok(None) };
        let report = serde_json::from_str(&json).map_err(|error| OutboxError::Json {
            path: self.path.clone(),
            sequence,
            error,
        })?;
        Ok(Some(report))
    }

    /// Notes that the broker acknowledged a report. Doing so twice keeps the first time.
    pub fn mark_sent(&mut self, sequence: u64) -> Result<(), OutboxError> {
        self.connection
            .execute(
                "UPDATE reports SET sent_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') \
                 WHERE sequence = ?1 AND sent_at IS NULL",
                [sequence],
            )
            .map_err(|error| self.failed("cannot mark a report as sent", error))?;
        Ok(())
    }

    /// How many reports wait for the broker's acknowledgement.
    pub fn unsent(&self) -> Result<u64, OutboxError> {
        self.connection
            .query_row("SELECT count(*) FROM reports WHERE sent_at IS NULL", [], |row| row.get(0))
            .map_err(|error| self.failed("cannot count the waiting reports", error))
    }

    fn failed(&self, what: &'static str, error: rusqlite::Error) -> OutboxError {
        OutboxError::of(&self.path, what, error)
    }
}

/// A path as it stands in a URI.
fn percent_encoded(path: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let encode = |&byte: &u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.as_os_str().as_bytes().iter().map(encode).collect()
}
