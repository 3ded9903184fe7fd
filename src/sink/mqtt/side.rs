//! What goes over the sink's connection beside reports: telemetry, commands and their answers. Reports come first: nothing
//! here waits, nothing is queued while the broker is away, and at most one telemetry and one answer are on their way.
//!
//! | topic | QoS | retained | what |
//! |---|---|---|---|
//! | `<prefix>/<device>/telemetry` | 1 | yes | how the box is |
//! | `<prefix>/<device>/result` | 1 | never | one [`super::command::Answer`] |
//! | `<prefix>/<device>/command/#` | 1 | ignored | what to do; subscribed to where any command is allowed |

use super::command::MAX_PAYLOAD;
use super::link::{Link, State};
use super::{Online, status};
use crate::bundle::Fallback;
use rumqttc::{Publish, QoS, SubscribeReasonCode};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Most commands that wait to be taken; what comes on top is dropped.
const INBOX: usize = 16;

/// Tokens of publishes that are not reports have this bit.
const SIDE: u64 = 1 << 63;

/// How the side of the link stands; part of what thread and sink share.
#[derive(Default)]
pub(super) struct SideState {
    /// What to subscribe to at the start of every connection; none: nothing.
    pub(super) filter: Option<String>,
    /// Commands that came and nobody has taken.
    inbox: VecDeque<Received>,
    /// How many found the inbox full.
    dropped: u64,
    last_token: u64,
    telemetry: Option<u64>,
    answer: Option<u64>,
    answered: Option<u64>,
    /// That the subscription was refused was said.
    refused: bool,
}

/// A command as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What follows `…/command/` in its topic.
    pub name: String,
    /// Its payload; cut off after one byte more than a command may have.
    pub payload: Vec<u8>,
    /// The broker had kept it: it would come again at every connection, and is not to be carried out.
    pub retained: bool,
}

impl SideState {
    /// A PubAck for this token came. False: it is none of the side's.
    pub(super) fn acknowledge(&mut self, token: u64) -> bool {
        if token & SIDE == 0 {
            return false;
        }
        if self.telemetry == Some(token) {
            self.telemetry = None;
        } else if self.answer == Some(token) {
            self.answer = None;
            self.answered = Some(token);
        }
        true
    }

    /// A message came on a topic that was subscribed to.
    pub(super) fn receive(&mut self, publish: &Publish) {
        let Some(prefix) = self.filter.as_deref().and_then(|filter| filter.strip_suffix('#')) else { return };
        let Some(name) = publish.topic.strip_prefix(prefix) else { return };
        if self.inbox.len() >= INBOX {
            self.dropped += 1;
            return;
        }
        let kept = publish.payload.len().min(MAX_PAYLOAD + 1);
        let payload = publish.payload[..kept].to_vec();
        self.inbox.push_back(Received { name: name.to_owned(), payload, retained: publish.retain });
    }

    /// The broker's answer to the subscription came.
    pub(super) fn subscribed(&mut self, codes: &[SubscribeReasonCode]) {
        let refused = codes.contains(&SubscribeReasonCode::Failure);
        if refused && !self.refused {
            let filter = self.filter.as_deref().unwrap_or_default();
            log::warn!(
                "the broker does not let this box subscribe to {filter}, so that no command reaches it; allow it there, or \
                 write [commands] allow = []"
            );
        }
        self.refused = refused;
    }

    /// A message larger than `mqtt.max_packet_bytes` ended the connection. Kept by the broker it would end every one.
    pub(super) fn give_up_commands(&mut self) {
        if let Some(filter) = self.filter.take() {
            log::error!(
                "a message on {filter} is larger than mqtt.max_packet_bytes and ended the connection: no commands are \
                 taken until the next start; see who may publish there"
            );
        }
    }

    /// The connection ended: what was on its way is given up.
    pub(super) fn forget_connection(&mut self) {
        self.telemetry = None;
        self.answer = None;
        self.answered = None;
    }

    fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token | SIDE
    }
}

/// A handle on the connection for what is no report; clones share it.
#[derive(Clone)]
pub struct Side {
    link: Link,
    telemetry: String,
    result: String,
    commands: String,
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

/// An answer that was handed over: on which connection, under which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    connection: u64,
    token: u64,
}

