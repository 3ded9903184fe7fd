//! Telling Home Assistant about the box, again whenever it may have forgotten, and taking it back when it is switched off.
//! Not what it is told: [`roentgen::sink::home_assistant`].
//!
//! What was told is retained by the broker, so the box must remember where: the topics stand in a file of `state_dir`,
//! written before anything is published, so that a box that is switched off, renamed or killed in between takes it back
//! at its next start.

use roentgen::config::Config;
use roentgen::sink::home_assistant::Described;
use roentgen::sink::mqtt::{Sent, Side};
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The file's name in `state_dir`.
const FILE: &str = "home-assistant.topics";

/// Most topics that are remembered.
const MOST: usize = 16;

/// Boxes answer a birth within this time, each at a moment of its own: Home Assistant asks for that.
const SPREAD: Duration = Duration::from_secs(3);

/// What is told, made once for each configuration.
struct Told {
    /// By which configuration.
    config: Arc<Config>,
    /// Topic and payload; none: nothing is to be told.
    wanted: Option<(String, String)>,
}

/// What Home Assistant has been told.
pub(super) struct HomeAssistant {
    path: PathBuf,
    told: Option<Told>,
    /// Topics on which something may be retained; those that are not wanted any more are cleared.
    topics: Vec<String>,
    /// What is on its way: its topic, and the handle.
    way: Option<(String, Option<Sent>)>,
    /// On which connection the broker has taken it, or refused to.
    done: Option<u64>,
    /// How many births were answered, and when the next one is.
    births: u64,
    answer_at: Option<Instant>,
    /// That something could not be done was said.
    complained: bool,
}

impl HomeAssistant {
    pub(super) fn new(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        // A file that is not there, or not ours to read: nothing is remembered.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let topics = text.lines().filter(|line| !line.is_empty()).take(MOST).map(str::to_owned).collect();
        Self { path, told: None, topics, way: None, done: None, births: 0, answer_at: None, complained: false }
    }

    /// Does what there is to do: nothing of it waits for anybody.
    pub(super) fn round(&mut self, config: &Arc<Config>, side: &Side, now: Instant) {
        self.follow(config, side);
        let standing = side.connection();
        if !standing.connected {
            return;
        }
        self.answer_births(side, now);
        let Some((topic, payload)) = self.next(standing.connections) else { return };
        if self.way.as_ref().is_none_or(|(on, _)| *on != topic) {
            self.way = Some((topic.clone(), None));
        }
        let Some((_, sent)) = &mut self.way else { return };
        let Some(answer) = side.retain(&topic, &payload, sent) else { return };
        self.way = None;
        if let Err(why) = answer {
            self.complain(&format!("the broker does not take {topic}: {why}"));
        }
        if payload.is_empty() {
            // Refused or not: where the box may not write nothing of it is kept.
            self.topics.retain(|other| *other != topic);
            self.remember();
        } else {
            self.done = Some(standing.connections);
        }
    }

    /// Notes what is to be told by this configuration.
    fn follow(&mut self, config: &Arc<Config>, side: &Side) {
        if self.told.as_ref().is_some_and(|told| Arc::ptr_eq(&told.config, config)) {
            return;
        }
        let section = config.home_assistant.as_ref();
        let described = Described {
            device: &config.device,
            topics: side.topics(),
            camera: config.source.camera.is_some(),
            commands: &config.commands.allow,
        };
        let wanted = section.map(|section| described.discovery(section));
        side.await_birth(section.map(|section| (section.birth_topic.clone(), section.birth_payload.clone())));
        self.told = Some(Told { config: Arc::clone(config), wanted });
        (self.way, self.done, self.complained) = (None, None, false);
    }

    /// What is to be published next, if anything is: first what is taken back.
    fn next(&mut self, connection: u64) -> Option<(String, String)> {
        let wanted = self.told.as_ref().and_then(|told| told.wanted.clone());
        let old = self.topics.iter().find(|topic| wanted.as_ref().is_none_or(|(wanted, _)| wanted != *topic));
        if let Some(old) = old {
            return Some((old.clone(), String::new()));
        }
        let (topic, payload) = wanted.filter(|_| self.done != Some(connection))?;
        if !self.topics.contains(&topic) {
            self.topics.push(topic.clone());
            self.remember();
        }
        Some((topic, payload))
    }

    /// Home Assistant has started, and may know of the box no more.
    fn answer_births(&mut self, side: &Side, now: Instant) {
        let births = side.births();
        if births != self.births {
            self.births = births;
            let random = RandomState::new().build_hasher().finish();
            self.answer_at = Some(now + SPREAD.mul_f64(random as f64 / u64::MAX as f64));
        }
        if self.answer_at.is_some_and(|at| now >= at) {
            (self.answer_at, self.done) = (None, None);
        }
    }

    fn remember(&mut self) {
        let written = match self.topics.as_slice() {
            [] => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            topics => fs::write(&self.path, topics.join("\n") + "\n"),
        };
        if let Err(error) = written {
            let path = self.path.display().to_string();
            self.complain(&format!("{path}: {error}; switched off later, Home Assistant may go on showing this box"));
        }
    }

    fn complain(&mut self, what: &str) {
        if !std::mem::replace(&mut self.complained, true) {
            log::warn!("Home Assistant: {what}");
        }
    }
}
