//! The outbox as others read it, beside the daemon or without one: how many reports wait, and what was reported when.
//! Changes nothing, not even by opening: where nobody has the file open, no log is made beside it.

use super::schema::{self, Stored};
use super::{OutboxError, integrity};
use crate::report::Label;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params_from_iter, types::Value};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many reports are read at once: in between, the daemon can write its log back.
const PAGE: u64 = 200;

/// How many reports wait in the queue in `path`; 0 when it has no tables yet.
pub fn waiting(path: &Path) -> Result<u64, OutboxError> {
    let failed = |what| move |error| OutboxError::of(path, what, error);
    let connection = open(path)?;
    match version(&connection).map_err(failed("cannot read its version"))? {
        0 => Ok(0),
        1 => connection
            .query_row("SELECT count(*) FROM reports WHERE sent_at IS NULL", [], |row| row.get(0))
            .map_err(failed("cannot count the waiting reports")),
        schema::VERSION => {
            let sent_up_to = sent_up_to(&connection).map_err(failed("cannot read what was sent"))?;
            count_after(&connection, sent_up_to).map_err(failed("cannot count the waiting reports"))
        }
        found => Err(OutboxError::Schema { path: path.to_owned(), found }),
    }
}

/// Which reports are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Received at this time or later (RFC 3339, UTC, milliseconds, as reports have it).
    pub since: Option<String>,
    /// Received before this time.
    pub until: Option<String>,
    /// With this label.
    pub label: Option<Label>,
    /// With this decision.
    pub status: Option<Status>,
    /// Only those that the broker has not.
    pub unsent: bool,
    /// Only those after this sequence.
    pub after: Option<u64>,
    /// Only those before this sequence.
    pub before: Option<u64>,
    /// Only so many, the newest.
    pub limit: Option<u64>,
}

/// What a report decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A label.
    Reported,
    /// None, with reasons.
    Abstained,
}

/// One report of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its sequence.
    pub sequence: u64,
    /// The report's JSON as it was or will be published.
    pub json: String,
    /// When the broker had acknowledged it; `None`: it waits, or cannot be delivered.
    pub sent_at: Option<String>,
    /// Why it cannot be delivered.
    pub undeliverable: Option<String>,
}

/// The history of an outbox, read-only.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    connection: Connection,
}

impl History {
    /// Opens it beside whoever writes it.
    pub fn open(path: &Path) -> Result<Self, OutboxError> {
        let connection = open(path)?;
        match version(&connection).map_err(|error| OutboxError::of(path, "cannot read its version", error))? {
            schema::VERSION => Ok(Self { path: path.to_owned(), connection }),
            found => Err(OutboxError::Schema { path: path.to_owned(), found }),
        }
    }

    /// How many reports there are, sent or not.
    pub fn count(&self) -> Result<u64, OutboxError> {
        count_after(&self.connection, 0).map_err(|error| self.failed("cannot count its reports", error))
    }

    /// Up to which sequence nothing waits for the broker.
    pub fn sent_up_to(&self) -> Result<u64, OutboxError> {
        sent_up_to(&self.connection).map_err(|error| self.failed("cannot read what was sent", error))
    }

    /// Under which sequence the report of this id stands, if it does.
    pub fn find(&self, report_id: &str) -> Result<Option<u64>, OutboxError> {
        super::find(&self.connection, report_id).map_err(|error| self.failed("cannot look for a report", error))
    }

    fn failed(&self, what: &'static str, error: rusqlite::Error) -> OutboxError {
        OutboxError::of(&self.path, what, error)
    }

    /// Hands all reports that the filter lets through to `each`, oldest first, until that says to stop (false). Damaged
    /// ones are left out; returns how many those were.
    pub fn visit(&self, filter: &Filter, each: &mut dyn FnMut(Entry) -> bool) -> Result<u64, OutboxError> {
        let failed = |error| self.failed("cannot read its history", error);
        let sent_up_to = sent_up_to(&self.connection).map_err(failed)?;
        let (condition, mut values) = condition(filter, sent_up_to);
        let mut after = match filter.limit {
            Some(0) => return Ok(0),
            // The report before the first of the newest.
            Some(limit) => self.first_of_the_last(&condition, &values, limit).map_err(failed)?.saturating_sub(1),
            None => 0,
        };
        let mut damaged = 0;
        values.extend([Value::Null, Value::from(PAGE as i64)]);
        let after_at = values.len() - 2;
        let query = format!(
            "SELECT {}, (SELECT at FROM deliveries WHERE up_to >= sequence AND up_to <= {sent_up_to} ORDER BY up_to LIMIT 1), \
             (SELECT reason FROM undeliverable WHERE undeliverable.sequence = reports.sequence) \
             FROM reports WHERE {condition} AND sequence > ? ORDER BY sequence LIMIT ?",
            schema::COLUMNS
        );
        loop {
            values[after_at] = Value::from(i64::try_from(after).unwrap_or(i64::MAX));
            // A page, and then its read transaction ends.
            let page = self.page(&query, &values).map_err(failed)?;
            if page.is_empty() {
                return Ok(damaged);
            }
            for found in page {
                match found {
                    Ok(entry) => {
                        after = entry.sequence;
                        if !each(entry) {
                            return Ok(damaged);
                        }
                    }
                    Err(sequence) => {
                        after = sequence;
                        damaged += 1;
                    }
                }
            }
        }
    }

