//! The durable queue between judging and publishing (SQLite). A report is in here before its file leaves the drop
//! folder, and is marked sent only once the broker acknowledged it. Not a sink: it never talks to the network.
//!
//! A report is identified by its `report_id` (content hash, bundle hash, preprocessing version). The same image judged
//! again by the same model is the same report: [`Outbox::known`] says so before it is judged, and [`Outbox::enqueue`]
//! queues nothing and says under which sequence the first one stands, sent or not. So a file that is dropped twice is
//! settled twice and reported once, and a crash between enqueueing and settling costs nothing but a second look at the
//! file.
//!
//! What was sent stays as history ([`history`]) until it is too old or room is needed; what is dropped when is told in
//! [`retention`]. A file that is broken is set aside, and what can be read of it goes on ([`integrity`]).
//!
//! # What reaches the disk
//!
//! A report costs one `fsync`: that of its commit (`synchronous=FULL`). The mark that it was sent costs none: it is in
//! the log, where a killed process finds it, and a power cut that takes it away makes the box send that report once
//! more, with the same id. A mark stands for a whole batch of acknowledgements. That comes to 10 KB of writes for a
//! report of 1 KB that is sent alone, 17 KB of blocks on ext4, with the log's writing back and the removal of an old
//! report: `tests/outbox_wear.rs` measures it. The layout that it rests on stands in `schema.rs`.

mod again;
mod config;
mod error;
pub mod history;
pub mod integrity;
pub mod retention;
mod salvage;
mod schema;

pub use config::Config;
pub use error::OutboxError;
pub use history::waiting;
pub use integrity::SetAside;
pub use retention::Losses;

use crate::report::{Message, Report};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use schema::Stored;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How many bytes of JSON one batch holds at most; one report is always taken.
const BATCH_BYTES: usize = 256 << 10;

/// What became of a report that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It is durable now, under this sequence.
    Queued(u64),
    /// The same image was judged by the same model before; nothing was added.
    AlreadyKnown {
        /// The first report's sequence.
        sequence: u64,
        /// Whether that one needs no more sending.
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
    config: Config,
    /// Rows in the table, so that a bound on them costs no counting.
    total: u64,
    /// Rows that wait for the broker, where that is known, so that asking for it costs no counting either.
    waiting: Cell<Option<u64>>,
    /// Up to which sequence nothing needs sending any more. The file may lag behind while the disk is full.
    sent_up_to: u64,
    /// The same as the file has it.
    stored_up_to: u64,
    /// What was given up and nobody has asked about yet.
    losses: Losses,
    set_aside: Option<SetAside>,
    /// When age was last looked at.
    tidied: Option<Instant>,
    /// Nothing that SQLite said speaks against the file: only then is the end of this process a clean one.
    is_sound: bool,
}

impl Outbox {
    /// Opens the queue, creating it where it is missing; a broken file is set aside, see [`Outbox::set_aside`].
    pub fn open(path: &Path, config: &Config) -> Result<Self, OutboxError> {
        let (connection, set_aside) = integrity::open(path)?;
        let failed = |error| OutboxError::of(path, "cannot read it", error);
        let total = connection.query_row("SELECT count(*) FROM reports", [], |row| row.get(0)).map_err(failed)?;
        let sent_up_to = history::sent_up_to(&connection).map_err(failed)?;
        let mut outbox = Self {
            path: path.to_owned(),
            connection,
            config: config.clone(),
            total,
            waiting: Cell::new(None),
            sent_up_to,
            stored_up_to: sent_up_to,
            losses: Losses::default(),
            set_aside,
            tidied: None,
            is_sound: true,
        };
        outbox.make_room()?;
        Ok(outbox)
    }

