//! Taking new models while the box works: what lies in `bundles/incoming` is installed by a process of its own, one at a
//! time, and then the daemon is asked to load it. Whatever fails, the model at hand goes on.

use super::child::{self, Child, Event};
use super::desk::{About, Desk, now as time};
use super::waiting::Waiting;
use roentgen::bundle::Inbox;
use roentgen::config::Config;
use roentgen::reload::{Reload, Ticket};
use roentgen::sink::mqtt::command::Stage;
use roentgen::status::{Status, Update};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name of what nobody commanded.
const INCOMING: &str = "bundle/incoming";

/// Most orders that wait.
const MOST: usize = 8;

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The first and the longest pause before what failed for a passing reason is tried again by itself.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How long an order waits for a bundle that is still being copied: a little longer than the quiet of a complete one.
const COPYING: Duration = Duration::from_secs(20);

/// How often an installation may die, of nothing that somebody else did, before its bundle is taken for the reason.
const DEATHS: u32 = 2;

/// How long the daemon may take to load what is installed.
const LOADING: Duration = Duration::from_secs(600);

/// Something to be done.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// The sender's identifier; empty where nobody sent a command.
    pub(super) id: String,
    /// The command, as in its topic.
    pub(super) command: String,
    /// What.
    pub(super) what: What,
}

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// Install what lies under this name, and only if its manifest has this SHA-256, where one is given.
    Install { name: String, sha256: Option<String> },
    /// Go back to the good bundle before.
    Rollback,
    /// Make the installed bundle of this version the active one.
    Activate(String),
}

/// How far an order is.
enum Phase {
    /// A process checks and installs it.
    Working(Child),
    /// It is the active one on disk, and the daemon loads it: the ticket, which bundle, in words, since when.
    Loading(Ticket, String, String, Instant),
}

/// How often something failed, and when to try it again.
#[derive(Default)]
struct Trouble {
    failures: u32,
    deaths: u32,
    again: Option<Instant>,
}

/// The updates of one box.
pub(super) struct Updates {
    state_dir: PathBuf,
    inbox: Inbox,
    orders: VecDeque<Order>,
    /// Since when the first of them waits for its bundle to be complete.
    waiting: Option<Instant>,
    current: Option<(Order, Phase)>,
    trouble: HashMap<String, Trouble>,
    looked: Option<Instant>,
    /// What could be asked for.
    waiting_bundle: Waiting,
    /// That the folder cannot be looked at was said.
    complained: bool,
}

/// What a round works with.
struct Round<'a> {
    config: &'a Config,
    status: &'a Status,
    desk: &'a mut Desk,
}

impl Round<'_> {
    /// Says how far an order is: answer, telemetry, log.
    fn say(&mut self, order: &Order, stage: Stage, message: &str) {
        let file = match &order.what {
            What::Install { name, .. } => Some(name.as_str()),
            _ => None,
        };
        let about = About { id: &order.id, command: &order.command, file };
        self.desk.answer(&self.config.device, about, stage, message);
        let what = match &order.what {
            What::Activate(version) => format!("activate {version}"),
            _ => file.unwrap_or("rollback").to_owned(),
        };
        let level = if matches!(stage, Stage::Rejected | Stage::Failed) { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "bundle {what}: {}: {message}", stage.as_str());
        let (stage, message) = (stage.as_str().to_owned(), message.to_owned());
        self.status.update(Update { what, stage, message, at: time() });
    }
}

impl Updates {
    pub(super) fn new(state_dir: &Path) -> Self {
        child::sweep(state_dir);
        Self {
            state_dir: state_dir.to_owned(),
            inbox: Inbox::new(state_dir),
            orders: VecDeque::new(),
            waiting: None,
            current: None,
            trouble: HashMap::new(),
            looked: None,
            waiting_bundle: Waiting::default(),
            complained: false,
        }
    }

