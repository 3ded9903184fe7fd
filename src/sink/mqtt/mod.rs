//! The MQTT sink: publishes reports at QoS 1 and returns on the broker's PubAck, keeps a retained status with a last
//! will, reconnects for ever. Not a queue: what is not acknowledged stays in the outbox.
//!
//! | topic (by default: [`Templates`]) | QoS | retained | what |
//! |---|---|---|---|
//! | `<prefix>/<device>/report` | 1 | never | one [`Report`] |
//! | `<prefix>/<device>/status` | 1 | yes | `{"schema":"roentgen.status/1","status":"online"…}` with what [`Online`] says; `offline` by last will, and by ourselves on a graceful stop, since a broker sends no will then |
//!
//! Telemetry, commands and their answers go over the same connection: see [`Side`].
//!
//! MQTT 5 is spoken where the broker does, else 3.1.1 ([`Protocol`]). Either way a report counts as published when the
//! broker has acknowledged it. Only MQTT 5 has a word for "I do not take this": such a report stays in the outbox and is
//! tried again, alone and ever more seldom, until it is taken, so that a broker whose rules are wrong costs no report.
//! Under 3.1.1 brokers acknowledge and throw away.
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
//! A report above `mqtt.max_packet_bytes`, or above what a broker says by MQTT 5 that it takes, is undeliverable, since no
//! attempt would ever do. What a broker does under 3.1.1 with one above a limit of its own is its affair: mosquitto
//! acknowledges and drops it.

pub mod command;
mod config;
mod link;
mod prepare;
mod side;
mod topics;
mod wire;

pub use config::{Address, Config, InvalidValue, Protocol, check_topic_level};
pub use side::{Received, Sent, Side, Standing};
pub use topics::{Templates, Topics};
pub use wire::Version;

use super::{Sink, SinkError};
use crate::bundle::Fallback;
use crate::named_file::FileError;
use crate::report::{Message, ModelIdentity, Report, SCHEMA};
use link::{BESIDE, Link, State, WINDOW};
use prepare::plan;
use serde::Serialize;
use side::Said;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use wire::{About, Parcel, Plan};

/// The schema name of the status.
pub const STATUS_SCHEMA: &str = "roentgen.status/1";

/// The schema name of telemetry, which goes over this connection.
pub const TELEMETRY_SCHEMA: &str = "roentgen.telemetry/1";

/// How long one [`Sink::publish_all`] waits for connection and PubAcks before it lets its caller look around.
const PATIENCE: Duration = Duration::from_secs(1);

/// The first and the longest pause before a report is tried again that the broker has refused; doubled each time.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

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
    /// That another backend judges than the one that should, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_fallback: Option<Fallback>,
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

/// The broker refuses the oldest report, for a reason that may pass.
struct Rest {
    why: &'static str,
    pause: Duration,
    until: Instant,
}

impl Rest {
    /// After one more refusal.
    fn after(before: Option<&Self>, why: &'static str) -> Self {
        let pause = before.map_or(FIRST_REST, |before| (before.pause * 2).min(LONGEST_REST));
        Self { why, pause, until: Instant::now() + pause }
    }
}

/// The MQTT sink. Dropping it says goodbye to the broker.
pub struct MqttSink {
    link: Link,
    side: Side,
    report_topic: String,
    status_topic: String,
    offline: String,
    max_payload: usize,
    report_expires_s: Option<u32>,
    patience: Duration,
    /// What is on its way, oldest first.
    pending: VecDeque<Pending>,
    /// On which connection; another one never acknowledges it.
    connection: u64,
    /// As long as the broker refuses reports one is tried at a time, now and then.
    rest: Option<Rest>,
}

/// A sink that can be started: its configuration is checked, and the files that it names are read.
pub struct Prepared {
    config: Config,
    device: String,
    topics: Topics,
    plan: Plan,
}

impl Prepared {
    /// Starts to connect in the background. Returns at once: the broker may be away. Reads no file any more.
    pub fn start(self, online: &Online) -> Result<MqttSink, MqttError> {
        MqttSink::connect(self, online)
    }
}

impl MqttSink {
    /// Checks the configuration and reads the files that it names. Connects to nothing.
    pub fn prepare(config: &Config, device: &str) -> Result<Prepared, MqttError> {
        let (topics, plan) = plan(config, device)?;
        Ok(Prepared { config: config.clone(), device: device.to_owned(), topics, plan })
    }

    /// Checks the configuration and starts to connect in the background. Returns at once: the broker may be away.
    pub fn start(config: &Config, device: &str, online: &Online) -> Result<Self, MqttError> {
        Self::connect(Self::prepare(config, device)?, online)
    }

    fn connect(prepared: Prepared, online: &Online) -> Result<Self, MqttError> {
        let Prepared { config, device, topics, plan } = prepared;
        if config.sends_password_in_clear() {
            log::warn!("{} has no TLS: the password goes over the network readable; use mqtts://", config.url);
        }
        let (report_topic, status_topic) = (topics.report.clone(), topics.status.clone());
        let link = Link::start(plan, status_topic.clone(), status(&device, "online", online))?;
        let side = Side::new(link.clone(), topics, Said::new(&device, &status_topic, online));
        Ok(Self {
            link,
            side,
            // Fixed header, topic, packet identifier and what MQTT 5 adds take their share of a packet.
            max_payload: config.max_packet_bytes - report_topic.len() - BESIDE,
            report_topic,
            status_topic,
            offline: status(&device, "offline", &Offline { reason: "stopped" }),
            report_expires_s: (config.report_expiry_s > 0).then_some(config.report_expiry_s),
            patience: PATIENCE,
            pending: VecDeque::new(),
            connection: 0,
            rest: None,
        })
    }

