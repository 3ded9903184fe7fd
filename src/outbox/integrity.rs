//! Opening a database file of which nobody knows what happened to it: checked where the last end was no clean one,
//! brought to this version, or set aside with a new one in its place. A daemon must start on any bytes here.
//!
//! An open outbox carries a mark that only [`Drop`] of [`super::Outbox`] takes away. Where it stands at the start the
//! process was killed or the power failed, and `PRAGMA integrity_check` reads the whole file, index against rows. Not
//! the quicker `quick_check`: the file is bounded, and it takes seconds where it is full. A file of version 1 has no
//! mark and is always checked. What a check cannot see, a changed letter inside of a report, the checksum of the report
//! tells.
//!
//! A broken file is moved, with its `-wal` and `-shm`, to `NAME.unsalvaged`; a new one is made; what can be read of the
//! old one and bears its checksum is copied, unsent reports first, and then it becomes `NAME.broken-TIME`. An
//! interruption anywhere is taken up by the next start, also where the new one broke with it: nothing is queued before
//! all is copied, so that one is put away unread. The last three broken files are kept.
//!
//! Sequences go on where the old file ends. Where its end cannot be read they jump to the seconds since 1970, which no
//! box reaches by counting, and by far beyond the jump before, which `NAME.jump` remembers: so none is given twice, not
//! even where the clock has gone back.

use super::{OutboxError, history, salvage, schema};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many broken files are kept.
const KEPT: usize = 3;

/// Bytes that the log may have before it is written back into the database file.
const LOG_BYTES: u64 = 4 << 20;

/// The parts of a database: the file itself first, so that where it is, the others belong to it.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// A broken file that was set aside, and what became of its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// Where it lies now.
    pub path: PathBuf,
    /// What was wrong with it.
    pub reason: String,
    /// Reports of it that go on in the new file, sent and unsent.
    pub kept: u64,
    /// How many of these wait for the broker.
    pub requeued: u64,
    /// Whether all of it could be read: if not, reports may be lost.
    pub complete: bool,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason, kept, requeued, complete } = self;
        let read =
            if *complete { "all of it could be read" } else { "not all of it could be read: reports may be lost" };
        write!(
            f,
            "the outbox was broken ({reason}) and was set aside as {}; {kept} reports of it are kept, {requeued} of them \
             wait for the broker; {read}. Keep that file until somebody has looked at it, and check the disk",
            path.display()
        )
    }
}

/// A path beside the database, its name with a suffix.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The broken files that lie beside this database, oldest first.
pub fn broken_files(path: &Path) -> Vec<PathBuf> {
    let mut prefix = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
    prefix.push(".broken-");
    let is_broken = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(prefix.as_encoded_bytes()) && !name.ends_with(b"-wal") && !name.ends_with(b"-shm")
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok().map(|entry| entry.file_name()));
    let mut found: Vec<_> = names.filter(is_broken).map(|name| folder.join(name)).collect();
    found.sort();
    found
}

