//! The box's word about itself, as it is published and kept (`roentgen.telemetry/1`): the nouns and their JSON. Fields are
//! only ever added. It names no image, no file and no person.

use super::health::{Health, Problem};
use super::latency::Latency;
use super::probe::{self, Disk, Frequency, Heat, Memory, Roots};
use super::state::{State, Update, UpdateWaiting};
use crate::assess;
use crate::bundle::Fallback;
use crate::report::{Clock, Label, ModelIdentity};
use crate::sink::dicom_sr::{self, Standing};
use crate::source::dicom_scp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::time::{Instant, SystemTime};

/// The schema name of telemetry.
pub const SCHEMA: &str = crate::sink::mqtt::TELEMETRY_SCHEMA;

/// The box's word about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The box's name; empty before the model is loaded.
    pub device: String,
    /// The program's version.
    pub version: String,
    /// When this was said, RFC 3339, UTC.
    pub at: String,
    /// Whether that can be trusted.
    pub clock: Clock,
    /// Seconds since the program started: counts are since then.
    pub uptime_s: u64,
    /// Seconds since the machine started, which no clock change moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine_uptime_s: Option<u64>,
    /// Whether all is well, and what is not.
    pub health: Health,
    /// What judges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineSaid>,
    /// What waits.
    pub queue: QueueSaid,
    /// Whether new images are taken.
    pub intake: IntakeSaid,
    /// What was done.
    pub counts: CountsSaid,
    /// When the last report was made, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_report_at: Option<String>,
    /// How long images take; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<Latency>,
    /// The broker.
    pub broker: BrokerSaid,
    /// Temperatures and throttling.
    pub heat: Heat,
    /// Frequencies of the processors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processors: Vec<Frequency>,
    /// Room on the disks of `state_dir` and of the drop folder, by these names.
    pub disks: BTreeMap<String, Disk>,
    /// Memory.
    pub memory: Memory,
    /// The DICOM network, where it is switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dicom: Option<dicom_scp::Seen>,
    /// The camera, where the box has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub camera: Option<CameraSaid>,
    /// What goes back to the PACS, where anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<ResultsSaid>,
    /// The last update of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// A bundle that could be installed, and waits for somebody to ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_waiting: Option<UpdateWaiting>,
    /// The last reload of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadSaid>,
}

/// What judges, as telemetry says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineSaid {
    /// The model.
    pub model: ModelIdentity,
    /// Set where that is not the one that should run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_fallback: Option<Fallback>,
    /// What runs it.
    pub backend: String,
    /// Set where that is not the backend that should run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_fallback: Option<Fallback>,
    /// Whose kernels.
    pub kernel: String,
    /// In how many threads.
    pub threads: usize,
}

/// What waits, as telemetry says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueSaid {
    /// Files in the drop folder, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<u64>,
    /// Reports that the broker has not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsent: Option<u64>,
    /// What the outbox takes on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbox_bytes: Option<u64>,
}

/// Whether new images are taken, as telemetry says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IntakeSaid {
    /// They are.
    pub open: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What was done since the start, as telemetry says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CountsSaid {
    /// Reports with a label, by label; all four stand here.
    pub reported: BTreeMap<String, u64>,
    /// Abstentions.
    pub abstained: u64,
    /// Their reasons, by code.
    pub reasons: BTreeMap<String, u64>,
    /// Refused files, by code.
    pub rejected: BTreeMap<String, u64>,
    /// Images that had their report already.
    pub repeated: u64,
    /// Reports that the broker acknowledged.
    pub published: u64,
    /// Reports that were dropped unsent.
    pub dropped: u64,
    /// Reports that can never be sent.
    pub undeliverable: u64,
    /// How often the decoder was started anew.
    pub decoder_restarts: u64,
    /// How often the configuration was read again and taken.
    pub reloads: u64,
}

