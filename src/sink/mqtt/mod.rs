//! The MQTT sink: publishes reports at QoS 1 and returns on the broker's PubAck, keeps a retained status with a last
//! will, reconnects for ever. Not a queue: what is not acknowledged stays in the outbox.
//!
//! | topic | QoS | retained | what |
//! |---|---|---|---|
//! | `<prefix>/<device>/report` | 1 | never | one [`Report`] |
//! | `<prefix>/<device>/status` | 1 | yes | `{"schema":"roentgen.status/1","status":"online"…}` with what [`Online`] says; `offline` by last will, and by ourselves on a graceful stop, since a broker sends no will then |
//!
//! Telemetry, commands and their answers go over the same connection: see [`Side`].
//!
//! Every connection is a clean session with a protocol state of its own. The client library would carry unacknowledged
//! packets over to the next connection, but drops them silently where the broker lost the session (a restart without
//! persistence does that), and it queues events of the old connection for after the reconnect. The outbox already keeps
//! what was not acknowledged, so a second memory would only add ways to be wrong: after a lost connection the report is
//! published anew. Delivery is at least once; consumers drop repeats by `report_id`.

pub mod command;
mod config;
mod link;
mod side;
mod tls;

pub use config::{Address, Config, InvalidValue, check_topic_level};
pub use side::{Received, Sent, Side};

use super::{Sink, SinkError};
use crate::bundle::Fallback;
use crate::report::{ModelIdentity, Report};
use link::Link;
use rumqttc::{LastWill, MqttOptions, QoS, Transport};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long one [`Sink::publish`] waits for connection and PubAck before it lets its caller look around.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a graceful stop waits for the broker to acknowledge the offline status.
const FAREWELL: Duration = Duration::from_secs(2);

/// The sink cannot be made from this configuration.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// A value is unusable.
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    /// A file that the configuration names cannot be used.
    #[error("{key} = {path}: {problem}")]
    File {
        /// The key as it stands in the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// No thread or runtime could be made.
    #[error("cannot start the MQTT client: {0}")]
    Start(std::io::Error),
}

/// What the online status says beside that the box is online.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Online {
    /// The model that the box runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelIdentity>,
    /// That it is not the one it should run, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle_fallback: Option<Fallback>,
}

/// A report that was handed to the client and not acknowledged yet.
struct Pending {
    report_id: String,
    /// On which connection; another one never acknowledges it.
    connection: u64,
    token: u64,
}

/// The MQTT sink. Dropping it says goodbye to the broker.
pub struct MqttSink {
    link: Link,
    side: Side,
    device: String,
    report_topic: String,
    status_topic: String,
    offline: String,
    max_payload: usize,
    patience: Duration,
    pending: Option<Pending>,
}

impl MqttSink {
    /// Whether a sink can be made from this configuration. Connects to nothing.
    pub fn check(config: &Config, device: &str) -> Result<(), MqttError> {
        options(config, device).map(|_| ())
    }

    /// Checks the configuration and starts to connect in the background. Returns at once: the broker may be away.
    pub fn start(config: &Config, device: &str, online: &Online) -> Result<Self, MqttError> {
        let options = options(config, device)?;
        let (report_topic, status_topic) = (topic(config, device, "report"), topic(config, device, "status"));
        let link = Link::start(options, status_topic.clone(), status(device, "online", online))?;
        let topics = ["telemetry", "result", "command/#"].map(|leaf| topic(config, device, leaf));
        let side = Side::new(link.clone(), topics);
        // Fixed header, topic and packet identifier take their share of a packet.
        let max_payload = config.max_packet_bytes - report_topic.len() - 16;
        let offline = status(device, "offline", &Offline { reason: "stopped" });
        let device = device.to_owned();
        let (patience, pending) = (PATIENCE, None);
        Ok(Self { link, side, device, report_topic, status_topic, offline, max_payload, patience, pending })
    }

    /// Says something else on the online status: now, where a connection stands, and at the start of every later one.
    pub fn announce(&mut self, online: &Online) {
        self.link.lock().announce(&self.status_topic, status(&self.device, "online", online));
    }

    /// Whether a connection stands at the moment.
    pub fn connected(&self) -> bool {
        self.link.lock().client.is_some()
    }

    /// The same connection for what is no report.
    pub fn side(&self) -> Side {
        self.side.clone()
    }

    /// Publishes the offline status, waits for its acknowledgement for a moment, and disconnects. Idempotent.
    pub fn close(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let token = self.link.lock().publish(&self.status_topic, true, self.offline.clone().into_bytes());
        if let Some(token) = token {
            self.link.wait(deadline, |state| state.acknowledged.remove(&token) || state.client.is_none());
        }
        let disconnecting = {
            let mut state = self.link.lock();
            state.stopping = true;
            state.client.take().is_some_and(|client| client.try_disconnect().is_ok())
        };
        self.link.changed();
        if disconnecting {
            self.link.wait(Instant::now() + FAREWELL, |state| state.ended);
        }
    }
}

