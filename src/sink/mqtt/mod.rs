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
//!
//! Many reports are on their way at a time, in their order: the broker keeps the order of one connection, and after a
//! lost one everything from the first unacknowledged report on is published anew, so that the order holds with repeats
//! in it.
//!
//! A report above `mqtt.max_packet_bytes` is undeliverable, since no attempt would ever do. What the broker does with
//! one above a limit of its own is its affair: mosquitto acknowledges and drops it.

pub mod command;
mod config;
mod link;
mod side;

pub use config::{Address, Config, InvalidValue, check_topic_level};
pub use side::{Received, Sent, Side};

use super::tls;
use super::{Sink, SinkError};
use crate::bundle::Fallback;
use crate::named_file::{self, FileError};
use crate::report::{Message, ModelIdentity, Report};
use link::{Link, State, WINDOW};
use rumqttc::{LastWill, MqttOptions, QoS, Transport};
use serde::Serialize;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How long one [`Sink::publish_all`] waits for connection and PubAcks before it lets its caller look around.
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
    #[error(transparent)]
    File(#[from] FileError),
    /// No thread or runtime could be made: what the system is short of may be there the next time.
    #[error("cannot start the MQTT client: {0}")]
    Start(#[source] std::io::Error),
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
    /// That the file with the waiting reports was broken and set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbox_set_aside: Option<OutboxSetAside>,
}

/// What the online status says of a broken outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutboxSetAside {
    /// The name of the file, in the box's state folder.
    pub file: String,
    /// What was wrong with it.
    pub reason: String,
    /// How many of its reports wait again.
    pub requeued: u64,
    /// Whether all of it could be read; if not, reports may be lost.
    pub complete: bool,
}

/// A report that was handed to the client and not acknowledged yet.
struct Pending {
    sequence: u64,
    report_id: String,
    token: u64,
}

impl Pending {
    fn is(&self, message: &Message) -> bool {
        self.sequence == message.sequence && self.report_id == message.report_id
    }
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
    /// What is on its way, oldest first.
    pending: VecDeque<Pending>,
    /// On which connection; another one never acknowledges it.
    connection: u64,
}

/// A sink that can be started: its configuration is checked, and the files that it names are read.
pub struct Prepared {
    config: Config,
    device: String,
    options: MqttOptions,
}

impl Prepared {
    /// Starts to connect in the background. Returns at once: the broker may be away. Reads no file any more.
    pub fn start(self, online: &Online) -> Result<MqttSink, MqttError> {
        let Self { config, device, options } = self;
        MqttSink::connect(&config, &device, options, online)
    }
}

impl MqttSink {
    /// Checks the configuration and reads the files that it names. Connects to nothing.
    pub fn prepare(config: &Config, device: &str) -> Result<Prepared, MqttError> {
        let options = options(config, device)?;
        Ok(Prepared { config: config.clone(), device: device.to_owned(), options })
    }

    /// Checks the configuration and starts to connect in the background. Returns at once: the broker may be away.
    pub fn start(config: &Config, device: &str, online: &Online) -> Result<Self, MqttError> {
        Self::connect(config, device, options(config, device)?, online)
    }

