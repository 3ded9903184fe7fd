//! Keeps the box's own pages where the configuration wants them. A port that somebody else has, or a token that cannot be
//! read, is no reason to stop: it is tried again.

use roentgen::config::{self, Config};
use roentgen::gallery;
use roentgen::named_file;
use roentgen::source::folder;
use roentgen::status::Status;
use roentgen::web::{Server, Settings, Token};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The pause before an address is tried again, and how often is looked whether the token's file is another.
const RETRY: Duration = Duration::from_secs(10);

/// What the server is made by: with another it is another server.
#[derive(Clone, PartialEq)]
struct Wanted {
    web: config::Web,
    outbox: PathBuf,
    folder: folder::Config,
    max_file_bytes: u64,
    min_free_bytes: u64,
    gallery: PathBuf,
}

impl Wanted {
    fn of(config: &Config) -> Self {
        Self {
            web: config.web.clone(),
            outbox: config.outbox(),
            folder: config.source.folder.clone(),
            max_file_bytes: config.limits.max_file_bytes,
            min_free_bytes: config.reserve.min_free_bytes,
            gallery: gallery::folder(&config.state_dir),
        }
    }
}

/// The server, if there is one.
#[derive(Default)]
pub(super) struct Web {
    wanted: Option<Wanted>,
    server: Option<Server>,
    /// The token's file as the server has read it.
    stamp: Option<Stamp>,
    look_at: Option<Instant>,
    /// Whether it was said why there is none.
    is_said: bool,
}

/// What tells a file from the one that takes its place.
type Stamp = (u64, i64, i64);

impl Web {
    /// Does what the configuration says.
    pub(super) fn follow(&mut self, config: &Config, status: &Status, now: Instant) {
        // It was checked when it was read.
        let address = config.web.address().unwrap_or_default();
        let wanted = address.map(|_| Wanted::of(config));
        if wanted != self.wanted {
            *self = Self { wanted: wanted.clone(), ..Self::default() };
        }
        let (Some(address), Some(wanted)) = (address, wanted) else { return };
        if self.look_at.is_some_and(|at| now < at) {
            return;
        }
        self.look_at = Some(now + RETRY);
        let found = stamp(&wanted.web);
        if self.server.is_some() && found == self.stamp {
            return;
        }
        // The old one first: both are for the same port.
        (self.server, self.stamp) = (None, found);
        match start(address, wanted, status) {
            Ok(server) => (self.server, self.is_said) = (Some(server), false),
            Err(error) if !self.is_said => {
                log::error!("{error}; trying again until it can be had");
                self.is_said = true;
            }
            Err(_) => {}
        }
    }
}

fn stamp(web: &config::Web) -> Option<Stamp> {
    let path = named_file::locate("web.token", web.token.as_deref()?).ok()?;
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec()))
}

fn start(address: SocketAddr, wanted: Wanted, status: &Status) -> Result<Server, String> {
    let Wanted { web, outbox, folder, max_file_bytes, min_free_bytes, gallery } = wanted;
    let token = web.token.as_deref().map(Token::read).transpose().map_err(|error| error.to_string())?;
    let settings = Settings { web, token, outbox, folder, max_file_bytes, min_free_bytes, gallery };
    Server::start(address, settings, status.clone()).map_err(|error| format!("web.listen = \"{address}\": {error}"))
}