impl Sink for MqttSink {
    fn publish(&mut self, report: &Report) -> Result<(), SinkError> {
        let payload = serde_json::to_vec(report).map_err(|error| SinkError(format!("report to JSON: {error}")))?;
        if payload.len() > self.max_payload {
            return Err(SinkError(format!(
                "report {} has {} bytes, mqtt.max_packet_bytes leaves {}: raise it here and at the broker",
                report.report_id,
                payload.len(),
                self.max_payload
            )));
        }
        // Only the report asked for is waited for: an abandoned one comes again from the outbox.
        let mut pending = self.pending.take().filter(|pending| pending.report_id == report.report_id);
        let acknowledged = self.link.wait(Instant::now() + self.patience, |state| {
            if let Some(sent) = &pending {
                if state.acknowledged.remove(&sent.token) {
                    return true;
                }
                if state.client.is_none() || state.connection != sent.connection {
                    pending = None;
                }
            }
            if pending.is_none()
                && let Some(token) = state.publish(&self.report_topic, false, payload.clone())
            {
                let report_id = report.report_id.clone();
                pending = Some(Pending { report_id, connection: state.connection, token });
            }
            false
        });
        if acknowledged {
            return Ok(());
        }
        let state = self.link.lock();
        let message = match (&pending, &state.last_error) {
            (Some(_), _) => "the broker has not acknowledged it yet".to_owned(),
            (None, Some(error)) => format!("no connection to the broker: {error}"),
            (None, None) => "not connected to the broker yet".to_owned(),
        };
        drop(state);
        self.pending = pending;
        Err(SinkError(message))
    }
}

impl Drop for MqttSink {
    fn drop(&mut self) {
        if !self.link.lock().stopping {
            self.close();
        }
    }
}

/// Asks the broker once for a connection and says what came of it; for `roentgend doctor`.
pub fn probe(config: &Config, device: &str) -> Result<(), MqttError> {
    let mut options = options(config, device)?;
    // Another client identifier and no will: the running daemon must neither be kicked out nor declared dead.
    options.set_client_id(format!("roentgen-doctor-{}", std::process::id()));
    options.set_last_will(LastWill::new("roentgen/doctor", "", QoS::AtMostOnce, false));
    link::probe(options).map_err(|problem| {
        let problem = format!("{problem}; start the broker or correct the address");
        InvalidValue { key: "mqtt.url", value: config.url.clone(), problem }.into()
    })
}

fn topic(config: &Config, device: &str, leaf: &str) -> String {
    format!("{}/{device}/{leaf}", config.topic_prefix)
}

/// What the offline status says beside that the box is offline.
#[derive(Serialize)]
struct Offline {
    reason: &'static str,
}

/// The status message, with what else there is to say.
fn status(device: &str, status: &str, more: &impl Serialize) -> String {
    let mut json = serde_json::json!({
        "schema": "roentgen.status/1",
        "status": status,
        "device": device,
        "version": env!("CARGO_PKG_VERSION"),
    });
    // Both kinds are plain structs of text, which is always an object.
    if let (Ok(serde_json::Value::Object(more)), Some(fields)) = (serde_json::to_value(more), json.as_object_mut()) {
        fields.extend(more);
    }
    json.to_string()
}

fn options(config: &Config, device: &str) -> Result<MqttOptions, MqttError> {
    config.validate()?;
    check_topic_level("device", device)?;
    let address = config.address()?;
    let mut options = MqttOptions::new(format!("roentgen-{device}"), address.host.clone(), address.port);
    options.set_clean_session(true);
    options.set_keep_alive(config.keep_alive());
    options.set_max_packet_size(config.max_packet_bytes, config.max_packet_bytes);
    options.set_inflight(8);
    let will = status(device, "offline", &Offline { reason: "connection lost" });
    options.set_last_will(LastWill::new(topic(config, device, "status"), will, QoS::AtLeastOnce, true));
    if let Some(username) = &config.username {
        options.set_credentials(username, password(config)?);
    }
    if address.tls {
        options.set_transport(Transport::tls_with_config(tls::client_config(config)?.into()));
    }
    Ok(options)
}

fn password(config: &Config) -> Result<String, MqttError> {
    let Some(path) = &config.password_file else { return Ok(String::new()) };
    let key = "mqtt.password_file";
    let text = std::fs::read_to_string(path).map_err(|error| MqttError::File {
        key,
        path: path.clone(),
        problem: format!("{error}; write the password into its first line and let the daemon read it"),
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests;
