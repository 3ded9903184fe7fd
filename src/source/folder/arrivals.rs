//! Which files of `incoming/` are complete, in the order of their arrival: inotify events, and a look at the whole folder
//! now and then. Opens no file.

use super::identity::Identity;
use super::names::may_be_taken;
use super::{Config, failed};
use crate::pseudonym::Key;
use crate::source::SourceError;
use crate::source::bell::Bell;
use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// After how long it is asked again for file events, where there were none.
const WATCH_AGAIN: Duration = Duration::from_secs(60);

/// How many events are kept that nobody has asked for: while no image is taken they come all the same, one for every write.
const MAX_EVENTS: usize = 4096;

/// What is known about a file that is not complete yet.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    identity: Identity,
    since: Instant,
}

/// Finds complete files.
pub(super) struct Arrivals {
    /// The folder as it was named.
    configured: PathBuf,
    /// The same without links.
    incoming: PathBuf,
    /// Makes the tags that stand for names in the log.
    key: Key,
    settle: Duration,
    poll: Duration,
    /// Dropping it ends the events.
    watcher: Option<RecommendedWatcher>,
    events: Receiver<notify::Result<notify::Event>>,
    /// More events came than are kept.
    overflowed: Arc<AtomicBool>,
    /// Is rung at every event.
    bell: Arc<OnceLock<Bell>>,
    /// Device and inode of the folder that is watched, and since when.
    watched: Option<(u64, u64)>,
    since: Instant,
    /// An event said that it was removed or renamed.
    is_lost: bool,
    last_scan: Option<Instant>,
    /// Complete files, oldest first, and the same as a set.
    ready: VecDeque<PathBuf>,
    is_ready: HashSet<PathBuf>,
    waiting: HashMap<PathBuf, Waiting>,
    /// Files whose writer was seen: they are taken when its close is.
    being_written: HashSet<PathBuf>,
    /// Files that could not be moved, as they were then.
    left: HashMap<PathBuf, Identity>,
    /// Other things that were mentioned in the log once.
    mentioned: HashSet<PathBuf>,
}

impl Arrivals {
    pub(super) fn watch(config: &Config, key: Key) -> Result<Self, SourceError> {
        let mut arrivals = Self {
            configured: config.incoming.clone(),
            incoming: PathBuf::new(),
            key,
            settle: Duration::from_millis(config.settle_ms),
            poll: Duration::from_millis(config.poll_ms),
            watcher: None,
            events: sync_channel(1).1,
            overflowed: Arc::default(),
            bell: Arc::default(),
            watched: None,
            since: Instant::now(),
            is_lost: false,
            last_scan: None,
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            waiting: HashMap::new(),
            being_written: HashSet::new(),
            left: HashMap::new(),
            mentioned: HashSet::new(),
        };
        arrivals.look()?;
        Ok(arrivals)
    }

    /// Looks whether the drop folder is there, and still the one that is watched: it may have been removed and made
    /// again, or be a disk that was away.
    pub(super) fn look(&mut self) -> Result<(), SourceError> {
        let found =
            fs::metadata(&self.configured).map_err(failed("the drop folder is gone", self.configured.display()))?;
        let found = (found.dev(), found.ino());
        let is_another = self.watched != Some(found) || self.is_lost;
        if is_another || self.watcher.is_none() && self.since.elapsed() >= WATCH_AGAIN {
            self.watch_anew(found, is_another)?;
        }
        Ok(())
    }