/// Opens the database, whatever lies in its place.
pub(super) fn open(path: &Path) -> Result<(Connection, Option<SetAside>), OutboxError> {
    let unsalvaged = beside(path, ".unsalvaged");
    // Not `exists`, which takes a disk that fails for a missing file: a new one would be put in its place.
    let is_there = |file: &Path| {
        file.try_exists().map_err(|error| OutboxError::File {
            path: file.to_owned(),
            what: "cannot look for it",
            error,
        })
    };
    if !is_there(&unsalvaged)? {
        reunite(path, &unsalvaged)?;
    } else if !is_there(path)? {
        // Interrupted while it was moved.
        move_parts(path, &unsalvaged)?;
    }
    let mut reason = "an earlier start was interrupted while it set it aside".to_owned();
    let mut opened = None;
    if is_there(path)? {
        match open_sound(path) {
            Ok(connection) => opened = Some(connection),
            Err(OutboxError::Unsound { reason: found, .. }) => {
                log::error!("outbox {}: broken ({found}); it is set aside", path.display());
                if is_there(&unsalvaged)? {
                    // Broken again before all of the first was read: nothing is queued until that is done, so this one
                    // holds copies at most and the first still everything.
                    move_copies(path, &free_name(path))?;
                } else {
                    reason = found;
                    move_parts(path, &unsalvaged)?;
                }
                sync_folder(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    let mut connection = match opened {
        Some(connection) => connection,
        None => {
            schema::create(path)?;
            open_sound(path)?
        }
    };
    let set_aside = if is_there(&unsalvaged)? {
        let salvaged = salvage::salvage(&unsalvaged, path, &mut connection)?;
        let aside = free_name(path);
        move_parts(&unsalvaged, &aside)?;
        sync_folder(path)?;
        prune(path);
        let salvage::Salvaged { kept, requeued, complete } = salvaged;
        let set_aside = SetAside { path: aside, reason, kept, requeued, complete };
        log::error!("{set_aside}");
        Some(set_aside)
    } else {
        None
    };
    Ok((connection, set_aside))
}

/// Opens a file that must be a sound database: checks it where its last end was no clean one, brings it to this version
/// and marks it as open.
fn open_sound(path: &Path) -> Result<Connection, OutboxError> {
    let failed = |what| move |error| OutboxError::of(path, what, error);
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        return Err(OutboxError::Unsound { path: path.to_owned(), reason: "the file is empty".into() });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed("cannot open"))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(failed("cannot set the busy timeout"))?;
    let version = history::version(&connection).map_err(failed("cannot read its version"))?;
    let was_clean = version == schema::VERSION && is_clean(&connection, path)?;
    if !was_clean && version != 0 {
        check(&connection, path)?;
    }
    match version {
        // Version 1 made its file before its tables: a crash between the two left this.
        0 => return Err(OutboxError::Unsound { path: path.to_owned(), reason: "it has no tables".into() }),
        1 => {
            schema::migrate(&mut connection).map_err(failed("cannot bring it to this version"))?;
            log::info!("outbox {}: brought to version {}", path.display(), schema::VERSION);
        }
        schema::VERSION => {}
        found => return Err(OutboxError::Schema { path: path.to_owned(), found }),
    }
    if let Err(error) = schema::rebuild(&connection) {
        log::warn!("outbox {}: cannot be rewritten now, it stays larger than it must be: {error}", path.display());
    }
    prepare(&connection).map_err(failed("cannot set it up"))?;
    // What every start reads: a file that fails at this is set aside now, not stumbled over later.
    let read = || -> rusqlite::Result<()> {
        connection.query_row("SELECT count(*) FROM reports", [], |row| row.get::<_, u64>(0))?;
        history::sent_up_to(&connection)?;
        super::last_sequence(&connection)?;
        set_clean(&connection, false)
    };
    read().map_err(failed("cannot read it"))?;
    Ok(connection)
}

/// WAL, so that others can read while a report is written; FULL, so that a commit is on the disk on return.
fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let page: u64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_BYTES / page.max(512))?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)
}

/// Whether the last process that had it open closed it.
fn is_clean(connection: &Connection, path: &Path) -> Result<bool, OutboxError> {
    match connection.query_row("SELECT clean FROM state", [], |row| row.get(0)) {
        Ok(clean) => Ok(clean),
        // It calls itself version 2 and has not what that has.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(false),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(false),
        Err(error) => Err(OutboxError::of(path, "cannot read its state", error)),
    }
}

/// Sets the mark of a clean end, or takes it away.
pub(super) fn set_clean(connection: &Connection, clean: bool) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute("UPDATE state SET clean = ?1", [clean]).map(drop)
}

