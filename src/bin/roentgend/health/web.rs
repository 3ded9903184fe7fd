//! Keeps the box's own pages where the configuration wants them. A port that somebody else has is no reason to stop: it
//! is tried again.

use roentgen::config;
use roentgen::status::Status;
use roentgen::web::Server;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The pause before an address is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// The server, if there is one.
#[derive(Default)]
pub(super) struct Web {
    /// What was asked for.
    wanted: Option<SocketAddr>,
    server: Option<Server>,
    retry_at: Option<Instant>,
}

impl Web {
    /// Does what the configuration says.
    pub(super) fn follow(&mut self, config: &config::Web, status: &Status, now: Instant) {
        // It was checked when it was read.
        let wanted = config.address().unwrap_or_default();
        if wanted != self.wanted {
            *self = Self { wanted, ..Self::default() };
        }
        let Some(address) = wanted else { return };
        if self.server.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        match Server::start(address, status.clone()) {
            Ok(server) => self.server = Some(server),
            Err(error) => {
                if self.retry_at.is_none() {
                    log::error!("web.listen = \"{address}\": {error}; trying again until it can be had");
                }
                self.retry_at = Some(now + RETRY);
            }
        }
    }
}