    fn watch_anew(&mut self, found: (u64, u64), is_another: bool) -> Result<(), SourceError> {
        // Canonical, because events name the path that was watched.
        let incoming =
            fs::canonicalize(&self.configured).map_err(failed("cannot resolve", self.configured.display()))?;
        if is_another {
            if self.watched.is_some() {
                log::info!("{} is another folder now; it is watched instead", incoming.display());
            }
            self.ready.clear();
            self.is_ready.clear();
            self.waiting.clear();
            self.left.clear();
            self.mentioned.clear();
        }
        let (sender, events) = sync_channel(MAX_EVENTS);
        let overflowed = Arc::new(AtomicBool::new(false));
        let (flag, bell) = (overflowed.clone(), Arc::clone(&self.bell));
        let keep = move |event| {
            if matches!(sender.try_send(event), Err(TrySendError::Full(_))) {
                flag.store(true, Ordering::Relaxed);
            }
            if let Some(bell) = bell.get() {
                bell.ring();
            }
        };
        let watcher = notify::recommended_watcher(keep).and_then(|mut watcher| {
            watcher.watch(&incoming, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        self.watcher = watcher
            .inspect_err(|error| {
                if is_another {
                    log::warn!("{}: no file events, polling only: {}", incoming.display(), words(error));
                }
            })
            .ok();
        (self.events, self.overflowed) = (events, overflowed);
        // Whose close was not seen meanwhile is taken by its age.
        self.being_written.clear();
        (self.incoming, self.watched, self.since) = (incoming, Some(found), Instant::now());
        self.is_lost = false;
        self.last_scan = None;
        Ok(())
    }

    /// The disk or share that the folder is on, and what lies in it, whatever it is.
    pub(super) fn identities(&self) -> io::Result<(u64, Vec<Identity>)> {
        let device = fs::metadata(&self.incoming)?.dev();
        let entries = fs::read_dir(&self.incoming)?.filter_map(Result::ok);
        let found = entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| Identity::of(&metadata));
        Ok((device, found.collect()))
    }

    /// How many files are known to be there that are to be taken.
    pub(super) fn waiting(&self) -> u64 {
        (self.ready.len() + self.waiting.len()) as u64
    }

    /// The next complete file that is not `taken`; `None` at the deadline. Looks at least once, whatever the deadline.
    pub(super) fn next(
        &mut self,
        deadline: Instant,
        taken: impl Fn(&Path) -> bool,
    ) -> Result<Option<PathBuf>, SourceError> {
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.note(event);
            }
            if self.overflowed.swap(false, Ordering::Relaxed) {
                self.look_instead();
                // One of these may be written again by now: they are taken by their age.
                self.ready.clear();
                self.is_ready.clear();
            }
            if self.last_scan.is_none_or(|last| last.elapsed() >= self.poll) {
                self.scan()?;
                self.last_scan = Some(Instant::now());
            }
            while let Some(path) = self.ready.pop_front() {
                self.is_ready.remove(&path);
                if !taken(&path) {
                    return Ok(Some(path));
                }
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            let next_scan = self.last_scan.map_or(now, |last| last + self.poll);
            let wait = deadline.min(next_scan).saturating_duration_since(now);
            match self.events.recv_timeout(wait) {
                Ok(event) => self.note(event),
                Err(RecvTimeoutError::Timeout) => {}
                // Without a watcher nobody sends: polling is all there is.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
    }

    /// Rings this bell at every event from now on.
    pub(super) fn ring(&self, bell: Bell) {
        // Set once: who has several folders asks them all in turns for as long as they live.
        let _ = self.bell.set(bell);
    }

    /// How long it is until the folder is looked at as a whole.
    pub(super) fn rest(&self) -> Duration {
        self.last_scan.map_or(Duration::ZERO, |last| self.poll.saturating_sub(last.elapsed()))
    }

    /// Looks at a file again that was handed over before.
    pub(super) fn again(&mut self, path: &Path) {
        self.waiting.remove(path);
        self.last_scan = None;
    }

    /// Does not offer a file again until it is another one.
    pub(super) fn leave(&mut self, path: &Path, identity: Identity) {
        self.left.insert(path.to_owned(), identity);
    }

    fn note(&mut self, event: notify::Result<notify::Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                let (folder, error) = (self.incoming.display(), words(&error));
                log::warn!("{folder}: file events failed, looking at the folder instead: {error}");
                return self.look_instead();
            }
        };
        if event.need_rescan() {
            self.look_instead();
        }
        // A rename inside the folder names both paths in one event; the new name comes last.
        let Some(path) = event.paths.last() else { return };
        if *path == self.incoming && matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
        {
            self.is_lost = true;
            return;
        }
        if path.parent() != Some(self.incoming.as_path()) || !may_be_taken(path) {
            return;
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
                self.being_written.remove(path);
                self.offer_closed(&path.clone());
            }
            // A new file with content was linked in: that gives no close to wait for.
            EventKind::Create(CreateKind::File) if !is_empty(path) => {}
            EventKind::Create(CreateKind::File) | EventKind::Modify(ModifyKind::Data(_)) => {
                self.being_written.insert(path.clone());
                self.withdraw(&path.clone());
            }
            EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                self.being_written.remove(path);
                self.withdraw(&path.clone());
            }
            _ => {}
        }
    }

    /// Events were lost, a close among them perhaps: the folder itself is looked at.
    fn look_instead(&mut self) {
        self.being_written.clear();
        self.last_scan = None;
    }

    /// Offers a file whose writer closed it. An empty one is left to the settle time: some servers create a file, close
    /// it, and open it again for the content.
    fn offer_closed(&mut self, path: &Path) {
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        let left = self.left.get(path) == Some(&Identity::of(&metadata));
        if metadata.is_file() && metadata.size() > 0 && !left {
            self.offer(path);
        }
    }

    fn offer(&mut self, path: &Path) {
        self.waiting.remove(path);
        self.left.remove(path);
        if self.is_ready.insert(path.to_owned()) {
            self.ready.push_back(path.to_owned());
        }
    }

    fn withdraw(&mut self, path: &Path) {
        if self.is_ready.remove(path) {
            self.ready.retain(|ready| ready != path);
        }
    }

    /// Looks at the whole folder: offers what has stopped changing, oldest first.
    fn scan(&mut self) -> Result<(), SourceError> {
        let now = Instant::now();
        let cannot_list = || failed("cannot list", self.incoming.display());
        let mut seen = HashSet::new();
        let mut settled = Vec::new();
        for entry in fs::read_dir(&self.incoming).map_err(cannot_list())? {
            let entry = entry.map_err(cannot_list())?;
            let path = entry.path();
            // Gone since it was listed: nothing to do.
            let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
            seen.insert(path.clone());
            if !metadata.is_file() {
                if self.mentioned.insert(path.clone()) {
                    log::warn!("{}: only plain files are taken, this stays where it is", self.key.tag(&path));
                }
                continue;
            }
            let identity = Identity::of(&metadata);
            if !may_be_taken(&path) || self.is_ready.contains(&path) || self.left.get(&path) == Some(&identity) {
                continue;
            }
            let waiting = self.waiting.entry(path.clone()).or_insert(Waiting { identity, since: now });
            if waiting.identity != identity {
                *waiting = Waiting { identity, since: now };
            }
            if now.duration_since(waiting.since) >= self.settle && !self.being_written.contains(&path) {
                settled.push((identity.modified, path));
            }
        }
        self.waiting.retain(|path, _| seen.contains(path));
        self.being_written.retain(|path| seen.contains(path));
        self.left.retain(|path, _| seen.contains(path));
        self.mentioned.retain(|path| seen.contains(path));
        settled.sort();
        for (_, path) in settled {
            self.offer(&path);
        }
        Ok(())
    }
}

