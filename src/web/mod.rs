//! The box's own pages: the dashboard for people, `/metrics` for Prometheus and `/healthz` for whoever watches over it.
//! Reads [`Status`], the outbox's history and the bundle; changes nothing but what [`upload`] puts into the drop folder.
//!
//! One thread with a runtime of its own, so that no page ever waits for an image, nor an image for a page. Bounded in every
//! direction: [`MOST`] connections at a time (one more is closed at once), [`HEAD`] bytes and [`PATIENCE`] for a request's
//! head, [`LIFE`] for a whole exchange (more for uploads and for who listens to [`events`], who are few).
//!
//! ```text
//! /  /login  /assets/…             the dashboard                      pages, assets
//! /api/reports  /api/reports/ID    the outbox's history               api
//! /api/health  /api/about          how the box is; what it offers     api
//! /api/model  /model/…             the bundle's card and report       model
//! /api/events                      new reports and news of the box    events
//! /api/images/…  /api/evidence/…   what the gallery holds             pictures
//! /api/upload                      a radiograph for the drop folder   upload
//! /metrics  /healthz               for machines                       metrics
//! ```

mod api;
mod assets;
mod events;
mod guard;
mod metrics;
mod model;
mod pages;
mod pictures;
mod query;
mod reply;
mod upload;

pub use guard::Token;
pub use metrics::{CONTENT_TYPE, render};

use crate::config;
use crate::source::folder;
use crate::status::Status;
use events::Hub;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Most connections at a time.
pub const MOST: usize = 32;
/// How long a client may take for the head of its request.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long an exchange may take as a whole.
pub const LIFE: Duration = Duration::from_secs(15);
/// Most bytes of a request's head.
pub const HEAD: usize = 8 << 10;
/// Most header lines of a request.
const MAX_HEADERS: usize = 64;
/// The pause after the system could not accept a connection, e.g. for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// Threads that read the disk for pages.
const READERS: usize = 2;

/// What the server needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The section `[web]`.
    pub web: config::Web,
    /// What whoever sees the dashboard must know, where that is asked.
    pub token: Option<Token>,
    /// The outbox's database.
    pub outbox: PathBuf,
    /// The drop folder.
    pub folder: folder::Config,
    /// Most bytes of a file that is put there.
    pub max_file_bytes: u64,
    /// Bytes that must stay free on its disk.
    pub min_free_bytes: u64,
    /// Where copies of radiographs lie, if there are any.
    pub gallery: PathBuf,
}

/// What all answers share.
struct Site {
    address: SocketAddr,
    settings: Settings,
    status: Status,
    hub: Hub,
    model: model::Shelf,
    uploads: upload::Desk,
}

impl Site {
    /// Where copies of radiographs lie, where they are shown.
    fn gallery(&self) -> Option<PathBuf> {
        self.settings.web.images.then(|| self.settings.gallery.clone())
    }
}

/// One exchange, as its connection sees it.
struct Exchange {
    /// Seconds that it may take.
    life: AtomicU64,
    /// It is to end now.
    end: Notify,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { life: AtomicU64::new(LIFE.as_secs()), end: Notify::new() }
    }
}

impl Exchange {
    /// Lets it take longer than others.
    fn extend(&self, life: Duration) {
        self.life.store(life.as_secs(), Ordering::Relaxed);
    }

    fn life(&self) -> Duration {
        Duration::from_secs(self.life.load(Ordering::Relaxed))
    }
}

/// The running server. Dropping it ends it.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens and starts to answer.
    pub fn start(address: SocketAddr, settings: Settings, status: Status) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(READERS).build()?;
        let (stop, stopped) = watch::channel(());
        let (hub, model, uploads) = Default::default();
        let site = Arc::new(Site { address, settings, status, hub, model, uploads });
        let thread = std::thread::Builder::new().name("web".into()).spawn(move || {
            let served = runtime.block_on(async { serve(TcpListener::from_std(listener)?, site, stopped).await });
            if let Err(error) = served {
                log::error!("http://{address}: {error}; nothing listens there any more");
            }
            // What reads the disk for a page at this moment has nobody left to tell.
            runtime.shutdown_background();
        })?;
        log::info!("http://{address}/ shows the dashboard; /metrics and /healthz answer there");
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens: with the port that the system chose, where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only where the thread has ended already.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Accepts until it is told to stop. What is being answered then is cut off.
async fn serve(listener: TcpListener, site: Arc<Site>, mut stopped: watch::Receiver<()>) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
    tokio::spawn(events::tell(Arc::clone(&site)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return Ok(()),
        };
        match accepted {
            // Closed at once: whoever holds all the others is cut off soon.
            Ok(_) if open.load(Ordering::Relaxed) >= MOST => {}
            Ok((stream, _)) => {
                open.fetch_add(1, Ordering::Relaxed);
                let (site, open) = (Arc::clone(&site), Arc::clone(&open));
                tokio::spawn(async move {
                    answer(stream, site).await;
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
            // About one connection, or about the box's means at this moment.
            Err(error) => {
                log::debug!("web: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// One connection: one request, one answer.
async fn answer(stream: TcpStream, site: Arc<Site>) {
    let started = Instant::now();
    let exchange = Arc::new(Exchange::default());
    // A report is a few hundred bytes, and somebody waits for it.
    let _ = stream.set_nodelay(true);
    let within = Arc::clone(&exchange);
    let service = service_fn(move |request| {
        let (site, exchange) = (Arc::clone(&site), Arc::clone(&within));
        async move { Ok::<_, Infallible>(pages::answer(request, &site, &exchange).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        tokio::select! {
            done = &mut connection => {
                if let Err(error) = done {
                    log::debug!("web: {error}");
                }
                return;
            }
            () = exchange.end.notified() => return log::debug!("web: a listener was too slow"),
            () = tokio::time::sleep_until(started + exchange.life()) => {
                // It may have been given longer since.
                if started.elapsed() >= exchange.life() {
                    return log::debug!("web: a client took too long");
                }
            }
        }
    }
}
