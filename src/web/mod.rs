//! The box's own pages: `/metrics` for Prometheus and `/healthz` for whoever watches over it. Reads [`Status`], changes
//! nothing, and knows no password: the configuration keeps it on loopback unless told otherwise.
//!
//! One thread with a runtime of its own, so that no page ever waits for an image, nor an image for a page. Bounded in every
//! direction: [`MOST`] connections at a time (one more is closed at once), [`HEAD`] bytes and [`PATIENCE`] for a request's
//! head, no body, [`LIFE`] for a whole exchange.

mod metrics;
mod pages;

pub use metrics::{CONTENT_TYPE, render};

use crate::status::{Roots, Status};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Most connections at a time.
pub const MOST: usize = 16;
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

/// The running server. Dropping it ends it.
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens and starts to answer.
    pub fn start(address: SocketAddr, status: Status) -> io::Result<Self> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(());
        let thread = std::thread::Builder::new().name("web".into()).spawn(move || {
            let served = runtime.block_on(async { serve(TcpListener::from_std(listener)?, status, stopped).await });
            if let Err(error) = served {
                log::error!("http://{address}: {error}; nothing listens there any more");
            }
        })?;
        log::info!("http://{address}/metrics and /healthz answer");
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
async fn serve(listener: TcpListener, status: Status, mut stopped: watch::Receiver<()>) -> io::Result<()> {
    let open = Arc::new(AtomicUsize::new(0));
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
                let (status, open) = (status.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    answer(stream, status).await;
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
async fn answer(stream: TcpStream, status: Status) {
    let service = service_fn(move |request| {
        let answer = pages::answer(&request, &status, &Roots::default());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LIFE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("web: {error}"),
        Err(_) => log::debug!("web: a client took too long"),
    }
}