    /// What lies in the folder.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        self.inbox.names()
    }

    /// Takes an order, to be done when those before it are.
    pub(super) fn order(&mut self, order: Order) -> Result<(), &'static str> {
        if self.orders.len() >= MOST {
            return Err("too many updates wait already");
        }
        if let What::Install { name, .. } = &order.what {
            self.inbox.look_again(name);
        }
        self.orders.push_back(order);
        Ok(())
    }

    /// Goes on with what is being done, or begins the next.
    pub(super) fn round(&mut self, config: &Config, status: &Status, reload: &Reload, desk: &mut Desk, now: Instant) {
        let mut round = Round { config, status, desk };
        if let Some((order, phase)) = self.current.take() {
            self.current = match phase {
                Phase::Working(child) => self.work(&mut round, order, child, reload, now),
                Phase::Loading(ticket, sha256, title, since) => {
                    let loading = (ticket, sha256, title, since);
                    load(&mut round, reload, &order, loading, now).map(|phase| (order, phase))
                }
            };
            return;
        }
        let Some(order) = self.next(&mut round, now).or_else(|| self.look(config, now)) else {
            return self.waiting_bundle.round(&mut self.inbox, config, status, now);
        };
        self.waiting = None;
        self.begin(&mut round, order, now);
    }

    /// The next order, once its bundle is complete; one that is still being copied is neither checked nor thrown aside.
    fn next(&mut self, round: &mut Round, now: Instant) -> Option<Order> {
        let order = self.orders.front()?;
        let What::Install { name, .. } = &order.what else { return self.orders.pop_front() };
        let found = self.inbox.complete(now).inspect(|names| self.trouble.retain(|name, _| names.contains(name)));
        let problem = match found {
            Ok(names) if names.contains(name) => return self.orders.pop_front(),
            Ok(_) => "it is still being copied, or is gone; nothing was done with it".to_owned(),
            Err(error) => format!("cannot look at bundles/incoming: {error}"),
        };
        if now.saturating_duration_since(*self.waiting.get_or_insert(now)) > COPYING {
            self.waiting = None;
            let order = self.orders.pop_front()?;
            round.say(&order, Stage::Failed, &format!("{problem}; send the command again when it lies there whole"));
        }
        None
    }

    /// What is complete in the folder and may be installed by itself.
    fn look(&mut self, config: &Config, now: Instant) -> Option<Order> {
        if !config.updates.automatic || self.looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK) {
            return None;
        }
        self.looked = Some(now);
        let found = self.inbox.make().and_then(|()| self.inbox.complete(now));
        let names = match found {
            Ok(names) => names,
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    log::warn!("{}: {error}; no bundle is taken from there", self.inbox.folder().display());
                }
                return None;
            }
        };
        self.complained = false;
        self.trouble.retain(|name, _| names.contains(name));
        let is_due = |name: &String| {
            let again = self.trouble.get(name).and_then(|trouble| trouble.again);
            again.is_none_or(|again| now >= again)
        };
        let name = names.into_iter().find(is_due)?;
        Some(Order { id: String::new(), command: INCOMING.into(), what: What::Install { name, sha256: None } })
    }

    fn begin(&mut self, round: &mut Round, order: Order, now: Instant) {
        let started = match &order.what {
            What::Install { .. } if round.config.bundles.trusted_keys.is_empty() => {
                let message = "bundles.trusted_keys is empty, so that no bundle can be taken from there";
                return self.refuse(round, &order, message);
            }
            What::Install { name, sha256 } => {
                Child::install(round.config, &self.state_dir, &self.inbox.path(name), sha256.as_deref())
            }
            What::Rollback => Child::rollback(round.config, &self.state_dir),
            What::Activate(version) => Child::activate(round.config, &self.state_dir, version),
        };
        match started {
            Ok(child) => {
                round.say(&order, Stage::Checking, "checking it");
                self.current = Some((order, Phase::Working(child)));
            }
            Err(error) => self.fail(round, &order, &format!("cannot begin: {error}"), false, now),
        }
    }

    fn work(
        &mut self,
        round: &mut Round,
        order: Order,
        mut child: Child,
        reload: &Reload,
        now: Instant,
    ) -> Option<(Order, Phase)> {
        match child.event(now) {
            None => {}
            Some(Event::Step(step)) => round.say(&order, Stage::Checking, &step),
            Some(Event::Done { sha256, title }) => {
                if let What::Install { name, .. } = &order.what {
                    self.trouble.remove(name);
                    if let Err(error) = self.inbox.remove(name) {
                        log::warn!("{}: {error}; it is installed: remove it", self.inbox.path(name).display());
                        self.inbox.leave(name);
                    }
                }
                round.say(&order, Stage::Checking, &format!("{title} is on disk; the box loads it"));
                return Some((order, Phase::Loading(reload.ask_for_bundle(), sha256, title, now)));
            }
            Some(Event::Refused(reason)) => {
                self.refuse(round, &order, &reason);
                return None;
            }
            Some(Event::Failed { reason, died }) => {
                self.fail(round, &order, &reason, died, now);
                return None;
            }
        }
        Some((order, Phase::Working(child)))
    }

    /// It is no good, and would be none the next time.
    fn refuse(&mut self, round: &mut Round, order: &Order, reason: &str) {
        if let What::Install { name, .. } = &order.what {
            match self.inbox.reject(name, reason, &time()) {
                Ok(_) => {}
                Err(error) => {
                    log::warn!("{}: {error}; it was refused: remove it", self.inbox.path(name).display());
                    self.inbox.leave(name);
                }
            }
            self.trouble.remove(name);
        }
        round.say(order, Stage::Rejected, reason);
    }

    /// It may do the next time.
    fn fail(&mut self, round: &mut Round, order: &Order, reason: &str, died: bool, now: Instant) {
        let What::Install { name, .. } = &order.what else { return round.say(order, Stage::Failed, reason) };
        let trouble = self.trouble.entry(name.clone()).or_default();
        trouble.deaths += u32::from(died);
        if trouble.deaths >= DEATHS {
            return self.refuse(round, order, reason);
        }
        self.postpone(name, now);
        let then = if round.config.updates.automatic {
            "it stays in bundles/incoming and is tried again"
        } else {
            "try again"
        };
        round.say(order, Stage::Failed, &format!("{reason}; {then}"));
    }

    fn postpone(&mut self, name: &str, now: Instant) {
        let trouble = self.trouble.entry(name.to_owned()).or_default();
        let pause = FIRST_PAUSE.saturating_mul(1 << trouble.failures.min(10)).min(LONGEST_PAUSE);
        trouble.failures += 1;
        trouble.again = Some(now + pause);
    }
}

