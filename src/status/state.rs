//! What [`super::Status`] remembers, and the nouns it is told.

use super::Camera;
use super::counts::Counts;
use super::latency::Latencies;
use crate::bundle::Fallback;
use crate::report::ModelIdentity;
use crate::sink::dicom_sr::Standing;
use crate::sink::mqtt::Version;
use crate::source::dicom_scp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// How much waits in the outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Reports that the broker has not acknowledged.
    pub unsent: u64,
    /// What the outbox takes on disk, where that is known.
    pub bytes: Option<u64>,
}

/// What the box runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// The box's name.
    pub device: String,
    /// The model.
    pub model: ModelIdentity,
    /// The directory of its bundle.
    pub bundle: PathBuf,
    /// Set where that is not the model that it should run.
    pub fallback: Option<Fallback>,
    /// What runs it.
    pub backend: String,
    /// Whose kernels.
    pub kernel: String,
    /// In how many threads.
    pub threads: usize,
    /// Set where that is not the backend that should run it.
    pub backend_fallback: Option<Fallback>,
    /// Where the box keeps its state: its disk is looked at.
    pub state_dir: PathBuf,
    /// The drop folder: its disk is looked at too.
    pub incoming: PathBuf,
}

/// How the connection to the broker stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Broker {
    /// Whether there is one.
    pub connected: bool,
    /// How many there have been since the sink was started.
    pub connections: u64,
    /// Which version of MQTT is spoken.
    pub version: Option<Version>,
    /// Why there is none, where that is known.
    pub error: Option<String>,
}

/// The last time that the configuration was to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// When.
    pub at: SystemTime,
    /// Why the new one was not taken.
    pub refused: Option<String>,
}

/// The last step of the last update of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Which bundle, or what was asked: a file's name in `bundles/incoming`, or `rollback`.
    pub what: String,
    /// How far it came: the `stage` of a result.
    pub stage: String,
    /// The same in words.
    pub message: String,
    /// When, RFC 3339.
    pub at: String,
}

/// A bundle that lies in `bundles/incoming`, signed by a trusted key, and waits for somebody to ask for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateWaiting {
    /// Its file there.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// All that is remembered.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) started: Instant,
    pub(super) counts: Counts,
    pub(super) latency: Latencies,
    pub(super) last_report_at: Option<SystemTime>,
    /// The line's last turn; none before the first.
    pub(super) last_turn: Option<Instant>,
    pub(super) queue: Option<QueueDepth>,
    /// When the broker acknowledged something, or when there began to be something to acknowledge.
    pub(super) queue_moved: Instant,
    pub(super) dropped_at: Option<Instant>,
    pub(super) set_aside: Option<String>,
    /// Why the intake is closed, and since when.
    pub(super) closed: Option<(String, SystemTime)>,
    pub(super) incoming: Option<u64>,
    pub(super) reload: Option<Reload>,
    pub(super) setup: Option<Setup>,
    pub(super) broker: Option<Broker>,
    /// Since when the broker is there, or away.
    pub(super) broker_since: Instant,
    pub(super) update: Option<Update>,
    pub(super) update_waiting: Option<UpdateWaiting>,
    /// What the DICOM network has seen, where it is switched on.
    pub(super) dicom: Option<dicom_scp::Watch>,
    pub(super) camera: Option<Camera>,
    /// What goes back to the PACS, where anything does.
    pub(super) results: Option<Standing>,
    /// See [`super::Status::urgent`].
    pub(super) urgent: u64,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            counts: Counts::default(),
            latency: Latencies::default(),
            last_report_at: None,
            last_turn: None,
            queue: None,
            queue_moved: now,
            dropped_at: None,
            set_aside: None,
            closed: None,
            incoming: None,
            reload: None,
            setup: None,
            broker: None,
            broker_since: now,
            update: None,
            update_waiting: None,
            dicom: None,
            camera: None,
            results: None,
            urgent: 0,
        }
    }
}