impl Side {
    pub(super) fn new(link: Link, [telemetry, result, commands]: [String; 3], said: Said) -> Self {
        Self { link, telemetry, result, commands, said: Arc::new(Mutex::new(said)) }
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
        if state.side.filter.is_some() == listen {
            return;
        }
        state.side.filter = listen.then(|| self.commands.clone());
        if let Some(client) = &state.client {
            // A channel that is full at this moment costs no more than the time until the next connection.
            let _ = match listen {
                true => client.try_subscribe(&self.commands, QoS::AtLeastOnce),
                false => client.try_unsubscribe(&self.commands),
            };
        }
    }

    /// Whether a connection stands, how many this process has had up to now, and why there is none.
    pub fn connection(&self) -> (bool, u64, Option<String>) {
        let state = self.link.lock();
        (state.client.is_some(), state.connection, state.last_error.clone())
    }

    /// Whether telemetry would go out now.
    pub fn may_tell(&self) -> bool {
        let state = self.link.lock();
        state.client.is_some() && state.side.telemetry.is_none()
    }

    /// Publishes telemetry, if a connection stands and the last one was acknowledged; false where it does not go out.
    pub fn telemetry(&self, json: &str) -> bool {
        let mut state = self.link.lock();
        if state.side.telemetry.is_some() {
            return false;
        }
        let token = publish(&mut state, &self.telemetry, true, json);
        state.side.telemetry = token;
        token.is_some()
    }

    /// Hands an answer over and says whether the broker has it. To be called again with the same `sent` until it has; an
    /// answer whose connection was lost is handed over anew.
    pub fn answer(&self, json: &str, sent: &mut Option<Sent>) -> bool {
        let mut state = self.link.lock();
        if let Some(one) = sent {
            if state.connection == one.connection && state.side.answered == Some(one.token) {
                *sent = None;
                return true;
            }
            if state.client.is_some() && state.connection == one.connection {
                return false;
            }
            *sent = None;
        }
        if let Some(token) = publish(&mut state, &self.result, false, json) {
            state.side.answer = Some(token);
            *sent = Some(Sent { connection: state.connection, token });
        }
        false
    }

    /// Takes the commands that came, and how many were dropped because too many came.
    pub fn commands(&self) -> (Vec<Received>, u64) {
        let side = &mut self.link.lock().side;
        (side.inbox.drain(..).collect(), std::mem::take(&mut side.dropped))
    }
}

fn publish(state: &mut State, topic: &str, retain: bool, json: &str) -> Option<u64> {
    let token = state.side.token();
    state.hand_over(topic, retain, json.as_bytes().to_vec(), token).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(topic: &str, bytes: usize) -> Publish {
        Publish::new(topic, QoS::AtLeastOnce, vec![b'x'; bytes])
    }

    #[test]
    fn the_inbox_is_bounded_in_number_and_in_bytes() {
        let mut side = SideState { filter: Some("a/b/command/#".into()), ..SideState::default() };
        side.receive(&publish("a/b/command/bundle/install", 1 << 20));
        side.receive(&publish("a/b/report", 1));
        side.receive(&publish("a/b/command", 1));
        assert_eq!(side.inbox.len(), 1);
        assert_eq!((side.inbox[0].name.as_str(), side.inbox[0].payload.len()), ("bundle/install", MAX_PAYLOAD + 1));
        for _ in 0..100 {
            side.receive(&publish("a/b/command/telemetry", 1));
        }
        assert_eq!((side.inbox.len(), side.dropped), (INBOX, 85));
    }

    #[test]
    fn without_a_filter_nothing_is_taken() {
        let mut side = SideState::default();
        side.receive(&publish("a/b/command/telemetry", 1));
        assert!(side.inbox.is_empty());
    }

    #[test]
    fn acknowledgements_of_reports_are_not_the_sides() {
        let mut side = SideState::default();
        let token = side.token();
        side.telemetry = Some(token);
        assert!(!side.acknowledge(1));
        assert_eq!(side.telemetry, Some(token));
        assert!(side.acknowledge(token));
        assert_eq!(side.telemetry, None);
    }
}
