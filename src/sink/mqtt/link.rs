//! The thread that holds the connection to the broker, and what it shares with the sink. It matches PubAcks to publishes;
//! it does not know what a report is, nor which version of MQTT is spoken, but for choosing one ([`super::wire`]).
//!
//! A publish that is handed to the client gets a token. Tokens wait in the order of the client's channel; the client
//! announces each publish with its packet identifier in the same order, and a PubAck names the packet identifier. So
//! token → packet identifier → acknowledgement or refusal, on one connection. All of it is forgotten when the connection
//! ends.

use super::MqttError;
use super::config::Protocol;
use super::side::SideState;
use super::wire::{self, About, Ear, Granted, Hand, Happened, Kind, Parcel, Plan, Refusal, Trouble, Version};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The token of a publish whose acknowledgement nobody waits for.
pub(super) const NOBODY: u64 = 0;

/// The token of the status that a connection begins with. Nobody waits for it, but that it is refused is said.
const STATUS: u64 = u64::MAX;

/// How many reports are on their way to the broker at a time.
pub(super) const WINDOW: usize = 64;

/// How many publishes may wait in the client's channel, or be unacknowledged: the reports, and room beside them for the
/// status and whatever else is said.
pub(super) const CHANNEL: usize = WINDOW + 16;

/// The first pause after a lost or refused connection; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A connection that held this long makes the next pause short again. (Not a mere CONNACK: two boxes of one name would
/// otherwise throw each other out twice a second.)
const STABLE: Duration = Duration::from_secs(10);

/// How long a broker that does not seem to speak MQTT 5 is spoken to in 3.1.1 before 5 is tried again: the next connection
/// after that, so that one that was only being restarted is not taken for an old one for ever.
const OLD: Duration = Duration::from_secs(3600);

/// What MQTT 5 may carry beside a payload and its topic, in bytes.
pub(super) const BESIDE: usize = 512;

/// How many connections this process has had, over all links: a reload makes a new link, whose first connection must not be
/// mistaken for the old one's.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// What thread and sink share.
#[derive(Default)]
pub(super) struct State {
    /// The client of the standing connection.
    pub(super) client: Option<Box<dyn Hand>>,
    /// What its broker said when it let us in.
    pub(super) granted: Option<Granted>,
    /// The number of the last connection; no other link has had it.
    pub(super) connection: u64,
    /// Tokens of publishes that the broker acknowledged and nobody has asked about yet.
    pub(super) acknowledged: HashSet<u64>,
    /// Those that it refused.
    pub(super) refused: HashMap<u64, Refusal>,
    /// The sink said goodbye.
    pub(super) stopping: bool,
    /// The thread is through.
    pub(super) ended: bool,
    /// Why there is no connection.
    pub(super) last_error: Option<String>,
    /// What is no report.
    pub(super) side: SideState,
    /// The status that is published, retained, at the start of every connection.
    online: String,
    last_token: u64,
    queued: VecDeque<u64>,
    in_flight: HashMap<u16, u64>,
}

impl State {
    /// Hands a publish to the client; `None` without a connection or with a full channel. Returns its token.
    pub(super) fn publish(&mut self, parcel: Parcel<'_>) -> Option<u64> {
        self.last_token += 1;
        let token = self.last_token;
        self.hand_over(parcel, token).then_some(token)
    }

    /// Nobody waits for these publishes any more: their acknowledgements are not kept.
    pub(super) fn abandon(&mut self, tokens: &[u64]) {
        self.acknowledged.retain(|token| !tokens.contains(token));
        self.refused.retain(|token, _| !tokens.contains(token));
        let waiting = self.queued.iter_mut().chain(self.in_flight.values_mut());
        waiting.filter(|token| tokens.contains(token)).for_each(|token| *token = NOBODY);
    }

    /// Has this said on the status topic from now on.
    pub(super) fn announce(&mut self, status_topic: &str, online: String) {
        self.online = online;
        self.say_online(status_topic);
    }

    fn say_online(&mut self, status_topic: &str) {
        let payload = self.online.clone().into_bytes();
        let about = About { schema: Some(super::STATUS_SCHEMA), ..About::default() };
        self.hand_over(Parcel { topic: status_topic, retain: true, payload, about }, STATUS);
    }

