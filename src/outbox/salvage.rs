//! What can still be read of a broken database goes into the new one. Only what is surely what was written: a report of
//! version 2 bears a checksum, one of version 1 must be a report that agrees with its own row. Does not repair the
//! file.

use super::integrity::{beside, sync_folder};
use super::schema::{self, Stored};
use super::{OutboxError, history};
use crate::report::Report;
use rusqlite::{Connection, Row, TransactionBehavior, params};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many pieces of a broken table are stepped over before the rest of it is given up.
const MOST_GAPS: u32 = 2000;

/// How many reports one transaction copies, so that the log stays short.
const AT_ONCE: usize = 500;

/// Where counting must have ended in any case: the clock of a box without a battery may read 1970.
const EPOCH_OF_JUMPS: u64 = 1_767_225_600;

/// How far a jump goes beyond the one before: more than a box counts to in its life, one report a second for thirty years.
const BEYOND: u64 = 1_000_000_000;

/// What came of it.
pub(super) struct Salvaged {
    pub(super) kept: u64,
    pub(super) requeued: u64,
    pub(super) complete: bool,
}

/// Copies what can be read of `broken` into `new`, the database at `path`. Doing it again changes nothing.
pub(super) fn salvage(broken: &Path, path: &Path, new: &mut Connection) -> Result<Salvaged, OutboxError> {
    // Read-only, so that the evidence stays as it is; without its log where that keeps it from being opened.
    let opened = open_leniently(broken, false);
    let mut complete = opened.is_ok();
    let old = opened.or_else(|_| open_leniently(broken, true));
    let version =
        old.as_ref().ok().and_then(|old| history::version(old).ok()).filter(|version| (1..=2).contains(version));
    let failed = |error| OutboxError::of(path, "cannot take over the reports of the broken file", error);
    let (Some(version), Ok(old)) = (version, old) else {
        raise_sequence(new, jump(path)?).map_err(failed)?;
        return Ok(Salvaged { kept: 0, requeued: 0, complete: false });
    };
    let sent_up_to = if version == 1 { sent_up_to_of_version_1(&old) } else { history::sent_up_to(&old) };
    complete &= sent_up_to.is_ok();
    let mut reader = Reader { old: &old, version, complete, last: 0 };
    // Nothing is sure to be sent where the marks cannot be read: a report may come twice, with its id.
    let sent_up_to = sent_up_to.unwrap_or(0);
    let mut kept = 0;
    let mut copy = |after: u64, until: u64, reader: &mut Reader<'_>| -> rusqlite::Result<u64> {
        let mut copied = 0;
        let mut from = after;
        loop {
            let chunk = reader.read(from, until);
            let Some(end) = chunk.last().map(|stored| stored.sequence) else { return Ok(copied) };
            let transaction = new.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for stored in &chunk {
                if super::find(&transaction, &stored.report_id)?.is_none() {
                    stored.insert(&transaction)?;
                }
                copied += 1;
            }
            transaction.commit()?;
            from = end;
        }
    };
    // Unsent ones first: where the disk fills up, the history is what can be done without.
    let requeued = copy(sent_up_to, i64::MAX as u64, &mut reader).map_err(failed)?;
    kept += requeued;
    match copy(0, sent_up_to, &mut reader).map_err(failed) {
        Ok(sent) => kept += sent,
        Err(error) if error.is_passing() => {
            log::warn!("the history of the broken outbox is not taken over: {error}");
            reader.complete = false;
        }
        Err(error) => return Err(error),
    }
    let Reader { complete, last, .. } = reader;
    let given = if version == 1 { Ok(0) } else { super::last_sequence(&old) };
    let last = match given {
        Ok(given) if complete => last.max(given),
        _ => last.max(jump(path)?),
    };
    let finish = || -> rusqlite::Result<()> {
        if sent_up_to > 0 {
            schema::add_delivery(new, sent_up_to, &super::now(new)?)?;
        }
        raise_sequence(new, last)
    };
    finish().map_err(failed)?;
    Ok(Salvaged { kept, requeued, complete })
}

/// Opens what SQLite would refuse as a whole, such as a file that is shorter than it says.
fn open_leniently(broken: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let connection = history::open_read_only(broken, immutable)?;
    // Nothing is written here: this also makes SQLite read as far as it can.
    connection.pragma_update(None, "writable_schema", true)?;
    history::version(&connection)?;
    Ok(connection)
}

