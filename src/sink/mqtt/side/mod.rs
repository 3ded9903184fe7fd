//! What goes over the sink's connection beside reports: telemetry, commands and their answers, and what Home Assistant is
//! told. Reports come first: nothing here waits, nothing is queued while the broker is away, and at most one telemetry and
//! one of the rest are on their way.
//!
//! | topic | QoS | retained | what |
//! |---|---|---|---|
//! | `<prefix>/<device>/telemetry` | 1 | yes | how the box is |
//! | `<prefix>/<device>/result` | 1 | never | one [`super::command::Answer`] |
//! | `<prefix>/<device>/command/#` | 1 | ignored | what to do; subscribed to where any command is allowed |
//! | `homeassistant/device/…/config` | 1 | yes | where `[home_assistant]` asks for it |
//! | `homeassistant/status` | 1 | yes | likewise, subscribed to: Home Assistant's birth and will |

mod state;

pub use state::Received;
pub(super) use state::SideState;

use super::command::RESULT_SCHEMA;
use super::link::{Link, State};
use super::wire::{About, Parcel, Refusal, Version};
use super::{Online, TELEMETRY_SCHEMA, Topics, status};
use crate::bundle::Fallback;
use std::sync::{Arc, Mutex, PoisonError};

/// Seconds after which an answer to a command is worth nothing to who has missed it.
const ANSWER_EXPIRES_S: u32 = 3600;

/// A handle on the connection for what is no report; clones share it.
#[derive(Clone)]
pub struct Side {
    link: Link,
    topics: Arc<Topics>,
    said: Arc<Mutex<Said>>,
}

/// What the online status says, and where.
pub(super) struct Said {
    device: String,
    topic: String,
    online: Online,
}

impl Said {
    pub(super) fn new(device: &str, topic: &str, online: &Online) -> Self {
        Self { device: device.into(), topic: topic.into(), online: online.clone() }
    }
}

/// Something that was handed over: on which connection, under which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    connection: u64,
    token: u64,
}

/// How the connection stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether there is one.
    pub connected: bool,
    /// Which version of MQTT it speaks.
    pub version: Option<Version>,
    /// How many this process has had up to now.
    pub connections: u64,
    /// Why there is none.
    pub error: Option<String>,
}

impl Side {
    pub(super) fn new(link: Link, topics: Topics, said: Said) -> Self {
        Self { link, topics: Arc::new(topics), said: Arc::new(Mutex::new(said)) }
    }

    /// The topics of this box.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Has the online status say at every connection, and now, that another backend judges than the one that should, or
    /// that it is the right one. What it says already is not said again.
    pub fn announce_backend(&self, fallback: Option<Fallback>) {
        self.announce(|online| online.backend_fallback = fallback);
    }