/// Whether the daemon runs what is installed by now; `None` when that is decided.
fn load(
    round: &mut Round,
    reload: &Reload,
    order: &Order,
    (ticket, sha256, title, since): (Ticket, String, String, Instant),
    now: Instant,
) -> Option<Phase> {
    let runs = |status: &Status| status.setup().is_some_and(|setup| setup.model.sha256 == sha256);
    match reload.outcome(ticket) {
        Some(Ok(_)) if runs(round.status) => {
            round.say(order, Stage::Installed, &format!("the box judges with {title}"))
        }
        Some(Ok(_)) => {
            let message = format!("{title} is installed, and the box runs another one: see its telemetry");
            round.say(order, Stage::Failed, &message);
        }
        Some(Err(reason)) => {
            let message = format!("{title} is installed, but could not be loaded; the model at hand goes on: {reason}");
            round.say(order, Stage::Failed, &message);
        }
        None if now.saturating_duration_since(since) > LOADING => {
            let message = format!("{title} is installed, but the box has not come to load it");
            round.say(order, Stage::Failed, &message);
        }
        None => return Some(Phase::Loading(ticket, sha256, title, since)),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_still_being_copied_is_neither_installed_nor_thrown_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("", Path::new("roentgend.toml")).unwrap();
        config.updates.automatic = false;
        // Whatever is begun is refused at once, and so moved away.
        config.bundles.trusted_keys.clear();
        let (status, reload, mut desk) = (Status::default(), Reload::default(), Desk::default());
        let mut updates = Updates::new(folder.path());
        updates.inbox.make().unwrap();
        let path = updates.inbox.path("a.tar");
        let install = |updates: &mut Updates| {
            let what = What::Install { name: "a.tar".into(), sha256: None };
            updates.order(Order { id: "1".into(), command: "bundle/install".into(), what }).unwrap();
        };
        let start = Instant::now();
        let mut bytes = Vec::new();
        install(&mut updates);
        for second in 0..60 {
            bytes.push(b'x');
            fs::write(&path, &bytes).unwrap();
            updates.round(&config, &status, &reload, &mut desk, start + Duration::from_secs(second));
            assert!(path.exists(), "moved away after {second} s");
        }
        assert!(updates.orders.is_empty(), "nobody waits for ever");
        install(&mut updates);
        for second in 60..70 {
            updates.round(&config, &status, &reload, &mut desk, start + Duration::from_secs(second));
        }
        assert!(!path.exists() && updates.orders.is_empty(), "complete, and so begun");
    }

    #[test]
    fn the_trouble_with_a_bundle_is_forgotten_with_it_also_where_nothing_is_taken_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("updates.automatic = false", Path::new("roentgend.toml")).unwrap();
        config.bundles.trusted_keys.clear();
        let (status, reload, mut desk) = (Status::default(), Reload::default(), Desk::default());
        let mut updates = Updates::new(folder.path());
        updates.inbox.make().unwrap();
        let what = |name: &str| What::Install { name: name.into(), sha256: None };
        let order = |name: &str| Order { id: "1".into(), command: "bundle/install".into(), what: what(name) };
        let start = Instant::now();
        let mut round = Round { config: &config, status: &status, desk: &mut desk };
        updates.fail(&mut round, &order("gone.tar"), "no room", false, start);
        assert!(updates.trouble.contains_key("gone.tar"));
        fs::write(updates.inbox.path("b.tar"), "b").unwrap();
        updates.order(order("b.tar")).unwrap();
        for second in 0..10 {
            updates.round(&config, &status, &reload, &mut desk, start + Duration::from_secs(second));
        }
        assert!(updates.trouble.is_empty(), "it is no longer there");
    }
}