fn raise_sequence(new: &Connection, last: u64) -> rusqlite::Result<()> {
    new.execute("UPDATE state SET last_sequence = ?1 WHERE last_sequence < ?1", [last]).map(drop)
}

/// A sequence that no box reaches by counting, from nowhere and from none of the jumps before.
fn jump(path: &Path) -> Result<u64, OutboxError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let note = beside(path, ".jump");
    // Not there or unsound: no jump that is known of.
    let before = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse::<u64>().ok());
    // A number that is no jump would leave no room for counting.
    let before = before.filter(|before| *before < 1 << 62);
    let to = now.max(EPOCH_OF_JUMPS).max(before.map_or(0, |before| before + BEYOND));
    let keep = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(note.parent().unwrap_or(Path::new(".")))?;
        writeln!(file, "{to}")?;
        file.as_file().sync_all()?;
        file.persist(&note).map(drop).map_err(|error| error.error)
    };
    keep().map_err(|error| OutboxError::File { path: note.clone(), what: "cannot note the last sequence", error })?;
    sync_folder(path)?;
    Ok(to)
}

/// The report before the first unsent one of a file of version 1.
fn sent_up_to_of_version_1(old: &Connection) -> rusqlite::Result<u64> {
    old.query_row(
        "SELECT ifnull((SELECT min(sequence) - 1 FROM reports WHERE sent_at IS NULL), \
                       ifnull((SELECT max(sequence) FROM reports), 0))",
        [],
        |row| row.get(0),
    )
}

/// Reads a broken table of reports as far as that goes.
struct Reader<'a> {
    old: &'a Connection,
    version: i64,
    /// Nothing was unreadable so far.
    complete: bool,
    /// The greatest sequence that was read.
    last: u64,
}

impl Reader<'_> {
    /// The next reports after one sequence and up to another; empty at the end.
    fn read(&mut self, after: u64, until: u64) -> Vec<Stored> {
        let (mut found, mut from, mut step, mut gaps) = (Vec::new(), after, 1, 0);
        while found.is_empty() && from < until && gaps < MOST_GAPS {
            match self.read_until_it_fails(from, until, &mut found) {
                Ok(end) => {
                    let Some(end) = end else { return found };
                    // Rows that were there and not whole; the next ones may be.
                    (from, step) = (end, 1);
                }
                Err(error) => {
                    log::debug!("broken outbox after report {from}: {error}");
                    self.complete = false;
                    if let Some(last) = found.last() {
                        from = last.sequence;
                    }
                    // A page or many: step over it in growing strides.
                    from = from.saturating_add(step);
                    step *= 2;
                    gaps += 1;
                }
            }
        }
        if gaps == MOST_GAPS {
            log::warn!("the broken outbox is not read beyond report {from}");
        }
        found
    }

    /// Reads rows; the sequence of the last one looked at, `None` behind the last.
    fn read_until_it_fails(&mut self, from: u64, until: u64, found: &mut Vec<Stored>) -> rusqlite::Result<Option<u64>> {
        let columns = if self.version == 1 { "sequence, report_id, received_at, NULL, json" } else { schema::COLUMNS };
        let mut statement = self.old.prepare(&format!(
            "SELECT {columns} FROM reports NOT INDEXED WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence LIMIT ?3"
        ))?;
        let mut rows = statement.query(params![from, until, AT_ONCE])?;
        let mut end = None;
        while let Some(row) = rows.next()? {
            let read = if self.version == 1 { read_version_1(row)? } else { Stored::read(row)? };
            end = Some(match read {
                Ok(stored) => {
                    let sequence = stored.sequence;
                    self.last = self.last.max(sequence);
                    found.push(stored);
                    sequence
                }
                Err(sequence) => {
                    self.complete = false;
                    sequence
                }
            });
        }
        Ok(end)
    }
}

/// A row of version 1, which has no checksum: it must hold a report that agrees with its columns.
fn read_version_1(row: &Row<'_>) -> rusqlite::Result<Result<Stored, u64>> {
    let sequence = row.get(0)?;
    let text = |column| row.get::<_, String>(column).ok();
    let (Some(report_id), Some(received_at), Some(json)) = (text(1), text(2), text(4)) else {
        return Ok(Err(sequence));
    };
    let agrees = serde_json::from_str::<Report>(&json).is_ok_and(|report| {
        report.sequence == sequence && report.report_id == report_id && report.received_at == received_at
    });
    let stored = Stored { sequence, report_id, received_at, json };
    Ok(if agrees { Ok(stored) } else { Err(sequence) })
}