/// Reads the whole file and compares index and rows.
fn check(connection: &Connection, path: &Path) -> Result<(), OutboxError> {
    let started = std::time::Instant::now();
    let unsound = |reason| OutboxError::Unsound { path: path.to_owned(), reason };
    let verdict: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| OutboxError::of(path, "cannot check it", error))?;
    if verdict != "ok" {
        // One line of several; the rest says the same about other pages.
        return Err(unsound(verdict.lines().take(2).collect::<Vec<_>>().join(" ")));
    }
    // Every table must be there: a schema that lost one is as broken as a page.
    let tables: u64 = connection
        .query_row("SELECT count(*) FROM sqlite_master WHERE name = 'reports'", [], |row| row.get(0))
        .map_err(|error| OutboxError::of(path, "cannot read its tables", error))?;
    if tables == 0 {
        return Err(unsound("it has no table of reports".into()));
    }
    log::info!("outbox {}: whole after an unclean end ({} ms)", path.display(), started.elapsed().as_millis());
    Ok(())
}

/// Moves a database with all its parts.
fn move_parts(from: &Path, to: &Path) -> Result<(), OutboxError> {
    move_each(from, to, PARTS)
}

/// Moves a database that waits behind an unsalvaged one. The file itself goes last: an interruption must leave no log
/// without its file, which the next start would take for the other one's.
fn move_copies(from: &Path, to: &Path) -> Result<(), OutboxError> {
    let [file, log, index] = PARTS;
    move_each(from, to, [index, log, file])
}

fn move_each(from: &Path, to: &Path, parts: [&str; 3]) -> Result<(), OutboxError> {
    for part in parts {
        let source = beside(from, part);
        if source.exists() {
            fs::rename(&source, beside(to, part)).map_err(|error| OutboxError::File {
                path: source.clone(),
                what: "cannot set it aside",
                error,
            })?;
        }
    }
    Ok(())
}

/// An earlier start was interrupted when a file had its last name and its log not yet: the log follows it. Left there, it
/// would be taken for the log of the next file that breaks.
fn reunite(path: &Path, unsalvaged: &Path) -> Result<(), OutboxError> {
    let last = broken_files(path).pop();
    for part in &PARTS[1..] {
        let left = beside(unsalvaged, part);
        let done = match last.as_ref().map(|last| beside(last, part)).filter(|to| !to.exists()) {
            _ if !left.exists() => Ok(()),
            Some(to) => fs::rename(&left, to),
            None => fs::remove_file(&left),
        };
        done.map_err(|error| OutboxError::File { path: left, what: "cannot set it aside", error })?;
    }
    Ok(())
}

/// Bytes that opening this database may have to read, some of them in small pieces: after an unclean end all of it.
pub fn bytes_to_read(path: &Path) -> u64 {
    let size = |file: PathBuf| fs::metadata(file).map_or(0, |found| found.len());
    ["", "-wal", ".unsalvaged", ".unsalvaged-wal"].map(|suffix| size(beside(path, suffix))).into_iter().sum()
}

/// A name for a broken file that nothing has yet.
fn free_name(path: &Path) -> PathBuf {
    let time = chrono::Utc::now().format("%Y%m%dT%H%M%S%3fZ");
    let named = |n: u32| beside(path, &if n == 0 { format!(".broken-{time}") } else { format!(".broken-{time}-{n}") });
    (0..).map(named).find(|name| !name.exists()).unwrap_or_else(|| named(0))
}

/// Removes the oldest of the broken files: a disk that breaks one a day must not be filled with them.
fn prune(path: &Path) {
    let broken = broken_files(path);
    for old in &broken[..broken.len().saturating_sub(KEPT)] {
        for part in PARTS {
            let part = beside(old, part);
            match fs::remove_file(&part) {
                Ok(()) => log::info!("{}: removed; the last {KEPT} broken files are kept", part.display()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => log::warn!("{}: cannot be removed: {error}", part.display()),
            }
        }
    }
}

/// Brings new names in the database's folder onto the disk.
pub(super) fn sync_folder(path: &Path) -> Result<(), OutboxError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| OutboxError::File {
        path: folder.to_owned(),
        what: "cannot write the folder to the disk",
        error,
    })
}