    /// The largest packet that the broker takes, where it says so.
    pub(super) fn max_packet(&self) -> Option<usize> {
        self.granted.and_then(|granted| granted.max_packet)
    }

    pub(super) fn hand_over(&mut self, mut parcel: Parcel<'_>, token: u64) -> bool {
        let Some(client) = &self.client else { return false };
        let Some(granted) = self.granted else { return false };
        // It would end the connection, and the next.
        if granted.max_packet.is_some_and(|most| parcel.payload.len() + parcel.topic.len() + BESIDE > most) {
            self.side.complain_of_size(parcel.topic);
            return false;
        }
        parcel.retain &= granted.retains;
        // Inside the lock, so that tokens queue in the order of the client's channel.
        let handed = client.publish(parcel);
        if handed {
            self.queued.push_back(token);
        }
        handed
    }

    /// Notes what the client says it did or received; true when someone may be waiting for that.
    fn note(&mut self, happened: Happened) -> bool {
        match happened {
            Happened::Sent(packet_id) => {
                let token = self.queued.pop_front().unwrap_or(NOBODY);
                self.in_flight.insert(packet_id, token);
                false
            }
            Happened::Answered(packet_id, answer) => {
                let Some(token) = self.in_flight.remove(&packet_id) else { return false };
                match answer {
                    Err(refusal) if token == STATUS => {
                        log::warn!("the broker refuses the status of this box: {}", refusal.why);
                        false
                    }
                    _ if token == NOBODY || self.side.answered(token, answer) => false,
                    Ok(()) => self.acknowledged.insert(token),
                    Err(refusal) => self.refused.insert(token, refusal).is_none(),
                }
            }
            Happened::Received(message) => {
                self.side.receive(message);
                false
            }
            Happened::Subscribed(allowed) => {
                self.side.subscribed(allowed);
                false
            }
            Happened::Disconnected | Happened::Nothing => false,
        }
    }

    fn forget_connection(&mut self) {
        self.client = None;
        self.granted = None;
        self.queued.clear();
        self.in_flight.clear();
        self.refused.clear();
        self.side.forget_connection();
    }
}

/// The sink's end of the connection thread; clones are the same end.
#[derive(Clone)]
pub(super) struct Link {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Link {
    /// Starts the thread; `online` is published, retained, at the start of every connection.
    pub(super) fn start(plan: Plan, status_topic: String, online: String) -> Result<Self, MqttError> {
        let runtime = runtime().map_err(MqttError::Start)?;
        let link = Self { shared: Arc::default() };
        {
            let mut state = link.lock();
            state.online = online;
            // How many there have been is told, and does not go back.
            state.connection = CONNECTIONS.load(Ordering::Relaxed);
        }
        let thread = Link { shared: Arc::clone(&link.shared) };
        std::thread::Builder::new()
            .name("mqtt".into())
            .spawn(move || thread.run(&runtime, &plan, &status_topic))
            .map_err(MqttError::Start)?;
        Ok(link)
    }

    /// The shared state. A poisoned lock is used on: every change to it is complete before anything can panic.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits.
    pub(super) fn changed(&self) {
        self.shared.1.notify_all();
    }

