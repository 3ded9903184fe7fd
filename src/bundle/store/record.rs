//! The record of what is installed: one small file, replaced whole, so that the switch from one bundle to the next is a
//! single rename. Not the bundles themselves.

use super::{STAGING, StoreError};
use crate::bundle::disk::replace_file;
use crate::plain_file;
use semver::Version;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

/// The schema name of the record.
const SCHEMA: &str = "roentgen.bundles/1";

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Always [`SCHEMA`].
    schema: String,
    /// The folder of the active bundle; none: the configured one is used.
    pub(super) active: Option<String>,
    /// The folder of the good one before.
    pub(super) previous: Option<String>,
    /// Of every model's name the highest version that was ever active.
    pub(super) highest: BTreeMap<String, Highest>,
}

/// The highest version that was ever active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Highest {
    /// The version.
    pub(super) version: Version,
    /// The bundle's SHA-256: one version has one content.
    pub(super) sha256: String,
}

impl Default for Record {
    fn default() -> Self {
        Self { schema: SCHEMA.into(), active: None, previous: None, highest: BTreeMap::new() }
    }
}

impl Record {
    /// Reads the record in `path`; the empty one where there is none.
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let io = |error| StoreError::Io { what: "reading", path: path.to_owned(), error };
        let mut text = String::new();
        match plain_file::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io(error)),
            Ok((file, _)) => file.take(MAX_BYTES).read_to_string(&mut text).map_err(io)?,
        };
        let refuse = |reason: String| StoreError::Record { path: path.to_owned(), reason };
        let record: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if record.schema != SCHEMA {
            return Err(refuse(format!("schema is {:?}, this program reads {SCHEMA:?}", record.schema)));
        }
        if let Some(folder) = record.folders().find(|folder| !is_plain(folder)) {
            return Err(refuse(format!("{folder:?} is no folder's name")));
        }
        Ok(record)
    }

    /// Makes this the record in `path`, durably and at once, for every user to read: the daemon need not be the one who
    /// installs.
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let io = |error| StoreError::Io { what: "writing", path: path.to_owned(), error };
        let text = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        replace_file(path, STAGING, &text).map_err(io)
    }

    /// The folders of the good bundles, the active one first.
    pub(super) fn folders(&self) -> impl Iterator<Item = &str> {
        self.active.iter().chain(&self.previous).map(String::as_str)
    }
}

/// Whether this is one plain part of a path, and not a hidden one.
pub(super) fn is_plain(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.+".contains(letter);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_written_is_read_and_what_is_strange_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("installed.json");
        assert_eq!(Record::read(&path).unwrap(), Record::default());
        let highest = Highest { version: Version::new(1, 2, 3), sha256: "ab".into() };
        let record = Record {
            active: Some("tiny-1.2.3-abcdef01".into()),
            highest: BTreeMap::from([("tiny".into(), highest)]),
            ..Record::default()
        };
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), record);
        let text = fs::read_to_string(&path).unwrap();
        for (from, to) in [
            ("tiny-1.2.3-abcdef01", "../elsewhere"),
            ("tiny-1.2.3-abcdef01", ""),
            ("tiny-1.2.3-abcdef01", ".hidden"),
            ("roentgen.bundles/1", "roentgen.bundles/2"),
            ("1.2.3\"", "one\""),
            ("{", "["),
        ] {
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let error = Record::read(&path).unwrap_err().to_string();
            assert!(error.contains("installed.json") && error.contains("an older one"), "{error}");
        }
    }
}