    fn connect(config: &Config, device: &str, options: MqttOptions, online: &Online) -> Result<Self, MqttError> {
        if config.sends_password_in_clear() {
            log::warn!("{} has no TLS: the password goes over the network readable; use mqtts://", config.url);
        }
        let (report_topic, status_topic) = (topic(config, device, "report"), topic(config, device, "status"));
        let link = Link::start(options, status_topic.clone(), status(device, "online", online))?;
        let topics = ["telemetry", "result", "command/#"].map(|leaf| topic(config, device, leaf));
        let side = Side::new(link.clone(), topics);
        // Fixed header, topic and packet identifier take their share of a packet.
        let max_payload = config.max_packet_bytes - report_topic.len() - 16;
        let offline = status(device, "offline", &Offline { reason: "stopped" });
        let device = device.to_owned();
        let (patience, pending) = (PATIENCE, VecDeque::new());
        Ok(Self {
            link,
            side,
            device,
            report_topic,
            status_topic,
            offline,
            max_payload,
            patience,
            pending,
            connection: 0,
        })
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

    /// Why the oldest report is not acknowledged.
    fn why(&self) -> String {
        let state = self.link.lock();
        match &state.last_error {
            _ if !self.pending.is_empty() => "the broker has not acknowledged it yet".to_owned(),
            Some(error) => format!("no connection to the broker: {error}"),
            None => "not connected to the broker yet".to_owned(),
        }
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

/// Waits no longer for what is on its way.
fn abandon(pending: &mut VecDeque<Pending>, state: &mut State) {
    let tokens: Vec<u64> = pending.drain(..).map(|pending| pending.token).collect();
    state.abandon(&tokens);
}

impl Sink for MqttSink {
    fn publish(&mut self, report: &Report) -> Result<(), SinkError> {
        let message = Message::of(report);
        let message = message.map_err(|error| SinkError::Undeliverable(format!("it has no JSON: {error}")))?;
        self.publish_all(&[message]).1
    }

    fn fits(&self, message: &Message) -> bool {
        message.json.len() <= self.max_payload
    }

    fn publish_all(&mut self, messages: &[Message]) -> (usize, Result<(), SinkError>) {
        let deliverable = &messages[..messages.iter().take_while(|message| self.fits(message)).count()];
        // Only reports that are asked for are waited for: abandoned ones come again from the outbox.
        let same = self.pending.iter().zip(deliverable).take_while(|(pending, message)| pending.is(message)).count();
        if same < self.pending.len() {
            abandon(&mut self.pending, &mut self.link.lock());
        }
        let mut acknowledged = 0;
        let (pending, connection, topic) = (&mut self.pending, &mut self.connection, &self.report_topic);
        let all = self.link.wait(Instant::now() + self.patience, |state| {
            while pending.front().is_some_and(|first| state.acknowledged.remove(&first.token)) {
                pending.pop_front();
                acknowledged += 1;
            }
            if state.client.is_none() || state.connection != *connection {
                abandon(pending, state);
                *connection = state.connection;
            }
            while let Some(message) = deliverable.get(acknowledged + pending.len()).filter(|_| pending.len() < WINDOW) {
                let Some(token) = state.publish(topic, false, message.json.clone().into_bytes()) else { break };
                pending.push_back(Pending { sequence: message.sequence, report_id: message.report_id.clone(), token });
            }
            acknowledged == deliverable.len()
        });
        if !all {
            return (acknowledged, Err(SinkError::Waiting(self.why())));
        }
        let Some(message) = messages.get(deliverable.len()) else { return (acknowledged, Ok(())) };
        let problem = format!(
            "it has {} bytes, mqtt.max_packet_bytes leaves {}: raise it here and at the broker",
            message.json.len(),
            self.max_payload
        );
        (acknowledged, Err(SinkError::Undeliverable(problem)))
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
    options.set_inflight(link::CHANNEL as u16);
    let will = status(device, "offline", &Offline { reason: "connection lost" });
    options.set_last_will(LastWill::new(topic(config, device, "status"), will, QoS::AtLeastOnce, true));
    if let Some(username) = &config.username {
        let password = password(config)?;
        options.set_credentials(username, password.as_str());
    }
    if address.tls {
        options.set_transport(Transport::tls_with_config(tls::client_config(&config.tls_files())?.into()));
    }
    Ok(options)
}

fn password(config: &Config) -> Result<Zeroizing<String>, MqttError> {
    let Some(value) = &config.password_file else { return Ok(Zeroizing::new(String::new())) };
    let key = "mqtt.password_file";
    let path = named_file::locate(key, value)?;
    let secret = named_file::read_secret(key, &path)?;
    let failed = |problem: &str| MqttError::from(FileError::unusable(key, &path, problem));
    let text = std::str::from_utf8(secret.reveal()).map_err(|_| failed("its first line is not UTF-8 text"))?;
    match text.lines().next() {
        None | Some("") => Err(failed("its first line is empty; write the password there")),
        Some(line) if line.len() > usize::from(u16::MAX) => Err(failed("its first line is longer than MQTT allows")),
        Some(line) => Ok(Zeroizing::new(line.to_owned())),
    }
}

#[cfg(test)]
mod tests;
