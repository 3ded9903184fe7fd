//! What the provider has seen since the program started, for status, telemetry and metrics. Names no instance and no peer.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How it stands with the DICOM network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The address that is listened on; absent while there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listening: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Associations at this moment.
    pub associations: u64,
    /// Associations that were accepted.
    pub accepted: u64,
    /// Associations that were rejected, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Connections that were broken off, by reason.
    pub broken: BTreeMap<String, u64>,
    /// Instances that were stored, and their senders told so.
    pub stored: u64,
    /// Instances that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// How often it has changed whether it listens.
    #[serde(skip)]
    changes: u64,
}

/// A handle on it; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Seen>>);

impl Watch {
    /// How it stands now.
    pub fn now(&self) -> Seen {
        self.lock().clone()
    }

    /// Counts what is worth a message at once. Another number than before: something has happened.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    pub(super) fn listening(&self, listening: Result<String, String>) {
        let mut seen = self.lock();
        seen.changes += 1;
        (seen.listening, seen.error) = match listening {
            Ok(address) => (Some(address), None),
            Err(error) => (None, Some(error)),
        };
    }

    pub(super) fn closed(&self) {
        let mut seen = self.lock();
        (seen.listening, seen.error) = (None, None);
    }

    /// One more association, unless there are `most` already.
    pub(super) fn accept(&self, most: usize) -> Option<Accepted> {
        let mut seen = self.lock();
        if seen.associations >= most as u64 {
            return None;
        }
        seen.associations += 1;
        seen.accepted += 1;
        Some(Accepted(self.clone()))
    }

    pub(super) fn rejected(&self, why: &str) {
        *self.lock().rejected.entry(why.to_owned()).or_default() += 1;
    }

    pub(super) fn broken(&self, why: &str) {
        *self.lock().broken.entry(why.to_owned()).or_default() += 1;
    }

    pub(super) fn stored(&self) {
        self.lock().stored += 1;
    }

    pub(super) fn refused(&self, why: &str) {
        *self.lock().refused.entry(why.to_owned()).or_default() += 1;
    }

    /// A poisoned lock is used on: every change is one step.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An association that counts as long as this lives.
#[derive(Debug)]
pub(super) struct Accepted(Watch);

impl Drop for Accepted {
    fn drop(&mut self) {
        let mut seen = self.0.lock();
        seen.associations = seen.associations.saturating_sub(1);
    }
}