/// The watcher's error without the paths that its own words name.
fn words(error: &notify::Error) -> String {
    match &error.kind {
        notify::ErrorKind::Io(error) => error.to_string(),
        notify::ErrorKind::MaxFilesWatch => "the system's limit of watched files is reached".into(),
        _ => "the system gives no events here".into(),
    }
}

fn is_empty(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.size() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn events_that_nobody_asks_for_are_not_kept_without_end_and_no_file_is_lost_by_that() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { incoming: folder.path().to_owned(), settle_ms: 100, poll_ms: 50 };
        let mut arrivals = Arrivals::watch(&config, Key::from_bytes([7; 32])).unwrap();
        let paths = ["a.png", "b.png"].map(|name| fs::canonicalize(folder.path()).unwrap().join(name));
        let mut files = paths.clone().map(|path| fs::File::create(path).unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !arrivals.overflowed.load(Ordering::Relaxed) {
            assert!(Instant::now() < deadline, "the events pile up");
            // In turns: the system makes one event of several that are the same.
            for file in &mut files {
                file.write_all(b"1").unwrap();
            }
        }
        // Their closes are among the events that nobody keeps.
        drop(files);
        let mut found = Vec::new();
        while found.len() < 2 {
            assert!(Instant::now() < deadline, "{found:?}");
            found.extend(arrivals.next(Instant::now() + Duration::from_millis(100), |_| false).unwrap());
        }
        found.sort();
        assert_eq!(found, paths);
    }
}
