//! The thread that holds the connection to the broker, and what it shares with the sink. It matches PubAcks to publishes;
//! it does not know what a report is.
//!
//! A publish that is handed to the client gets a token. Tokens wait in the order of the client's channel; the client
//! announces each publish with its packet identifier in the same order, and a PubAck names the packet identifier. So
//! token → packet identifier → acknowledgement, on one connection. All of it is forgotten when the connection ends.

use super::side::SideState;
use super::{MqttError, tls};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, StateError,
    TlsError,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The token of a publish whose acknowledgement nobody waits for.
pub(super) const NOBODY: u64 = 0;

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

/// How many connections this process has had, over all links: a reload makes a new link, whose first connection must not be
/// mistaken for the old one's.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// What thread and sink share.
#[derive(Default)]
pub(super) struct State {
    /// The client of the standing connection.
    pub(super) client: Option<AsyncClient>,
    /// The number of the last connection; no other link has had it.
    pub(super) connection: u64,
    /// Tokens of publishes that the broker acknowledged and nobody has asked about yet.
    pub(super) acknowledged: HashSet<u64>,
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
    pub(super) fn publish(&mut self, topic: &str, retain: bool, payload: Vec<u8>) -> Option<u64> {
        self.last_token += 1;
        let token = self.last_token;
        self.hand_over(topic, retain, payload, token).then_some(token)
    }

    /// Nobody waits for these publishes any more: their acknowledgements are not kept.
    pub(super) fn abandon(&mut self, tokens: &[u64]) {
        self.acknowledged.retain(|token| !tokens.contains(token));
        let waiting = self.queued.iter_mut().chain(self.in_flight.values_mut());
        waiting.filter(|token| tokens.contains(token)).for_each(|token| *token = NOBODY);
    }

    /// Has this said on the status topic from now on.
    pub(super) fn announce(&mut self, status_topic: &str, online: String) {
        self.online = online;
        self.hand_over(status_topic, true, self.online.clone().into_bytes(), NOBODY);
    }

    pub(super) fn hand_over(&mut self, topic: &str, retain: bool, payload: Vec<u8>, token: u64) -> bool {
        let Some(client) = &self.client else { return false };
        // Inside the lock, so that tokens queue in the order of the client's channel.
        let handed = client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_ok();
        if handed {
            self.queued.push_back(token);
        }
        handed
    }

