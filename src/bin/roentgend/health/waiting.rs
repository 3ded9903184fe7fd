//! Which bundle of `bundles/incoming` could be asked for, where none is taken by itself: told, so that a dashboard can offer
//! it. Not its installation.

use roentgen::bundle::{Inbox, Promised, peek};
use roentgen::config::Config;
use roentgen::status::{Status, UpdateWaiting};
use semver::Version;
use std::time::{Duration, Instant};

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What was seen there.
#[derive(Default)]
pub(super) struct Waiting {
    looked: Option<Instant>,
    /// What was complete, by name; what changes under its name is not complete for a while.
    seen: Option<Vec<String>>,
}

impl Waiting {
    /// Tells of the latest that a trusted key signed and that the box does not run.
    pub(super) fn round(&mut self, inbox: &mut Inbox, config: &Config, status: &Status, now: Instant) {
        if config.updates.automatic {
            self.seen = None;
            return status.update_waiting(None);
        }
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let Ok(names) = inbox.complete(now) else { return };
        if self.seen.as_ref() == Some(&names) {
            return;
        }
        let runs = status.setup().map(|setup| setup.model.sha256);
        let trust = config.bundles.trust().ok();
        let promised = names.iter().filter_map(|name| Some((name, peek(&inbox.path(name), trust.as_ref()?)?)));
        let others = promised.filter(|(_, promised)| runs.as_ref() != Some(&promised.sha256));
        let latest = others.max_by_key(|(_, promised)| Version::parse(&promised.version).ok());
        status.update_waiting(latest.map(|(file, Promised { name, version, .. })| UpdateWaiting {
            file: file.clone(),
            name,
            version,
        }));
        self.seen = Some(names);
    }
}