    /// Says something else on the online status: now, where a connection stands, and at the start of every later one.
    pub fn announce(&mut self, online: &Online) {
        self.side.announce(|said| *said = online.clone());
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
        if let Some(rest) = &self.rest {
            return format!("the broker refuses it on {}: {}", self.report_topic, rest.why);
        }
        let state = self.link.lock();
        match &state.last_error {
            _ if !self.pending.is_empty() => "the broker has not acknowledged it yet".to_owned(),
            Some(error) => format!("no connection to the broker: {error}"),
            None => "not connected to the broker yet".to_owned(),
        }
    }

    /// The largest report that fits a packet, here and at the broker, as far as it has said so.
    fn max_payload(&self) -> usize {
        let broker = self.link.lock().max_packet().map(|most| most.saturating_sub(self.report_topic.len() + BESIDE));
        broker.map_or(self.max_payload, |most| most.min(self.max_payload))
    }

    /// Publishes the offline status, waits for its acknowledgement for a moment, and disconnects. Idempotent.
    pub fn close(&mut self) {
        let deadline = Instant::now() + FAREWELL;
        let about = About { schema: Some(STATUS_SCHEMA), ..About::default() };
        let payload = self.offline.clone().into_bytes();
        let token = self.link.lock().publish(Parcel { topic: &self.status_topic, retain: true, payload, about });
        if let Some(token) = token {
            let answered = |state: &mut State| state.acknowledged.remove(&token) || state.refused.contains_key(&token);
            self.link.wait(deadline, |state| answered(state) || state.client.is_none());
        }
        let disconnecting = {
            let mut state = self.link.lock();
            state.stopping = true;
            state.client.take().is_some_and(|client| client.disconnect())
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
        message.json.len() <= self.max_payload()
    }

    fn publish_all(&mut self, messages: &[Message]) -> (usize, Result<(), SinkError>) {
        let most = self.max_payload();
        let deliverable = &messages[..messages.iter().take_while(|message| message.json.len() <= most).count()];
        // Only reports that are asked for are waited for: abandoned ones come again from the outbox.
        let same = self.pending.iter().zip(deliverable).take_while(|(pending, message)| pending.is(message)).count();
        if same < self.pending.len() {
            abandon(&mut self.pending, &mut self.link.lock());
        }
        let (mut acknowledged, mut refusal) = (0, None);
        let (expires_s, topic) = (self.report_expires_s, &self.report_topic);
        let (pending, connection, rest) = (&mut self.pending, &mut self.connection, &mut self.rest);
        // Not beyond the moment at which a refused one may be tried again.
        let patience = Instant::now() + self.patience;
        let deadline = match rest {
            Some(rest) if rest.until > Instant::now() => rest.until.min(patience),
            _ => patience,
        };
        let all = self.link.wait(deadline, |state| {
            while pending.front().is_some_and(|first| state.acknowledged.remove(&first.token)) {
                pending.pop_front();
                acknowledged += 1;
                *rest = None;
            }
            if state.client.is_none() || state.connection != *connection {
                abandon(pending, state);
                *connection = state.connection;
                // Another broker, or one whose rules were mended.
                rest.iter_mut().for_each(|rest| rest.until = Instant::now());
            }
            refusal = pending.front().and_then(|first| state.refused.remove(&first.token));
            if refusal.is_some() {
                // What came after it may have been taken; in their order all of them come again.
                abandon(pending, state);
                return true;
            }
            let window = match rest {
                Some(rest) if Instant::now() < rest.until => 0,
                Some(_) => 1,
                None => WINDOW,
            };
            while let Some(message) = deliverable.get(acknowledged + pending.len()).filter(|_| pending.len() < window) {
                let about = About { schema: Some(SCHEMA), report_id: Some(&message.report_id), expires_s };
                let payload = message.json.clone().into_bytes();
                let Some(token) = state.publish(Parcel { topic, retain: false, payload, about }) else { break };
                pending.push_back(Pending { sequence: message.sequence, report_id: message.report_id.clone(), token });
            }
            acknowledged == deliverable.len()
        });
        if let Some(refusal) = refusal {
            if refusal.lasting {
                return (acknowledged, Err(SinkError::Undeliverable(refusal.why.into())));
            }
            self.rest = Some(Rest::after(self.rest.as_ref(), refusal.why));
            return (acknowledged, Err(SinkError::Waiting(self.why())));
        }
        if !all {
            return (acknowledged, Err(SinkError::Waiting(self.why())));
        }
        let Some(message) = messages.get(deliverable.len()) else { return (acknowledged, Ok(())) };
        let whose = if most < self.max_payload { "the broker takes" } else { "mqtt.max_packet_bytes leaves" };
        let problem = format!("it has {} bytes, {whose} {most}: raise it here and at the broker", message.json.len());
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
pub fn probe(config: &Config, device: &str) -> Result<Version, MqttError> {
    let (_, mut plan) = plan(config, device)?;
    // Another client identifier and no will: the running daemon must neither be kicked out nor declared dead.
    plan.client_id = format!("roentgen-doctor-{}", std::process::id());
    plan.will = None;
    link::probe(&plan).map_err(|problem| {
        let problem = format!("{problem}; start the broker or correct the address");
        InvalidValue { key: "mqtt.url", value: config.url.clone(), problem }.into()
    })
}

/// What the offline status says beside that the box is offline.
#[derive(Serialize)]
struct Offline {
    reason: &'static str,
}

/// The status message, with what else there is to say.
fn status(device: &str, status: &str, more: &impl Serialize) -> String {
    let mut json = serde_json::json!({
        "schema": STATUS_SCHEMA,
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

#[cfg(test)]
mod tests;
