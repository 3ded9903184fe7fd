//! A bell that several folders ring and one thread listens to. Says that something came, not what.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// The bell; clones are the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    /// Rings; nobody need listen just then.
    pub(super) fn ring(&self) {
        let (rung, listener) = &*self.0;
        *rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        listener.notify_one();
    }

    /// Waits until it rings, or has rung since the last wait; at most until then.
    pub(super) fn wait(&self, until: Instant) {
        let (rung, listener) = &*self.0;
        let rung = rung.lock().unwrap_or_else(PoisonError::into_inner);
        let patience = until.saturating_duration_since(Instant::now());
        let (mut rung, _) =
            listener.wait_timeout_while(rung, patience, |rung| !*rung).unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_that_rang_before_is_heard_at_once_and_only_once() {
        let bell = Bell::default();
        bell.clone().ring();
        let start = Instant::now();
        bell.wait(start + Duration::from_secs(600));
        bell.wait(Instant::now() + Duration::from_millis(20));
        assert!((20..60_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        let other = bell.clone();
        let ringer = std::thread::spawn(move || other.ring());
        bell.wait(Instant::now() + Duration::from_secs(600));
        ringer.join().unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