    /// Changes what the online status says.
    pub(super) fn announce(&self, change: impl FnOnce(&mut Online)) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let before = said.online.clone();
        change(&mut said.online);
        if said.online != before {
            self.link.lock().announce(&said.topic, status(&said.device, "online", &said.online));
        }
    }

    /// Listens for commands from now on, at every connection, or does so no longer.
    pub fn listen(&self, listen: bool) {
        let mut state = self.link.lock();
        let wanted = listen.then(|| self.topics.commands());
        let before = std::mem::replace(&mut state.side.filter, wanted.clone());
        follow(&state, before.as_deref(), wanted.as_deref());
    }

    /// Listens for this payload on this topic, by which Home Assistant says that it has started, or does so no longer.
    pub fn await_birth(&self, birth: Option<(String, String)>) {
        let mut state = self.link.lock();
        let before = std::mem::replace(&mut state.side.birth, birth.clone());
        let topic = |birth: &Option<(String, String)>| birth.as_ref().map(|(topic, _)| topic.clone());
        follow(&state, topic(&before).as_deref(), topic(&birth).as_deref());
    }

    /// How often Home Assistant said that it has started.
    pub fn births(&self) -> u64 {
        self.link.lock().side.births
    }

    /// How the connection stands.
    pub fn connection(&self) -> Standing {
        let state = self.link.lock();
        Standing {
            connected: state.client.is_some(),
            version: state.granted.map(|granted| granted.version),
            connections: state.connection,
            error: state.last_error.clone(),
        }
    }

    /// Whether telemetry would go out now.
    pub fn may_tell(&self) -> bool {
        let state = self.link.lock();
        state.client.is_some() && state.side.telemetry.is_none()
    }

    /// Publishes telemetry, if a connection stands and the last one was answered; false where it does not go out. A broker
    /// that speaks MQTT 5 forgets it after `expires_s`: by then it is no word of a living box.
    pub fn telemetry(&self, json: &str, expires_s: Option<u32>) -> bool {
        let mut state = self.link.lock();
        if state.side.telemetry.is_some() {
            return false;
        }
        let about = About { schema: Some(TELEMETRY_SCHEMA), expires_s, ..About::default() };
        let token = publish(&mut state, &self.topics.telemetry, true, json, about);
        state.side.telemetry = token;
        token.is_some()
    }

    /// Hands an answer to a command over and says whether the broker has answered for it. To be called again with the same
    /// `sent` until it has; an answer whose connection was lost is handed over anew.
    pub fn answer(&self, json: &str, sent: &mut Option<Sent>) -> bool {
        let about = About { schema: Some(RESULT_SCHEMA), expires_s: Some(ANSWER_EXPIRES_S), ..About::default() };
        let refused = match self.deliver(&self.topics.result, false, json, about, sent) {
            Some(answer) => answer.err(),
            None => return false,
        };
        if let Some(refusal) = refused {
            log::warn!("the broker refuses an answer to a command: {}", refusal.why);
        }
        true
    }

    /// Hands something over that the broker is to keep on a topic, or to forget where it is empty; otherwise as
    /// [`Side::answer`]. `Err`: the broker does not take it, and why.
    pub fn retain(&self, topic: &str, json: &str, sent: &mut Option<Sent>) -> Option<Result<(), &'static str>> {
        let answer = self.deliver(topic, true, json, About::default(), sent)?;
        Some(answer.map_err(|refusal| refusal.why))
    }

    fn deliver(
        &self,
        topic: &str,
        retain: bool,
        json: &str,
        about: About<'_>,
        sent: &mut Option<Sent>,
    ) -> Option<Result<(), Refusal>> {
        let mut state = self.link.lock();
        if let Some(one) = sent {
            let here = state.connection == one.connection;
            if let Some((token, answer)) = state.side.answered
                && here
                && token == one.token
            {
                *sent = None;
                return Some(answer);
            }
            if state.client.is_some() && here {
                return None;
            }
            *sent = None;
        }
        // One at a time, whoever asks.
        if state.side.other.is_none()
            && let Some(token) = publish(&mut state, topic, retain, json, about)
        {
            state.side.other = Some(token);
            *sent = Some(Sent { connection: state.connection, token });
        }
        None
    }

    /// Takes the commands that came, and how many were dropped because too many came.
    pub fn commands(&self) -> (Vec<Received>, u64) {
        let side = &mut self.link.lock().side;
        (side.inbox.drain(..).collect(), std::mem::take(&mut side.dropped))
    }
}

/// Changes a subscription on the standing connection.
fn follow(state: &State, before: Option<&str>, wanted: Option<&str>) {
    let (Some(client), true) = (&state.client, before != wanted) else { return };
    // A channel that is full at this moment costs no more than the time until the next connection.
    if let Some(before) = before {
        client.unsubscribe(before);
    }
    if let Some(wanted) = wanted {
        client.subscribe(wanted);
    }
}

fn publish(state: &mut State, topic: &str, retain: bool, json: &str, about: About<'_>) -> Option<u64> {
    let token = state.side.token();
    let payload = json.as_bytes().to_vec();
    state.hand_over(Parcel { topic, retain, payload, about }, token).then_some(token)
}