/// What goes back to the PACS, as telemetry says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultsSaid {
    /// Objects that wait for the PACS.
    pub waiting: u64,
    /// Objects that it does not take.
    pub refused: u64,
    /// Bytes that they take on disk, with what is kept for reports that are not durable yet.
    pub bytes: u64,
    /// Objects that it has acknowledged.
    pub sent: u64,
    /// Objects that were dropped unsent.
    pub dropped: u64,
    /// DICOM radiographs on which nothing can be sent: they do not say of which study they are.
    #[serde(default)]
    pub unfiled: u64,
    /// Why they wait, or why the last one was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ResultsSaid {
    fn of(standing: &Standing) -> Self {
        let Standing { waiting, refused, bytes, sent, dropped, unfiled, .. } = *standing;
        let trouble = standing.trouble.as_ref().map(|(trouble, _)| trouble);
        let error = trouble.or(standing.refusal.as_ref()).cloned();
        Self { waiting, refused, bytes, sent, dropped, unfiled, error }
    }
}

/// The broker, as telemetry says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BrokerSaid {
    /// Whether a connection stands.
    pub connected: bool,
    /// How many there have been.
    pub connections: u64,
    /// Which version of MQTT is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The camera, as telemetry says it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraSaid {
    /// Whether it sends pictures.
    pub connected: bool,
    /// How, e.g. `YUYV 1280x720`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why the film that lies there cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complaint: Option<String>,
    /// Films that were taken since the start.
    pub films: u64,
    /// How often it went away.
    pub losses: u64,
    /// Whether there is a picture of the empty light box.
    pub reference: bool,
}

/// The last reload, as telemetry says it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReloadSaid {
    /// When.
    pub at: String,
    /// Why the new configuration was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl Telemetry {
    /// Puts together what is remembered and what the system says.
    pub(super) fn gather(state: &State, now: Instant, roots: &Roots) -> Self {
        let setup = state.setup.as_ref();
        let heat = Heat::read(roots);
        let mut health = Health::of(state, now);
        if heat.throttled == Some(true) {
            let message =
                "The processor is slowed down, mostly because the board is too hot or its power supply too weak.";
            let advice = "Images take longer. Give it air, a heat sink or a fan, and the power supply of its makers.";
            health.problems.push(Problem::warning("throttled", message, advice));
        }
        if state.results.is_none() && setup.is_some_and(|setup| dicom_sr::are_left(&setup.state_dir)) {
            let message = "Objects that were made for a PACS lie in state_dir/results, with patients' names, and nothing \
                           sends them: there is no [dicom_results].";
            let advice = "Remove that folder, or put the section back.";
            health.problems.push(Problem::warning("results_left", message, advice));
        }
        let disks = setup.into_iter().flat_map(|setup| {
            let disks = [("state_dir", &setup.state_dir), ("incoming", &setup.incoming)];
            disks.into_iter().filter_map(|(name, path)| Some((name.to_owned(), Disk::read(path)?)))
        });
        let broker = state.broker.clone().unwrap_or_default();
        Self {
            schema: SCHEMA.into(),
            device: setup.map(|setup| setup.device.clone()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            at: assess::rfc3339(SystemTime::now()),
            clock: assess::clock(),
            uptime_s: now.saturating_duration_since(state.started).as_secs(),
            machine_uptime_s: probe::uptime(roots).map(|up| up.as_secs()),
            health: Health::from(health.problems),
            engine: setup.map(|setup| EngineSaid {
                model: setup.model.clone(),
                bundle_fallback: setup.fallback.clone(),
                backend: setup.backend.clone(),
                backend_fallback: setup.backend_fallback.clone(),
                kernel: setup.kernel.clone(),
                threads: setup.threads,
            }),
            queue: QueueSaid {
                incoming: state.incoming,
                unsent: state.queue.map(|queue| queue.unsent),
                outbox_bytes: state.queue.and_then(|queue| queue.bytes),
            },
            intake: IntakeSaid {
                open: state.closed.is_none(),
                reason: state.closed.as_ref().map(|(reason, _)| reason.clone()),
                since: state.closed.as_ref().map(|(_, since)| assess::rfc3339(*since)),
            },
            counts: CountsSaid::of(state),
            last_report_at: state.last_report_at.map(assess::rfc3339),
            latency_ms: state.latency.quantiles(),
            broker: BrokerSaid {
                connected: broker.connected,
                connections: broker.connections,
                protocol: broker.version.map(|version| version.as_str().to_owned()),
                error: broker.error,
            },
            heat,
            processors: Frequency::read(roots),
            disks: disks.collect(),
            memory: Memory::read(roots),
            dicom: state.dicom.as_ref().map(dicom_scp::Watch::now),
            camera: state.camera.clone().map(|camera| CameraSaid {
                connected: camera.mode.is_some(),
                mode: camera.mode,
                reason: camera.away,
                complaint: camera.complaint,
                films: camera.films,
                losses: camera.losses,
                reference: camera.has_reference,
            }),
            results: state.results.as_ref().map(ResultsSaid::of),
            update: state.update.clone(),
            update_waiting: state.update_waiting.clone(),
            reload: state
                .reload
                .as_ref()
                .map(|reload| ReloadSaid { at: assess::rfc3339(reload.at), refused: reload.refused.clone() }),
        }
    }
}

