//! The socket: bound, and bound again as long as that fails, and a thread for each connection. Not what is said on it.

use super::tls::Encrypted;
use super::wire::is_patience;
use super::{Provider, Stop};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(250);

/// The pauses between two attempts to bind a port that is taken: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// Connections beyond the associations, so that who is one too many is told so, and who may not call as well.
const SPARE: usize = 8;

/// Connections of addresses from which nobody may call.
const STRANGERS: usize = 4;

/// How many warnings one address gets in which time: a technician who tries it out sees each answer, and who tries for ever
/// does not fill the log.
const WARNINGS: u32 = 5;
const QUIET: Duration = Duration::from_secs(60);

/// Addresses whose warnings are counted.
const MAX_ADDRESSES: usize = 256;

/// Listens until it is told to stop, and waits for the connections that it has accepted.
pub(super) fn listen(provider: &Arc<Provider>, address: SocketAddr, stop: &Arc<Stop>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    if let Some(listener) = bind(provider, address, stop) {
        let crowd = Arc::new(Crowd::default());
        while !stop.is_asked() {
            match listener.accept() {
                Ok((stream, from)) => {
                    threads.retain(|thread| !thread.is_finished());
                    threads.extend(admit(provider, stream, from.ip().to_canonical(), &crowd, stop));
                }
                Err(error) if is_patience(&error) || is_gone(&error) => {}
                Err(error) => {
                    // No descriptor is free, most of all.
                    provider.warn(address.ip(), || format!("no connection can be accepted: {error}"));
                    thread::sleep(LOOK);
                }
            }
        }
    }
    provider.watch.closed();
    // The socket is closed by now. Each of these sees the same wish, and has the grace to end what it is at.
    for thread in threads {
        // A panic in it was printed when it happened.
        let _ = thread.join();
    }
}

/// Whether who called has hung up before he was answered.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// Binds the port: now, or when who has it gives it back.
fn bind(provider: &Provider, address: SocketAddr, stop: &Stop) -> Option<TcpListener> {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        if stop.is_asked() {
            return None;
        }
        let bound = TcpListener::bind(address).and_then(|listener| {
            set_socket_timeout(&listener, Timeout::Recv, Some(LOOK))?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        let error = match bound {
            Ok((listener, address)) => {
                let title = &provider.config.ae_title;
                let tls = if provider.tls.is_some() { " with TLS" } else { "" };
                log::info!("DICOM: {title} listens on {address}{tls}");
                provider.watch.listening(Ok(address.to_string()));
                return Some(listener);
            }
            Err(error) => error,
        };
        let advice = match error.kind() {
            ErrorKind::AddrInUse => {
                "; another program has the port: end that one, or choose another in source.dicom.listen"
            }
            ErrorKind::AddrNotAvailable => "; the box has no such address (yet): see source.dicom.listen",
            ErrorKind::PermissionDenied => {
                "; ports below 1024 are not for this service: take 11112 in source.dicom.listen"
            }
            _ => "",
        };
        let told = format!("cannot listen on {address}: {error}{advice}");
        if told != said {
            log::warn!("DICOM: {told}; it is tried again");
            provider.watch.listening(Err(told.clone()));
            said = told;
        }
        let next = Instant::now() + pause;
        while Instant::now() < next && !stop.is_asked() {
            thread::sleep(LOOK);
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Who is connected.
#[derive(Default)]
struct Crowd {
    all: AtomicUsize,
    strangers: AtomicUsize,
}

/// One of the crowd, until it is dropped.
struct Guest(Arc<Crowd>, bool);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::Relaxed);
        self.0.strangers.fetch_sub(usize::from(self.1), Ordering::Relaxed);
    }
}

/// Gives a connection its thread; `None` where there are too many: it is closed without a word to it then.
fn admit(
    provider: &Arc<Provider>,
    stream: TcpStream,
    from: IpAddr,
    crowd: &Arc<Crowd>,
    stop: &Arc<Stop>,
) -> Option<JoinHandle<()>> {
    let is_stranger = !provider.peers.know_address(from);
    crowd.all.fetch_add(1, Ordering::Relaxed);
    crowd.strangers.fetch_add(usize::from(is_stranger), Ordering::Relaxed);
    let guest = Guest(Arc::clone(crowd), is_stranger);
    let is_full = crowd.all.load(Ordering::Relaxed) > provider.config.max_associations + SPARE
        || crowd.strangers.load(Ordering::Relaxed) > STRANGERS;
    if is_full {
        provider.watch.broken("crowd");
        provider.warn(from, || "closed at once, since too many are connected".into());
        return None;
    }
    let (provider, stop) = (Arc::clone(provider), Arc::clone(stop));
    let spawned = thread::Builder::new().name("dicom".into()).spawn({
        let provider = Arc::clone(&provider);
        move || {
            let _guest = guest;
            if let Err(error) = serve(&provider, stream, from, &stop) {
                provider.warn(from, || format!("the connection failed: {error}"));
            }
        }
    });
    spawned.inspect_err(|error| provider.warn(from, || format!("no thread for it: {error}"))).ok()
}

fn serve(provider: &Provider, stream: TcpStream, from: IpAddr, stop: &Stop) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(LOOK))?;
    stream.set_nodelay(true)?;
    match &provider.tls {
        Some(config) => provider.serve(Encrypted::new(config, stream).map_err(io::Error::other)?, from, stop),
        None => provider.serve(stream, from, stop),
    }
    Ok(())
}

/// How often which address was warned about, and since when that is counted.
#[derive(Debug, Default)]
pub(super) struct Warned(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Warned {
    /// Whether a warning about this address is due: a scanner, or a sender that tries for ever, must not fill the log.
    pub(super) fn is_due(&self, address: IpAddr) -> bool {
        self.is_due_at(address, Instant::now())
    }

    fn is_due_at(&self, address: IpAddr, now: Instant) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warned.retain(|_, (since, _)| now.saturating_duration_since(*since) < QUIET);
        if warned.len() >= MAX_ADDRESSES && !warned.contains_key(&address) {
            return false;
        }
        let (_, count) = warned.entry(address).or_insert((now, 0));
        *count = count.saturating_add(1);
        *count <= WARNINGS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_is_warned_about_a_few_times_a_minute_and_many_addresses_not_at_all() {
        let (warned, start) = (Warned::default(), Instant::now());
        let address = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        let due = |number, seconds| warned.is_due_at(address(number), start + Duration::from_secs(seconds));
        assert_eq!((0..10).filter(|second| due(1, *second)).count(), WARNINGS as usize);
        assert!(due(2, 10), "another one");
        assert!(!due(1, 59) && due(1, 60), "the next minute");
        assert!((3..1000).filter(|number| due(*number, 61)).count() < MAX_ADDRESSES);
        assert!(warned.0.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
