//! What the daemon does beside its work: says how it is (over MQTT, in a file, over HTTP), takes commands and new models.
//! One thread that looks around four times a second; nothing that goes wrong here stops or delays a radiograph.

mod again;
mod child;
mod commands;
mod desk;
mod file;
mod home_assistant;
mod updates;
mod waiting;
mod web;

pub(crate) use file::{FILE, STALE};

use again::Again;
use anyhow::Context;
use desk::Desk;
use file::StatusFile;
use home_assistant::HomeAssistant;
use roentgen::config::Config;
use roentgen::reload::{Reload, Ticket};
use roentgen::sink::mqtt::{Side, Standing};
use roentgen::source::camera;
use roentgen::status::{Broker, Roots, Setup, Status};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use updates::Updates;
use web::Web;

/// The pause between two rounds.
const ROUND: Duration = Duration::from_millis(250);

/// The shortest time between two messages about how the box is, however much happens.
const BREATH: Duration = Duration::from_secs(2);

/// What a round needs of the daemon: new after each reload.
#[derive(Clone)]
struct Place {
    config: Arc<Config>,
    side: Side,
    /// The camera, where there is one.
    camera: Option<camera::Remote>,
}

/// A picture that a command asked for.
struct Picture {
    camera: camera::Remote,
    ticket: camera::Ticket,
    /// The command's identifier, and itself.
    id: String,
    command: String,
}

/// The thread. Dropping it ends it.
pub(crate) struct Health {
    status: Status,
    place: Arc<Mutex<Option<Place>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Health {
    /// Starts the thread; until [`Self::attend`] it only says that the box is starting.
    pub(crate) fn start(status: &Status, reload: &Reload, state_dir: &Path) -> anyhow::Result<Self> {
        let place = Arc::new(Mutex::new(None));
        let mut rounds = Rounds::new(status.clone(), reload.clone(), state_dir);
        let (stop, stopped) = channel();
        let shared: Arc<Mutex<Option<Place>>> = Arc::clone(&place);
        let thread = std::thread::Builder::new()
            .name("health".into())
            .spawn(move || {
                while stopped.recv_timeout(ROUND) == Err(RecvTimeoutError::Timeout) {
                    let place = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    rounds.round(place.as_ref(), Instant::now());
                }
            })
            .context("cannot start the thread that says how the box is")?;
        Ok(Self { status: status.clone(), place, stop: Some(stop), thread: Some(thread) })
    }

    /// The daemon runs by this configuration from now on.
    pub(crate) fn attend(&self, config: &Config, side: Side, camera: Option<camera::Remote>, setup: Setup) {
        side.listen(!config.commands.allow.is_empty());
        self.status.running(setup);
        let place = Place { config: Arc::new(config.clone()), side, camera };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        // Hanging up ends the wait between two rounds.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread keeps from round to round.
struct Rounds {
    status: Status,
    reload: Reload,
    roots: Roots,
    file: StatusFile,
    web: Web,
    desk: Desk,
    updates: Updates,
    /// The radiograph that is looked for, to be judged again.
    again: Again,
    home_assistant: HomeAssistant,
    /// Reloads that a command asked for and that are not answered: ticket and the command's identifier.
    tickets: Vec<(Ticket, String)>,
    /// Pictures that a command asked for and that are not answered.
    pictures: Vec<Picture>,
    /// How many reloads were answered that are counted.
    reloads: u64,
    /// When telemetry last went out, on which connection, and what was urgent then.
    told: Option<(Instant, u64, u64)>,
    /// Whether the last round was of a daemon that works, and not of one that is starting.
    works: bool,
}

impl Rounds {
    fn new(status: Status, reload: Reload, state_dir: &Path) -> Self {
        let (file, updates) = (StatusFile::new(state_dir), Updates::new(state_dir));
        let home_assistant = HomeAssistant::new(state_dir);
        Self {
            status,
            reload,
            roots: Roots::default(),
            file,
            web: Web::default(),
            desk: Desk::default(),
            updates,
            again: Again::default(),
            home_assistant,
            tickets: Vec::new(),
            pictures: Vec::new(),
            reloads: 0,
            told: None,
            works: false,
        }
    }

    fn round(&mut self, place: Option<&Place>, now: Instant) {
        self.note_reload();
        if let Some(Place { config, side, camera }) = place {
            let Standing { connected, version, connections, error } = side.connection();
            self.status.broker(Broker { connected, connections, version, error: error.filter(|_| !connected) });
            side.announce_backend(self.status.setup().and_then(|setup| setup.backend_fallback));
            self.web.follow(config, &self.status, now);
            self.status.camera(camera.as_ref().map(camera::Remote::condition));
            self.commands(config, side, camera.as_ref(), now);
            self.updates.round(config, &self.status, &self.reload, &mut self.desk, now);
            self.desk.deliver(side);
            self.tell(config, side, now);
            self.home_assistant.round(config, side, now);
        }
        // That the model is not loaded yet is to be believed no longer than it is true.
        let is_new = place.is_some() && !std::mem::replace(&mut self.works, place.is_some());
        let urgent = self.status.urgent();
        if is_new || self.file.is_due(urgent, now) {
            self.file.write(&self.status.telemetry(&self.roots), urgent, now);
        }
    }

    /// Publishes how the box is, where it is time: at the start of a connection, at its interval, and soon after something
    /// that matters. Nothing is kept for a broker that is away: the next message is newer.
    fn tell(&mut self, config: &Config, side: &Side, now: Instant) {
        let asked = self.desk.take_asked();
        let interval = Duration::from_secs(config.telemetry.interval_s);
        let connection = side.connection().connections;
        let urgent = self.status.urgent();
        let due = match self.told {
            _ if asked => true,
            _ if interval.is_zero() => false,
            None => true,
            Some((at, on, then)) => {
                let since = now.saturating_duration_since(at);
                since >= interval || on != connection || (urgent != then && since >= BREATH)
            }
        };
        if !due {
            return;
        }
        let json = side.may_tell().then(|| serde_json::to_string(&self.status.telemetry(&self.roots)));
        // A plain struct of numbers and text, which is always JSON.
        if let Some(Ok(json)) = json
            && side.telemetry(&json, expires_s(config.telemetry.interval_s))
        {
            self.told = Some((now, connection, urgent));
        } else if asked {
            self.desk.ask_again();
        }
    }

    /// Counts what became of a reload, whoever asked for it.
    fn note_reload(&mut self) {
        let (answers, outcome) = self.reload.answered();
        if answers != self.reloads
            && let Some(outcome) = outcome
        {
            self.reloads = answers;
            self.status.reloaded(outcome.map(|_| ()));
        }
    }
}

/// After how many seconds what was told is no word of a living box any more: a few messages later. Without an interval
/// nothing says when the next one comes.
fn expires_s(interval_s: u64) -> Option<u32> {
    (interval_s > 0).then(|| u32::try_from(interval_s * 3 + 60).unwrap_or(u32::MAX))
}