impl CountsSaid {
    fn of(state: &State) -> Self {
        let counts = &state.counts;
        let mut reported = by_name(&counts.reported);
        for label in Label::ALL {
            reported.entry(label.name().to_owned()).or_default();
        }
        Self {
            reported,
            abstained: counts.abstained,
            reasons: by_name(&counts.reasons),
            rejected: by_name(&counts.rejected),
            repeated: counts.repeated,
            published: counts.published,
            dropped: counts.dropped,
            undeliverable: counts.undeliverable,
            decoder_restarts: counts.decoder_restarts,
            reloads: counts.reloads,
        }
    }
}

/// The counts by the names that the codes have in reports.
fn by_name<Code: Serialize>(counts: &HashMap<Code, u64>) -> BTreeMap<String, u64> {
    // A code is a plain name in JSON, so that none is left out.
    let name = |code| serde_json::to_value(code).ok()?.as_str().map(str::to_owned);
    counts.iter().filter_map(|(code, count)| Some((name(code)?, *count))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::RefusalCode;
    use crate::status::{QueueDepth, Status};

    #[test]
    fn it_says_what_was_told_by_the_names_of_reports() {
        let status = Status::default();
        status.rejected(RefusalCode::UnknownFormat);
        status.rejected(RefusalCode::UnknownFormat);
        status.repeated();
        status.queue(QueueDepth { unsent: 7, bytes: Some(4096) });
        status.incoming(Some(3));
        let json = serde_json::to_value(status.telemetry(&Roots::default())).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["counts"]["rejected"], serde_json::json!({ "unknown_format": 2 }));
        assert_eq!(
            json["counts"]["reported"],
            serde_json::json!({ "covid": 0, "lung_opacity": 0, "normal": 0, "viral_pneumonia": 0 })
        );
        assert_eq!(json["counts"]["repeated"], 1);
        assert_eq!(json["queue"], serde_json::json!({ "incoming": 3, "unsent": 7, "outbox_bytes": 4096 }));
        assert_eq!(json["intake"], serde_json::json!({ "open": true }));
        assert_eq!(json["health"]["healthy"], false, "no model is loaded");
        assert!(json["memory"]["resident_bytes"].as_u64() > Some(0), "{json}");
        let read: Telemetry = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), json);
    }

    #[test]
    fn what_was_made_for_a_pacs_and_nothing_sends_is_warned_of() {
        use crate::status::Setup;
        let folder = tempfile::tempdir().unwrap();
        let status = Status::default();
        let model = ModelIdentity { name: "tiny".into(), version: "1.0.0".into(), sha256: "ab".into() };
        status.running(Setup {
            device: "box-t".into(),
            model,
            bundle: "/".into(),
            fallback: None,
            backend: "native".into(),
            kernel: "portable".into(),
            threads: 1,
            backend_fallback: None,
            state_dir: folder.path().into(),
            incoming: "/".into(),
        });
        let waiting = folder.path().join("results/waiting");
        std::fs::create_dir_all(&waiting).unwrap();
        let is_left = || {
            let problems = status.telemetry(&Roots::default()).health.problems;
            problems.iter().any(|problem| problem.code == "results_left")
        };
        assert!(!is_left(), "nothing lies there");
        std::fs::write(waiting.join("a.dcm"), "1").unwrap();
        assert!(is_left());
        status.results(Some(Standing::default()));
        assert!(!is_left(), "it is sent");
    }
}