    fn page(&self, query: &str, values: &[Value]) -> rusqlite::Result<Vec<Result<Entry, u64>>> {
        let mut statement = self.connection.prepare(query)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let (sent_at, undeliverable): (Option<String>, Option<String>) = (row.get(5)?, row.get(6)?);
            page.push(Stored::read(row)?.map(|Stored { sequence, json, .. }| Entry {
                sequence,
                json,
                sent_at: sent_at.filter(|_| undeliverable.is_none()),
                undeliverable,
            }));
        }
        Ok(page)
    }

    fn first_of_the_last(&self, condition: &str, values: &[Value], limit: u64) -> rusqlite::Result<u64> {
        let mut values = values.to_vec();
        values.push(Value::from(i64::try_from(limit).unwrap_or(i64::MAX)));
        self.connection.query_row(
            &format!(
                "SELECT ifnull(min(sequence), 1) FROM \
                 (SELECT sequence FROM reports WHERE {condition} ORDER BY sequence DESC LIMIT ?)"
            ),
            params_from_iter(&values),
            |row| row.get(0),
        )
    }
}

/// The filter in SQL, with the values of its question marks.
fn condition(filter: &Filter, sent_up_to: u64) -> (String, Vec<Value>) {
    let (mut terms, mut values) = (vec!["1".to_owned()], Vec::new());
    let mut add = |term: &str, value: Value| {
        terms.push(term.to_owned());
        values.push(value);
    };
    // Sequences are SQLite's integers: none is greater.
    let sequence = |sequence: u64| Value::from(i64::try_from(sequence).unwrap_or(i64::MAX));
    if let Some(after) = filter.after {
        add("sequence > ?", sequence(after));
    }
    if let Some(before) = filter.before {
        add("sequence < ?", sequence(before));
    }
    if let Some(since) = &filter.since {
        add("received_at >= ?", since.clone().into());
    }
    if let Some(until) = &filter.until {
        add("received_at < ?", until.clone().into());
    }
    // A damaged text is no JSON, and json_extract would end the whole query.
    let decision =
        |field: &str| format!("CASE WHEN json_valid(json) THEN json_extract(json, '$.decision.{field}') END = ?");
    if let Some(label) = filter.label {
        add(&decision("label"), label.name().to_owned().into());
    }
    if let Some(status) = filter.status {
        let name = match status {
            Status::Reported => "reported",
            Status::Abstained => "abstained",
        };
        add(&decision("status"), name.to_owned().into());
    }
    if filter.unsent {
        terms.push(format!("sequence > {sent_up_to}"));
    }
    (terms.join(" AND "), values)
}

/// Up to which sequence nothing needs sending: the greatest mark that is what was written.
pub(super) fn sent_up_to(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare("SELECT up_to, at, checksum FROM deliveries ORDER BY up_to DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (up_to, at, checksum): (u64, Option<String>, i64) = (row.get(0)?, row.get(1).ok(), row.get(2)?);
        if at.is_some_and(|at| schema::delivery_checksum(up_to, &at) == checksum) {
            return Ok(up_to);
        }
    }
    Ok(0)
}

/// How many reports have a greater sequence. Counted in the index, whose pages are few.
pub(super) fn count_after(connection: &Connection, sequence: u64) -> rusqlite::Result<u64> {
    connection.query_row(
        "SELECT count(*) FROM reports INDEXED BY reports_by_id WHERE id_key IS NOT NULL AND sequence > ?1",
        [sequence],
        |row| row.get(0),
    )
}

/// How many reports have a sequence above one and up to another.
pub(super) fn count_between(connection: &Connection, above: u64, up_to: u64) -> rusqlite::Result<u64> {
    let up_to = up_to.min(i64::MAX as u64);
    connection.query_row("SELECT count(*) FROM reports WHERE sequence > ?1 AND sequence <= ?2", [above, up_to], |row| {
        row.get(0)
    })
}

/// The schema's version.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0)).optional().map(Option::unwrap_or_default)
}

/// Opens a database that others may have open. Without a log nobody has, and reading it as unchangeable spares SQLite
/// the making of one; with one, it is read beside whoever writes it.
fn open(path: &Path) -> Result<Connection, OutboxError> {
    let failed = |what| move |error| OutboxError::of(path, what, error);
    let alone = !integrity::beside(path, "-wal").exists();
    let connection = open_read_only(path, alone).map_err(failed("cannot open"))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(failed("cannot set the busy timeout"))?;
    Ok(connection)
}

/// Opens without changing; `immutable` also ignores the log.
pub(super) fn open_read_only(path: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let immutable = if immutable { "?immutable=1" } else { "" };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file://{}{immutable}", percent_encoded(&absolute)), flags)
}

/// A path as it stands in a URI.
fn percent_encoded(path: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let encode = |&byte: &u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    path.as_os_str().as_bytes().iter().map(encode).collect()
}