    /// Notes what the client says it did or received; true when someone may be waiting for that.
    fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::Outgoing(Outgoing::Publish(packet_id)) => {
                let token = self.queued.pop_front().unwrap_or(NOBODY);
                self.in_flight.insert(*packet_id, token);
                false
            }
            Event::Incoming(Packet::PubAck(ack)) => match self.in_flight.remove(&ack.pkid) {
                Some(token) if self.side.acknowledge(token) => false,
                Some(token) if token != NOBODY => self.acknowledged.insert(token),
                _ => false,
            },
            Event::Incoming(Packet::Publish(publish)) => {
                self.side.receive(publish);
                false
            }
            Event::Incoming(Packet::SubAck(ack)) => {
                self.side.subscribed(&ack.return_codes);
                false
            }
            _ => false,
        }
    }

    fn forget_connection(&mut self) {
        self.client = None;
        self.queued.clear();
        self.in_flight.clear();
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
    pub(super) fn start(options: MqttOptions, status_topic: String, online: String) -> Result<Self, MqttError> {
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
            .spawn(move || thread.run(&runtime, &options, &status_topic))
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

    fn run(&self, runtime: &Runtime, options: &MqttOptions, status_topic: &str) {
        let mut pause = FIRST_PAUSE;
        let (host, port) = options.broker_address();
        while !self.lock().stopping {
            let started = Instant::now();
            let ended = runtime.block_on(self.hold(options, status_topic));
            let mut state = self.lock();
            state.forget_connection();
            if state.stopping {
                break;
            }
            if let Err(error) = ended {
                if is_too_large(&error) {
                    state.side.give_up_commands();
                }
                let error = describe(&error);
                // The same trouble again is no news: a box without its broker must not fill its journal.
                let level =
                    if state.last_error.as_ref() == Some(&error) { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "broker {host}:{port}: {error}; trying again");
                state.last_error = Some(error);
            }
            drop(state);
            self.changed();
            if started.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            self.wait(Instant::now() + jittered(pause), |state| state.stopping);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.lock().ended = true;
        self.changed();
    }

    /// One connection from its CONNECT to its end.
    async fn hold(&self, options: &MqttOptions, status_topic: &str) -> Result<(), ConnectionError> {
        let (client, mut events) = AsyncClient::new(options.clone(), CHANNEL);
        events.poll().await?;
        {
            let mut state = self.lock();
            if state.stopping {
                return Ok(());
            }
            state.connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed) + 1;
            state.client = Some(client);
            state.last_error = None;
            let online = state.online.clone();
            state.hand_over(status_topic, true, online.into_bytes(), NOBODY);
            if let (Some(client), Some(filter)) = (&state.client, &state.side.filter) {
                // Fails only with a full channel, and this one is new.
                let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
            }
        }
        let (host, port) = options.broker_address();
        log::info!("connected to the broker {host}:{port}");
        self.changed();
        self.follow(&mut events).await
    }

    async fn follow(&self, events: &mut EventLoop) -> Result<(), ConnectionError> {
        loop {
            let event = events.poll().await?;
            if event == Event::Outgoing(Outgoing::Disconnect) {
                return Ok(());
            }
            if self.lock().note(&event) {
                self.changed();
            }
        }
    }
}

/// Connects once, waits for the CONNACK and disconnects.
pub(super) fn probe(options: MqttOptions) -> Result<(), String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let (client, mut events) = AsyncClient::new(options, CHANNEL);
        events.poll().await.map_err(|error| describe(&error))?;
        // The answer is in; a goodbye that fails changes nothing about it.
        let _ = client.try_disconnect();
        let _ = events.poll().await;
        Ok(())
    })
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Whether the connection ended because the broker sent more than one packet may have.
fn is_too_large(error: &ConnectionError) -> bool {
    use rumqttc::StateError::Deserialization;
    use rumqttc::mqttbytes::Error::PayloadSizeLimitExceeded;
    matches!(error, ConnectionError::MqttState(Deserialization(PayloadSizeLimitExceeded(_))))
}

/// The client library's errors in words for people; its own print Rust's debug form.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => in_words(error),
        ConnectionError::ConnectionRefused(code) => refused(*code).into(),
        // With TLS 1.3 the broker judges our certificate after the handshake: its refusal is the first thing that is read.
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(rumqttc::mqttbytes::Error::Io(error)),
        ) => in_words(error),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "the broker has closed the connection".into(),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => "no answer in time".into(),
        ConnectionError::Tls(TlsError::Io(error)) => in_words(error),
        ConnectionError::Tls(error) => format!("TLS: {error}"),
        other => other.to_string(),
    }
}

/// An error of the network, with what to do where TLS says why.
fn in_words(error: &std::io::Error) -> String {
    match tls::advice(error) {
        Some(advice) => format!("{advice} (TLS: {error})"),
        None => error.to_string(),
    }
}

/// Why the broker does not let us in.
fn refused(code: ConnectReturnCode) -> &'static str {
    match code {
        ConnectReturnCode::BadUserNamePassword => {
            "the broker does not accept user and password (mqtt.username, mqtt.password_file)"
        }
        ConnectReturnCode::NotAuthorized => {
            "the broker does not let this box in: check mqtt.username, mqtt.password_file and the broker's rules"
        }
        ConnectReturnCode::RefusedProtocolVersion => "the broker does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => {
            "the broker does not accept the client identifier, roentgen- and the device's name"
        }
        ConnectReturnCode::ServiceUnavailable => "the broker says that it is not available now",
        ConnectReturnCode::Success => "the broker refuses us",
    }
}

/// Between half of the pause and all of it, so that the boxes of a clinic do not come back in step after a power cut.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    pause / 2 + (pause / 2).mul_f64(random as f64 / u64::MAX as f64)
}
