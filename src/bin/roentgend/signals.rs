//! SIGTERM and SIGINT as a question that loops ask, a second one ends the process at once; SIGHUP as the wish to reload.

use anyhow::Context;
use roentgen::reload::Reload;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process was asked to stop.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Starts to listen.
    pub(crate) fn on_signals() -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and only raises it.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .context("cannot handle signals")?;
        }
        Ok(Self(stop))
    }

    /// Whether a signal came.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts to take SIGHUP as the wish to read the configuration again.
pub(crate) fn reload_on_hangup() -> anyhow::Result<Reload> {
    let reload = Reload::default();
    flag::register(SIGHUP, reload.flag()).context("cannot handle signals")?;
    Ok(reload)
}
