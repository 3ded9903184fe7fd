//! What is known of the side of the link on its connection: what to listen for, what came, what is on its way. Part of what
//! the connection's thread and the sink share; it sends nothing itself.

use super::super::command::MAX_PAYLOAD;
use super::super::wire::{Message, Refusal};
use std::collections::VecDeque;

/// Most commands that wait to be taken; what comes on top is dropped.
const INBOX: usize = 16;

/// Tokens of publishes that are not reports have this bit.
const SIDE: u64 = 1 << 63;

/// How the side of the link stands; part of what thread and sink share.
#[derive(Default)]
pub(in super::super) struct SideState {
    /// What to subscribe to for commands at the start of every connection; none: nothing.
    pub(in super::super) filter: Option<String>,
    /// The topic on which Home Assistant says that it has started, and how; none: nobody asks.
    pub(super) birth: Option<(String, String)>,
    /// How often it said so.
    pub(super) births: u64,
    /// Commands that came and nobody has taken.
    pub(super) inbox: VecDeque<Received>,
    /// How many found the inbox full.
    pub(super) dropped: u64,
    last_token: u64,
    pub(super) telemetry: Option<u64>,
    /// What else is on its way.
    pub(super) other: Option<u64>,
    /// What else the broker has answered last.
    pub(super) answered: Option<(u64, Result<(), Refusal>)>,
    /// That the subscription was refused was said.
    refused: bool,
    /// That the broker takes no telemetry was said.
    telemetry_refused: bool,
    /// That something is too large for the broker was said.
    too_large: bool,
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
    /// What to subscribe to.
    pub(in super::super) fn filters(&self) -> impl Iterator<Item = &str> {
        let birth = self.birth.as_ref().map(|(topic, _)| topic.as_str());
        self.filter.as_deref().into_iter().chain(birth)
    }

    /// The broker has answered the publish of this token. False: it is none of the side's.
    pub(in super::super) fn answered(&mut self, token: u64, answer: Result<(), Refusal>) -> bool {
        if token & SIDE == 0 {
            return false;
        }
        if self.telemetry == Some(token) {
            self.telemetry = None;
            let refused = std::mem::replace(&mut self.telemetry_refused, answer.is_err());
            if let (Err(refusal), false) = (answer, refused) {
                log::warn!("the broker refuses the telemetry of this box: {}", refusal.why);
            }
        } else if self.other == Some(token) {
            self.other = None;
            self.answered = Some((token, answer));
        }
        true
    }

    /// A message came on a topic that was subscribed to.
    pub(in super::super) fn receive(&mut self, message: Message) {
        if let Some((topic, payload)) = &self.birth
            && *topic == message.topic
        {
            self.births += u64::from(payload.as_bytes() == &message.payload[..]);
            return;
        }
        let Some(prefix) = self.filter.as_deref().and_then(|filter| filter.strip_suffix('#')) else { return };
        let Some(name) = message.topic.strip_prefix(prefix) else { return };
        if self.inbox.len() >= INBOX {
            self.dropped += 1;
            return;
        }
        let kept = message.payload.len().min(MAX_PAYLOAD + 1);
        let payload = message.payload[..kept].to_vec();
        self.inbox.push_back(Received { name: name.to_owned(), payload, retained: message.retained });
    }

    /// The broker's answer to a subscription came.
    pub(in super::super) fn subscribed(&mut self, allowed: bool) {
        if !allowed && !self.refused {
            let filters: Vec<&str> = self.filters().collect();
            log::warn!(
                "the broker does not let this box subscribe to {}, so that nothing from there reaches it; allow it there, or \
                 write [commands] allow = [] and leave [home_assistant] out",
                filters.join(" or to ")
            );
        }
        self.refused |= !allowed;
    }

    /// A message larger than `mqtt.max_packet_bytes` ended the connection. Kept by the broker it would end every one.
    pub(in super::super) fn give_up_commands(&mut self) {
        let filters: Vec<String> = self.filters().map(str::to_owned).collect();
        (self.filter, self.birth) = (None, None);
        if !filters.is_empty() {
            log::error!(
                "a message on {} is larger than mqtt.max_packet_bytes and ended the connection: no commands are taken until \
                 the next start; see who may publish there",
                filters.join(" or on ")
            );
        }
    }

    /// Something is larger than what the broker takes.
    pub(in super::super) fn complain_of_size(&mut self, topic: &str) {
        if !std::mem::replace(&mut self.too_large, true) {
            log::warn!(
                "what goes to {topic} is larger than the broker takes, and is not sent: raise its limit of packets"
            );
        }
    }

    /// The connection ended: what was on its way is given up.
    pub(in super::super) fn forget_connection(&mut self) {
        self.telemetry = None;
        self.other = None;
        self.answered = None;
    }

    pub(super) fn token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token | SIDE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, bytes: usize) -> Message {
        Message { topic: topic.into(), payload: vec![b'x'; bytes].into(), retained: false }
    }

    #[test]
    fn the_inbox_is_bounded_in_number_and_in_bytes() {
        let mut side = SideState { filter: Some("a/b/command/#".into()), ..SideState::default() };
        side.receive(message("a/b/command/bundle/install", 1 << 20));
        side.receive(message("a/b/report", 1));
        side.receive(message("a/b/command", 1));
        assert_eq!(side.inbox.len(), 1);
        assert_eq!((side.inbox[0].name.as_str(), side.inbox[0].payload.len()), ("bundle/install", MAX_PAYLOAD + 1));
        for _ in 0..100 {
            side.receive(message("a/b/command/telemetry", 1));
        }
        assert_eq!((side.inbox.len(), side.dropped), (INBOX, 85));
    }

    #[test]
    fn without_a_filter_nothing_is_taken() {
        let mut side = SideState::default();
        side.receive(message("a/b/command/telemetry", 1));
        assert!(side.inbox.is_empty());
    }

    #[test]
    fn acknowledgements_of_reports_are_not_the_sides() {
        let mut side = SideState::default();
        let token = side.token();
        side.telemetry = Some(token);
        assert!(!side.answered(1, Ok(())));
        assert_eq!(side.telemetry, Some(token));
        assert!(side.answered(token, Ok(())));
        assert_eq!(side.telemetry, None);
    }

    #[test]
    fn a_birth_is_counted_and_is_no_command() {
        let birth = Some(("homeassistant/status".to_owned(), "xxx".to_owned()));
        let mut side = SideState { filter: Some("a/b/command/#".into()), birth, ..SideState::default() };
        assert_eq!(side.filters().collect::<Vec<_>>(), ["a/b/command/#", "homeassistant/status"]);
        side.receive(message("homeassistant/status", 3));
        side.receive(message("homeassistant/status", 4));
        assert_eq!((side.births, side.inbox.len()), (1, 0));
    }
}
