//! What can go wrong with the outbox, and whether it may pass by itself. No recovery: that is `integrity`'s.

use super::schema::VERSION;
use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// The queue cannot be used now; the daemon may not judge what it cannot keep.
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
        "outbox {path} is broken ({reason}); the daemon sets it aside at its next start, saves the reports that can still \
         be read and goes on with a new one: start it (again), and then look at `roentgend doctor`"
    )]
    Unsound {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// A newer version of the program wrote this file.
    #[error(
        "outbox {path} has schema version {found}, this program knows {VERSION}; \
         install the version that wrote it, or move the file away once its reports are delivered"
    )]
    Schema {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A file beside the database cannot be moved or made.
    #[error("outbox {path}: {what}: {error}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// A report does not go to its JSON.
    #[error("outbox {path}: a report cannot be written as JSON: {error}")]
    Json {
        /// The database file.
        path: PathBuf,
        /// What the serializer said.
        #[source]
        error: serde_json::Error,
    },
}

impl OutboxError {
    pub(super) fn of(path: &Path, what: &'static str, error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        let path = path.to_owned();
        // A value that the tables cannot hold was not written by us.
        let is_foreign =
            matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..));
        if is_foreign {
            return Self::Unsound { path, reason: error.to_string() };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Self::Unsound { path, reason: error.to_string() }
            }
            _ => Self::Database { path, what, error },
        }
    }

    /// Whether it may be over later without anybody's doing something about the file: the disk is full, read-only, away
    /// or failing at the moment, or somebody else holds the file. Who meets one waits and tries again.
    pub fn is_passing(&self) -> bool {
        use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, ReadOnly, SystemIoFailure};
        let passing = [CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, ReadOnly, SystemIoFailure];
        match self {
            Self::Database { error, .. } => error.sqlite_error_code().is_some_and(|code| passing.contains(&code)),
            Self::File { .. } => true,
            Self::Unsound { .. } | Self::Schema { .. } | Self::Json { .. } => false,
        }
    }
}
