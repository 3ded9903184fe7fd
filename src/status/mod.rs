//! What the box knows about itself: a handle that everybody tells what happens ([`Status`]), and what is made of it: the
//! box's word about itself ([`Telemetry`]) and whether all is well ([`Health`]). Not a log, and nothing about one image.
//!
//! The handle only remembers, so that telling it something costs next to nothing on the way of a radiograph. What has
//! to be asked of the system (temperatures, memory, disks: [`probe`]) is asked by whoever makes a [`Telemetry`].

mod counts;
mod health;
mod latency;
pub mod probe;
mod state;
mod telemetry;

pub use crate::source::Intake;
pub use crate::source::camera::Condition as Camera;
pub use counts::Counts;
pub use health::{Health, Problem, Severity};
pub use latency::{Latency, Quantiles, WINDOW};
pub use probe::Roots;
pub use state::{Broker, QueueDepth, Reload, Setup, Update, UpdateWaiting};
pub use telemetry::{ResultsSaid, SCHEMA, Telemetry};

use crate::classifier::Running;
use crate::radiograph::RefusalCode;
use crate::report::Report;
use crate::sink::dicom_sr::Standing;
use crate::source::dicom_scp;
use state::State;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};
use tokio::sync::watch;

/// The handle; clones share what they are told. One lives as long as the process, so that counts are since its start.
#[derive(Debug, Clone, Default)]
pub struct Status {
    state: Arc<Mutex<State>>,
    /// Counts what somebody who watches wants to see at once: see [`Status::news`].
    news: watch::Sender<u64>,
}

impl Status {
    /// The line made a turn, with or without an image.
    pub fn turn(&self) {
        self.lock().last_turn = Some(Instant::now());
    }

    /// A report became durable.
    pub fn judged(&self, report: &Report) {
        let mut state = self.lock();
        state.counts.judged(&report.decision);
        state.latency.note(&report.timing_ms);
        state.last_report_at = Some(SystemTime::now());
        drop(state);
        self.tell();
    }

    /// A file was refused and settled.
    pub fn rejected(&self, code: RefusalCode) {
        *self.lock().counts.rejected.entry(code).or_default() += 1;
    }

    /// An image was settled that has its report already.
    pub fn repeated(&self) {
        self.lock().counts.repeated += 1;
    }

    /// The broker acknowledged so many reports.
    pub fn published(&self, reports: u64) {
        let mut state = self.lock();
        state.counts.published += reports;
        state.queue_moved = Instant::now();
        drop(state);
        self.tell();
    }

    /// How many reports wait for the broker now, and what the outbox takes on disk.
    pub fn queue(&self, depth: QueueDepth) {
        let mut state = self.lock();
        if state.queue.as_ref().is_none_or(|before| before.unsent == 0) {
            state.queue_moved = Instant::now();
        }
        state.queue = Some(depth);
    }

    /// So many reports were dropped unsent, because the outbox would have outgrown a bound.
    pub fn dropped(&self, reports: u64) {
        if reports > 0 {
            let mut state = self.lock();
            state.counts.dropped += reports;
            state.dropped_at = Some(Instant::now());
            state.urgent += 1;
        }
    }

    /// So many reports can never be sent; they stay in the history.
    pub fn undeliverable(&self, reports: u64) {
        if reports > 0 {
            let mut state = self.lock();
            state.counts.undeliverable += reports;
            state.urgent += 1;
        }
    }

    /// A broken outbox was set aside; `what` says which file and what to do.
    pub fn outbox_set_aside(&self, what: impl Into<String>) {
        let mut state = self.lock();
        state.set_aside = Some(what.into());
        state.urgent += 1;
    }

    /// Whether new images are taken. Only a change counts, so that it may be told every turn.
    pub fn intake(&self, intake: Intake) {
        let mut state = self.lock();
        let changed = match (&state.closed, &intake) {
            (None, Intake::Open) => false,
            (Some((reason, _)), Intake::Closed { reason: now }) => reason != now,
            _ => true,
        };
        if changed {
            let since = state.closed.as_ref().map_or_else(SystemTime::now, |(_, since)| *since);
            state.closed = match intake {
                Intake::Open => None,
                Intake::Closed { reason } => Some((reason, since)),
            };
            state.urgent += 1;
        }
    }