    /// Takes other bounds. They hold from the next report or tidying on: nothing is written now, so a disk that is full
    /// is no hindrance.
    pub fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.tidied = None;
    }

    /// The broken file that opening set aside, if there was one.
    pub fn set_aside(&self) -> Option<&SetAside> {
        self.set_aside.as_ref()
    }

    /// Under which sequence the report of this id stands, if it does.
    pub fn known(&mut self, report_id: &str) -> Result<Option<Enqueued>, OutboxError> {
        let found = find(&self.connection, report_id);
        let found = found.map_err(|error| self.failed("cannot look for a report", error))?;
        Ok(found.map(|sequence| Enqueued::AlreadyKnown { sequence, sent: sequence <= self.sent_up_to }))
    }

    /// Makes a report durable and gives it its sequence (written into the stored JSON). On return it is on the disk.
    pub fn enqueue(&mut self, report: &Report) -> Result<Enqueued, OutboxError> {
        let enqueued = self.store(report)?;
        if let Enqueued::Queued(_) = enqueued {
            self.total += 1;
            self.waiting.set(self.waiting.get().map(|waiting| waiting + 1));
            match self.make_room() {
                // The report is durable, and the next one tries again.
                Err(error) if error.is_passing() => log::warn!("no room can be made: {error}"),
                other => other?,
            }
        }
        Ok(enqueued)
    }

    fn store(&mut self, report: &Report) -> Result<Enqueued, OutboxError> {
        let mut json = Ok(());
        let sent_up_to = self.sent_up_to;
        let stored = (|| {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(sequence) = find(&transaction, &report.report_id)? {
                return Ok(Some(Enqueued::AlreadyKnown { sequence, sent: sequence <= sent_up_to }));
            }
            // The sequence stands inside the JSON too, so it is needed before the row: inside an immediate transaction
            // nobody else can take it.
            let sequence = last_sequence(&transaction)? + 1;
            let numbered = Report { sequence, ..report.clone() };
            let text = match serde_json::to_string(&numbered) {
                Ok(text) => text,
                Err(error) => {
                    json = Err(error);
                    return Ok(None);
                }
            };
            let Report { report_id, received_at, .. } = numbered;
            Stored { sequence, report_id, received_at, json: text }.insert(&transaction)?;
            transaction.commit()?;
            Ok(Some(Enqueued::Queued(sequence)))
        })();
        json.map_err(|error| OutboxError::Json { path: self.path.clone(), error })?;
        let stored = stored.map_err(|error| self.failed("cannot store a report", error))?;
        // Without a report its JSON failed, which has returned above.
        Ok(stored.unwrap_or(Enqueued::AlreadyKnown { sequence: 0, sent: false }))
    }

    /// The oldest reports that the broker has not acknowledged, at most so many, in their order. One that is not what
    /// was written any more is struck off and counted in [`Losses`].
    pub fn next_batch(&mut self, most: usize) -> Result<Vec<Message>, OutboxError> {
        loop {
            let (batch, damaged) =
                self.read_batch(most).map_err(|error| self.failed("cannot read the next reports", error))?;
            match damaged {
                Some(sequence) if batch.is_empty() => {
                    log::error!(
                        "outbox {}: report {sequence} is damaged on the disk and cannot be sent; drop its image again to \
                         have it judged anew (its file is in done/, the log says when it was reported)",
                        self.path.display()
                    );
                    self.strike(sequence, "damaged on the disk", true)?;
                }
                _ => return Ok(batch),
            }
        }
    }

    /// The next reports up to the first damaged one, and that one's sequence.
    fn read_batch(&self, most: usize) -> rusqlite::Result<(Vec<Message>, Option<u64>)> {
        let columns = schema::COLUMNS;
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {columns} FROM reports WHERE sequence > ?1 ORDER BY sequence LIMIT ?2"))?;
        let mut rows = statement.query(params![self.sent_up_to, most])?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let stored = match Stored::read(row)? {
                Ok(stored) => stored,
                Err(sequence) => return Ok((batch, Some(sequence))),
            };
            bytes += stored.json.len();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            let Stored { sequence, report_id, json, .. } = stored;
            batch.push(Message { sequence, report_id, json });
        }
        Ok((batch, None))
    }

    /// Notes that the broker acknowledged this report and all before it. From now on they are not handed out again,
    /// even where the note cannot be written, which is tried again with the next one.
    pub fn mark_sent_up_to(&mut self, sequence: u64) -> Result<(), OutboxError> {
        if sequence > self.sent_up_to {
            let sent = history::count_between(&self.connection, self.sent_up_to, sequence).ok();
            let left = self.waiting.get().and_then(|waiting| waiting.checked_sub(sent?));
            self.waiting.set(left);
            self.sent_up_to = sequence;
        }
        self.write_mark()
    }

    fn write_mark(&mut self) -> Result<(), OutboxError> {
        if self.stored_up_to >= self.sent_up_to {
            return Ok(());
        }
        let up_to = self.sent_up_to;
        let write = || -> rusqlite::Result<()> {
            // No fsync: see the module's documentation.
            self.connection.pragma_update(None, "synchronous", "NORMAL")?;
            schema::add_delivery(&self.connection, up_to, &now(&self.connection)?)?;
            Ok(())
        };
        write().map_err(|error| self.failed("cannot mark reports as sent", error))?;
        self.stored_up_to = up_to;
        Ok(())
    }

    /// Strikes the oldest unsent report off the queue, since it can never be delivered: it stays in the history with
    /// the reason. Counted in [`Losses`]. Any other report stays where it is.
    pub fn give_up(&mut self, sequence: u64, reason: &str) -> Result<(), OutboxError> {
        let before = history::count_between(&self.connection, self.sent_up_to, sequence.saturating_sub(1));
        match before.map_err(|error| self.failed("cannot look at the oldest reports", error))? {
            0 => self.strike(sequence, reason, false),
            // The mark behind it would take these for sent.
            _ => Ok(()),
        }
    }

    fn strike(&mut self, sequence: u64, reason: &str, remove: bool) -> Result<(), OutboxError> {
        let strike = || -> rusqlite::Result<usize> {
            let transaction = self.connection.unchecked_transaction()?;
            transaction.execute(
                &format!("INSERT OR IGNORE INTO undeliverable VALUES (?1, {}, ?2)", schema::NOW),
                params![sequence, reason],
            )?;
            schema::add_delivery(&transaction, sequence, &now(&transaction)?)?;
            let removed = if remove { retention::remove(&transaction, sequence, sequence)? } else { 0 };
            transaction.commit()?;
            Ok(removed)
        };
        let removed = strike().map_err(|error| self.failed("cannot strike a report off", error))?;
        self.total = self.total.saturating_sub(removed as u64);
        self.waiting.set(None);
        self.sent_up_to = self.sent_up_to.max(sequence);
        self.stored_up_to = self.stored_up_to.max(sequence);
        self.losses.undeliverable += 1;
        Ok(())
    }

    /// How many reports wait for the broker's acknowledgement.
    pub fn unsent(&self) -> Result<u64, OutboxError> {
        if let Some(waiting) = self.waiting.get() {
            return Ok(waiting);
        }
        let waiting = history::count_after(&self.connection, self.sent_up_to)
            .map_err(|error| OutboxError::of(&self.path, "cannot count the waiting reports", error))?;
        self.waiting.set(Some(waiting));
        Ok(waiting)
    }

    /// How many reports are kept, sent and unsent.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that the outbox takes on the disk: the database and its log.
    pub fn bytes(&self) -> u64 {
        let size = |suffix| std::fs::metadata(integrity::beside(&self.path, suffix)).map_or(0, |found| found.len());
        size("") + size("-wal")
    }

    /// What was given up since this was last asked.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    fn failed(&mut self, what: &'static str, error: rusqlite::Error) -> OutboxError {
        let error = OutboxError::of(&self.path, what, error);
        self.is_sound &= !matches!(error, OutboxError::Unsound { .. });
        error
    }
}

impl Drop for Outbox {
    /// Leaves the mark of a clean end, unless the file is broken: that must be looked at by the next start.
    fn drop(&mut self) {
        let marked = self.write_mark().is_ok() && self.is_sound && integrity::set_clean(&self.connection, true).is_ok();
        if !marked {
            log::debug!("outbox {}: left without the mark of a clean end", self.path.display());
        }
    }
}

/// The sequence of the report with this id.
fn find(connection: &Connection, report_id: &str) -> rusqlite::Result<Option<u64>> {
    connection
        .query_row(
            "SELECT sequence FROM reports WHERE id_key = ?1 AND report_id = ?2 ORDER BY sequence LIMIT 1",
            params![schema::id_key(report_id), report_id],
            |row| row.get(0),
        )
        .optional()
}

/// The greatest sequence that was ever given.
fn last_sequence(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row(
        "SELECT max(last_sequence, ifnull((SELECT max(sequence) FROM reports), 0)) FROM state",
        [],
        |row| row.get(0),
    )
}

/// The present as rows hold it.
fn now(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row(&format!("SELECT {}", schema::NOW), [], |row| row.get(0))
}
