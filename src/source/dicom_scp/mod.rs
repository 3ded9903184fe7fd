//! The DICOM network: a storage provider (C-STORE, C-ECHO) that modalities and PACS send to. Each instance becomes a file of
//! the spool, and the sender hears of success only when that is on the disk; the rest is as with a dropped file. Asks
//! nobody for anything, and sends nothing back but answers.
//!
//! Who may send, and from where, stands in the configuration; a stranger is rejected with the reason that the standard has
//! for it. What may be sent: [`negotiate`]. All that comes is bounded: connections and associations in number, PDUs and
//! instances in size, each of them in time, so that one that is silent, or sends a byte a second, is broken off.
//!
//! | status | when |
//! |---|---|
//! | `0000` | the instance is on the disk; also one that came before: it is stored again, and not reported twice |
//! | `A700` | the disk's reserve is reached, or the disk is full: said of every instance before anything of it is written |
//! | `0110` | the box cannot write it for another reason |
//! | `A900` | the data set is of another SOP class or instance than the command says |
//! | `C000` | there is no data set, or none that names its class and instance |
//! | `C001` | it is larger than `limits.max_file_bytes` |
//! | `0122` | the command's SOP class is not that of its presentation context |
//! | `0211` | an operation that is not served |
//!
//! **No storage commitment.** A modality that was told that an instance is committed may delete its own. This box keeps an
//! image for as long as it takes to report on it, and no longer: to promise more would be a lie that loses images.
//!
//! **What is the same instance.** An instance that comes again with the same bytes, as from a sender that did not hear the
//! answer, has one report: reports are identified by content. One that comes in another transfer syntax, or with another
//! data set, is judged on its own; both reports then carry the same pseudonym of the instance.
//!
//! A UID never becomes a path, nor is it logged. The calling title is, of who is rejected: it is what a technician must know.

mod association;
mod command;
mod config;
mod counts;
mod listener;
mod negotiate;
mod peek;
mod peers;
mod store;
mod tls;
mod wire;

pub use config::Config;
pub use counts::{Seen, Watch};
pub use wire::Connection;

use super::spool::Spool;
use crate::named_file::FileError;
use listener::Warned;
use peers::Peers;
use rustls::ServerConfig;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long an instance that is coming in may take after the wish to stop; what waits between two is broken off at once.
const GRACE: Duration = Duration::from_secs(5);

/// The provider cannot be made from this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ScpError {
    /// A value is unusable.
    #[error("{0}")]
    Value(String),
    /// A file that the configuration names is.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What serves connections: the configuration, checked, with its certificates read.
pub struct Provider {
    config: Config,
    address: SocketAddr,
    peers: Peers,
    tls: Option<Arc<ServerConfig>>,
    spool: Spool,
    /// Most bytes of one instance.
    max_file_bytes: u64,
    watch: Watch,
    warned: Warned,
}

impl Provider {
    /// Checks the configuration and reads its files; opens no socket.
    pub fn prepare(config: &Config, spool: Spool, max_file_bytes: u64, watch: Watch) -> Result<Self, ScpError> {
        config.validate().map_err(ScpError::Value)?;
        Ok(Self {
            address: config.address().map_err(ScpError::Value)?,
            peers: config.peers().map_err(ScpError::Value)?,
            tls: tls::server_config(config)?,
            config: config.clone(),
            spool,
            max_file_bytes,
            watch,
            warned: Warned::default(),
        })
    }

    /// Serves one connection to its end. Never panics, whatever comes.
    pub fn serve<S: Connection>(&self, stream: S, from: IpAddr, stop: &Stop) {
        association::serve(self, stream, from, stop);
    }

    /// Listens from now on, or as soon as the port can be had.
    pub fn start(self) -> io::Result<Scp> {
        let stop = Arc::new(Stop::default());
        let (provider, shared) = (Arc::new(self), Arc::clone(&stop));
        let listen = move || listener::listen(&provider, provider.address, &shared);
        let thread = thread::Builder::new().name("dicom-listen".into()).spawn(listen)?;
        Ok(Scp { stop, thread: Some(thread) })
    }

    /// Says something about an address, not too often.
    fn warn(&self, from: IpAddr, what: impl FnOnce() -> String) {
        if self.warned.is_due(from) {
            log::warn!("DICOM: {from}: {}", what());
        }
    }
}

/// A provider that listens. Dropping it takes no new association, gives those at hand a short grace, and frees the port.
pub struct Scp {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Scp {
    fn drop(&mut self) {
        self.stop.ask();
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Scp {
    /// Takes no new association from now on, and lets those at hand come to an end.
    pub fn ask_to_stop(&self) {
        self.stop.ask();
    }
}

/// The wish that connections come to an end.
#[derive(Debug, Default)]
pub struct Stop(OnceLock<Instant>);

impl Stop {
    /// Asks for it.
    pub fn ask(&self) {
        // The first wish counts.
        let _ = self.0.set(Instant::now());
    }

    /// Whether it was asked for: nothing new is begun.
    fn is_asked(&self) -> bool {
        self.0.get().is_some()
    }

    /// Whether the grace is over as well.
    fn is_over(&self) -> bool {
        self.0.get().is_some_and(|asked| asked.elapsed() >= GRACE)
    }
}