    /// How many files wait in the drop folder, where that is known.
    pub fn incoming(&self, waiting: Option<u64>) {
        self.lock().incoming = waiting;
    }

    /// The process that decodes images was started anew after one that died or hung.
    pub fn decoder_restarted(&self) {
        self.lock().counts.decoder_restarts += 1;
    }

    /// The configuration was read again, or refused with this reason.
    pub fn reloaded(&self, outcome: Result<(), String>) {
        let mut state = self.lock();
        state.counts.reloads += u64::from(outcome.is_ok());
        state.reload = Some(Reload { at: SystemTime::now(), refused: outcome.err() });
        state.urgent += 1;
    }

    /// What the box runs from now on.
    pub fn running(&self, setup: Setup) {
        let mut state = self.lock();
        // Loading a model took its time, in which the line could not turn.
        state.last_turn = None;
        state.setup = Some(setup);
        state.urgent += 1;
    }

    /// What runs the network now, where that changes by itself. Only a change counts, so that it may be told every turn.
    pub fn runs(&self, running: Running) {
        let mut state = self.lock();
        let Some(setup) = &mut state.setup else { return };
        let Running { backend, kernel, threads, fallback } = running;
        let news = setup.backend != backend || setup.backend_fallback != fallback;
        if news || setup.kernel != kernel {
            (setup.backend, setup.kernel, setup.threads) = (backend, kernel, threads);
            setup.backend_fallback = fallback;
            state.urgent += 1;
        }
    }

    /// How the connection to the broker stands.
    pub fn broker(&self, broker: Broker) {
        let mut state = self.lock();
        let changed = state.broker.as_ref().is_none_or(|before| before.connected != broker.connected);
        if changed {
            state.broker_since = Instant::now();
            state.queue_moved = Instant::now();
        }
        state.broker = Some(broker);
        drop(state);
        if changed {
            self.tell();
        }
    }

    /// How it stands with what goes back to the PACS; `None` where nothing does.
    pub fn results(&self, standing: Option<Standing>) {
        let mut state = self.lock();
        let news = |standing: &Option<Standing>| standing.as_ref().map_or(0, |standing| standing.news);
        if news(&state.results) != news(&standing) {
            state.urgent += 1;
        }
        state.results = standing;
    }

    /// How it stands with the camera; `None`: there is none. Only a change counts.
    pub fn camera(&self, camera: Option<Camera>) {
        let mut state = self.lock();
        let matters = |camera: &Option<Camera>| {
            camera.clone().map(|camera| (camera.away, camera.complaint, camera.reference_unfit))
        };
        if matters(&state.camera) != matters(&camera) {
            state.urgent += 1;
        }
        state.camera = camera;
    }

    /// What became of the last update of the model.
    pub fn update(&self, update: Update) {
        let mut state = self.lock();
        state.update = Some(update);
        state.urgent += 1;
    }

    /// Which bundle waits to be asked for, if one does. Only a change counts.
    pub fn update_waiting(&self, waiting: Option<UpdateWaiting>) {
        let mut state = self.lock();
        if state.update_waiting != waiting {
            state.update_waiting = waiting;
            state.urgent += 1;
        }
    }

    /// What is known of the DICOM network from now on; `None`: it is switched off.
    pub fn dicom(&self, watch: Option<dicom_scp::Watch>) {
        let mut state = self.lock();
        state.dicom = watch;
        state.urgent += 1;
    }

    /// What runs, once it does.
    pub fn setup(&self) -> Option<Setup> {
        self.lock().setup.clone()
    }

    /// The counts at this moment.
    pub fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    /// Counts what is worth a message at once. Another number than before: something has happened.
    pub fn urgent(&self) -> u64 {
        let state = self.lock();
        state.urgent + state.dicom.as_ref().map_or(0, dicom_scp::Watch::changes)
    }

    /// Wakes whoever waits for it when a report became durable, when reports were acknowledged, and when the broker came
    /// or went. What happened is not said: it is to be looked at.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Whether all is well.
    pub fn health(&self) -> Health {
        Health::of(&self.lock(), Instant::now())
    }

    /// The box's word about itself, now. Asks the system, which takes a moment.
    pub fn telemetry(&self, roots: &Roots) -> Telemetry {
        let state = self.lock().clone();
        Telemetry::gather(&state, Instant::now(), roots)
    }

    /// Nobody need listen.
    fn tell(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// A poisoned lock is used on: every change is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