    /// Asks `done` now and after every change until it says yes (true) or the deadline passes (false).
    pub(super) fn wait(&self, deadline: Instant, mut done: impl FnMut(&mut State) -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if done(&mut state) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn run(&self, runtime: &Runtime, plan: &Plan, status_topic: &str) {
        let (host, port) = (&plan.host, plan.port);
        let mut pause = FIRST_PAUSE;
        // Until when the broker is taken for one that speaks 3.1.1 alone.
        let mut is_old = None::<Instant>;
        while !self.lock().stopping {
            let started = Instant::now();
            let before = self.lock().connection;
            let mut ended = Ok(());
            for version in versions(plan.protocol, is_old.is_some_and(|until| started < until)) {
                // The client library panics where it thinks that no broker would go. That is a trouble like others.
                let held = catch_unwind(AssertUnwindSafe(|| runtime.block_on(self.hold(version, plan, status_topic))));
                ended = held.unwrap_or_else(|_| {
                    Err(Trouble { words: "the broker said what nobody expected".into(), kind: Kind::Other })
                });
                match &ended {
                    Err(trouble) if trouble.kind == Kind::NotSpoken && version == Version::Five => {
                        is_old = Some(Instant::now() + OLD);
                    }
                    _ => break,
                }
            }
            let mut state = self.lock();
            state.forget_connection();
            if state.connection == before {
                // Neither was answered: it is away, not old.
                is_old = None;
            }
            if state.stopping {
                break;
            }
            if let Err(Trouble { words, kind }) = ended {
                if kind == Kind::TooLarge {
                    state.side.give_up_commands();
                }
                // The same trouble again is no news: a box without its broker must not fill its journal.
                let level =
                    if state.last_error.as_ref() == Some(&words) { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "broker {host}:{port}: {words}; trying again");
                state.last_error = Some(words);
            }
            let connected = started.elapsed() >= STABLE;
            drop(state);
            self.changed();
            if connected {
                pause = FIRST_PAUSE;
            }
            self.wait(Instant::now() + jittered(pause), |state| state.stopping);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.lock().ended = true;
        self.changed();
    }

    /// One connection from its CONNECT to its end. That the broker does not speak this version can only be the trouble
    /// before it has let us in.
    async fn hold(&self, version: Version, plan: &Plan, status_topic: &str) -> Result<(), Trouble> {
        let (client, mut events) = wire::client(version, plan, CHANNEL);
        let granted = events.connect().await?;
        {
            let mut state = self.lock();
            if state.stopping {
                return Ok(());
            }
            state.connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
            state.client = Some(client);
            state.granted = Some(granted);
            state.last_error = None;
            state.say_online(status_topic);
            if let Some(client) = &state.client {
                for filter in state.side.filters() {
                    // Fails only with a full channel, and this one is new.
                    client.subscribe(filter);
                }
            }
        }
        log::info!("connected to the broker {}:{}, MQTT {}", plan.host, plan.port, version.as_str());
        self.changed();
        let ended = self.follow(events.as_mut()).await;
        ended.map_err(|trouble| match trouble.kind {
            Kind::NotSpoken => Trouble { kind: Kind::Other, ..trouble },
            _ => trouble,
        })
    }

    async fn follow(&self, events: &mut dyn Ear) -> Result<(), Trouble> {
        loop {
            let happened = events.next().await?;
            if matches!(happened, Happened::Disconnected) {
                return Ok(());
            }
            if self.lock().note(happened) {
                self.changed();
            }
        }
    }
}

/// Which versions to try, in this order. `is_old`: the broker did not seem to speak 5 a while ago.
fn versions(protocol: Protocol, is_old: bool) -> impl Iterator<Item = Version> {
    let (five, three) = match protocol {
        Protocol::Five => (true, false),
        Protocol::Three => (false, true),
        Protocol::Auto => (!is_old, true),
    };
    [(Version::Five, five), (Version::Three, three)]
        .into_iter()
        .filter_map(|(version, wanted)| wanted.then_some(version))
}

/// Connects once, waits for the CONNACK and disconnects; says which version was spoken.
pub(super) fn probe(plan: &Plan) -> Result<Version, String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut trouble = String::new();
        for version in versions(plan.protocol, false) {
            let (client, mut events) = wire::client(version, plan, CHANNEL);
            match events.connect().await {
                Ok(_) => {
                    // The answer is in; a goodbye that fails changes nothing about it.
                    client.disconnect();
                    let _ = events.next().await;
                    return Ok(version);
                }
                Err(Trouble { words, kind }) => {
                    trouble = words;
                    if kind != Kind::NotSpoken {
                        break;
                    }
                }
            }
        }
        Err(trouble)
    })
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Between half of the pause and all of it, so that the boxes of a clinic do not come back in step after a power cut.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_tried_unless_one_is_named_or_the_broker_is_known() {
        let tried = |protocol, is_old| versions(protocol, is_old).map(Version::as_str).collect::<Vec<_>>();
        assert_eq!(tried(Protocol::Auto, false), ["5", "3.1.1"]);
        assert_eq!(tried(Protocol::Auto, true), ["3.1.1"]);
        assert_eq!(tried(Protocol::Five, true), ["5"]);
        assert_eq!(tried(Protocol::Three, false), ["3.1.1"]);
    }
}
