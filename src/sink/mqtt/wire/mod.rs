//! The two versions of MQTT behind one pair of traits: [`Hand`] gives the client something to do, [`Ear`] hears what it did
//! and received. [`five`] and [`three`] turn the client library's types into these and back, and decide nothing; what an
//! acknowledgement means is the link's affair.

mod five;
mod three;

use super::config::{Config, Protocol};
use crate::sink::tls;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// All that a connection is made with. No part of it is read from a file any more.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) protocol: Protocol,
    pub(super) client_id: String,
    /// The box's name, which MQTT 5 carries beside the payload.
    pub(super) device: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) credentials: Option<(String, Zeroizing<String>)>,
    pub(super) keep_alive: Duration,
    pub(super) max_packet: usize,
    /// How many publishes may be unacknowledged.
    pub(super) in_flight: u16,
    /// Topic and payload of the retained last will; none for a connection that only tries.
    pub(super) will: Option<(String, String)>,
}

/// A version of MQTT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    Three,
    /// MQTT 5.
    Five,
}

impl Version {
    /// As people call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Three => "3.1.1",
            Self::Five => "5",
        }
    }
}

/// A publish at QoS 1.
pub(super) struct Parcel<'a> {
    pub(super) topic: &'a str,
    pub(super) retain: bool,
    pub(super) payload: Vec<u8>,
    pub(super) about: About<'a>,
}

/// What MQTT 5 says about a payload beside it; 3.1.1 cannot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct About<'a> {
    /// The payload's schema, as it stands in it.
    pub(super) schema: Option<&'a str>,
    /// The report's id.
    pub(super) report_id: Option<&'a str>,
    /// Seconds after which the broker may throw it away.
    pub(super) expires_s: Option<u32>,
}

/// What the broker says about itself when it lets us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) version: Version,
    /// The largest packet that it takes, where it says so.
    pub(super) max_packet: Option<usize>,
    /// Whether it keeps retained messages.
    pub(super) retains: bool,
}

/// Why a broker does not take a publish; MQTT 3.1.1 has no word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In words, with what to do.
    pub(super) why: &'static str,
    /// Whether it is the payload itself that it does not want, now and later.
    pub(super) lasting: bool,
}

/// Something that the client did or received.
pub(super) enum Happened {
    /// A publish was given this packet identifier, in the order in which they were handed over.
    Sent(u16),
    /// The broker has answered the publish of this identifier.
    Answered(u16, Result<(), Refusal>),
    /// A message on a topic that was subscribed to.
    Received(Message),
    /// The broker has answered a subscription: whether it lets us.
    Subscribed(bool),
    /// We have said goodbye.
    Disconnected,
    /// Nothing that matters here.
    Nothing,
}

/// A message as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: bytes::Bytes,
    pub(super) retained: bool,
}

/// Why there is no connection, or none any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) words: String,
    pub(super) kind: Kind,
}

/// What kind of trouble it is, where that changes what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It sent more than a packet may have.
    TooLarge,
    /// It may not speak this version: it refused it, or went away without an answer.
    NotSpoken,
    /// Any other.
    Other,
}

impl Trouble {
    fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { words: words.into(), kind }
    }
}

/// Gives the client something to do. False: its channel is full.
pub(super) trait Hand: Send {
    fn publish(&self, parcel: Parcel<'_>) -> bool;
    fn subscribe(&self, filter: &str) -> bool;
    fn unsubscribe(&self, filter: &str) -> bool;
    fn disconnect(&self) -> bool;
}

/// What happens next.
type Next<'a, T> = Pin<Box<dyn Future<Output = Result<T, Trouble>> + 'a>>;

/// Hears what the client did and received. Nothing happens while nobody listens.
pub(super) trait Ear {
    /// Connects; to be called first.
    fn connect(&mut self) -> Next<'_, Granted>;
    /// The next thing that happens.
    fn next(&mut self) -> Next<'_, Happened>;
}

/// A client of this version, whose channel has room for `channel` things to do. It connects when it is asked to.
pub(super) fn client(version: Version, plan: &Plan, channel: usize) -> (Box<dyn Hand>, Box<dyn Ear>) {
    match version {
        Version::Three => three::client(plan, channel),
        Version::Five => five::client(plan, channel),
    }
}

impl Plan {
    /// The plan of this configuration, without what stands in files.
    pub(super) fn of(config: &Config, device: &str, host: String, port: u16) -> Self {
        Self {
            protocol: config.protocol,
            client_id: format!("roentgen-{device}"),
            device: device.to_owned(),
            host,
            port,
            tls: None,
            credentials: None,
            keep_alive: config.keep_alive(),
            max_packet: config.max_packet_bytes,
            in_flight: u16::MAX,
            will: None,
        }
    }

    /// The transport of either version.
    fn transport(&self) -> rumqttc::Transport {
        match &self.tls {
            Some(tls) => rumqttc::Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(Arc::clone(tls))),
            None => rumqttc::Transport::tcp(),
        }
    }
}

/// An error of the network, with what to do where TLS says why.
fn in_words(error: &io::Error) -> String {
    match tls::advice(error) {
        Some(advice) => format!("{advice} (TLS: {error})"),
        None => error.to_string(),
    }
}

/// An error of the network while the broker was asked to let us in: who knows a version only by name may just hang up.
fn unanswered(error: &io::Error) -> Trouble {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let hung_up = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof].contains(&error.kind());
    let kind = if hung_up && tls::advice(error).is_none() { Kind::NotSpoken } else { Kind::Other };
    Trouble::new(kind, in_words(error))
}

const HUNG_UP: &str = "the broker has closed the connection";
const NO_ANSWER: &str = "no answer in time";
const BAD_PASSWORD: &str = "the broker does not accept user and password (mqtt.username, mqtt.password_file)";
const NOT_LET_IN: &str =
    "the broker does not let this box in: check mqtt.username, mqtt.password_file and the broker's rules";
const BAD_CLIENT_ID: &str = "the broker does not accept the client identifier, roentgen- and the device's name";
const UNAVAILABLE: &str = "the broker says that it is not available now";
