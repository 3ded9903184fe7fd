//! Server-sent events: who has the dashboard open hears of new reports, of what the broker acknowledged, and how the box
//! is, as it happens. Nothing is asked of the disk while nobody listens or nothing happens.
//!
//! Listeners are few, and each has a short queue: one that does not read is cut off, and comes again.
//!
//! | event | data |
//! |---|---|
//! | `report` | a report as `/api/reports` has it |
//! | `reports` | there were too many at once: read `/api/reports` |
//! | `sent` | `{"up_to"}`: nothing up to this sequence waits for the broker |
//! | `health` | the telemetry |

use super::api;
use super::{Exchange, Site};
use crate::outbox::OutboxError;
use crate::outbox::history::{Filter, History};
use crate::status::{Roots, Telemetry};
use hyper::body::Bytes;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::Instant;

/// Most listeners.
pub(super) const MOST: usize = 12;
/// How long one may listen before it must come again.
pub(super) const LIFE: Duration = Duration::from_secs(3600);
/// Events that wait for one listener at most.
const QUEUE: usize = 64;
/// Reports that are told one by one; of more at once only the fact is told.
const BURST: usize = 32;
/// Reports that are told to who has just come.
const FIRST: u64 = 8;
/// How often is looked how the box is.
const TICK: Duration = Duration::from_secs(1);
/// How often it is told, changed or not: it also keeps proxies from hanging up.
const AGAIN: Duration = Duration::from_secs(5);
/// The pause before the disk is looked at: most brokers acknowledge a report within it, so that it is told once.
const GRACE: Duration = Duration::from_millis(50);
/// The pause after it, however much happens.
const BREATH: Duration = Duration::from_millis(50);

/// Who listens.
#[derive(Default)]
pub(super) struct Hub {
    listeners: Mutex<Vec<Listener>>,
    joined: Notify,
    /// How many have ever come.
    comers: AtomicU64,
}

struct Listener {
    queue: mpsc::Sender<Bytes>,
    exchange: Arc<Exchange>,
}

impl Hub {
    /// Another listener, unless there are enough.
    pub(super) fn join(&self, exchange: &Arc<Exchange>) -> Option<mpsc::Receiver<Bytes>> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.queue.is_closed());
        if listeners.len() >= MOST {
            return None;
        }
        let (queue, events) = mpsc::channel(QUEUE);
        exchange.extend(LIFE);
        // After how many milliseconds a browser comes again. The queue is empty: it fits.
        let _ = queue.try_send(Bytes::from_static(b"retry: 1000\n\n"));
        self.comers.fetch_add(1, Ordering::Relaxed);
        listeners.push(Listener { queue, exchange: Arc::clone(exchange) });
        self.joined.notify_one();
        Some(events)
    }

    /// How many there are.
    fn len(&self) -> usize {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.queue.is_closed());
        listeners.len()
    }

    /// Tells them all. Who has not read for a whole queue is cut off.
    fn tell(&self, event: &str, data: &str) {
        // JSON on one line holds no line break.
        let text = Bytes::from(format!("event: {event}\ndata: {data}\n\n"));
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| match listener.queue.try_send(text.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                listener.exchange.end.notify_one();
                false
            }
        });
    }
}

/// What was told last.
#[derive(Default)]
struct Told {
    /// The last report's sequence, once one was looked for.
    last: Option<u64>,
    sent_up_to: u64,
    /// How the box was, without what changes all the time; and when that was told.
    health: Option<(Value, Instant)>,
    /// How many had come by then.
    comers: u64,
}

/// What is new in the outbox.
struct News {
    reports: Vec<String>,
    too_many: bool,
    last: u64,
    sent_up_to: u64,
}

/// Tells whoever listens, for as long as the server runs.
pub(super) async fn tell(site: Arc<Site>) {
    let mut news = site.status.news();
    let mut told = Told::default();
    // The disk was to be looked at and could not be.
    let mut is_due = false;
    loop {
        let listeners = site.hub.len();
        if listeners == 0 {
            // Who comes reads the list first: what happens meanwhile is in there.
            told = Told::default();
            site.hub.joined.notified().await;
            news.mark_unchanged();
            is_due = true;
        } else {
            tokio::select! {
                changed = news.changed() => match changed {
                    Ok(()) => is_due = true,
                    // The status lives as long as the site.
                    Err(_) => return,
                },
                () = site.hub.joined.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        health(&site, &mut told);
        if is_due {
            tokio::time::sleep(GRACE).await;
            news.mark_unchanged();
            let (outbox, gallery, last) = (site.settings.outbox.clone(), site.gallery(), told.last);
            let read = tokio::task::spawn_blocking(move || look(&outbox, gallery.as_deref(), last)).await;
            match read {
                Ok(Ok(news)) => {
                    is_due = false;
                    spread(&site.hub, &mut told, &news);
                }
                Ok(Err(error)) => log::debug!("web: {error}"),
                // A panic was printed when it happened.
                Err(error) => log::debug!("web: {error}"),
            }
            tokio::time::sleep(BREATH).await;
        }
    }
}

fn spread(hub: &Hub, told: &mut Told, news: &News) {
    if news.too_many {
        hub.tell("reports", "{}");
    }
    for report in &news.reports {
        hub.tell("report", report);
    }
    if news.sent_up_to != told.sent_up_to {
        told.sent_up_to = news.sent_up_to;
        hub.tell("sent", &format!("{{\"up_to\":{}}}", news.sent_up_to));
    }
    told.last = Some(news.last);
}

/// Reads what came after a sequence; at first only the newest few, since who listens may have read the list just before them.
fn look(outbox: &Path, gallery: Option<&Path>, last: Option<u64>) -> Result<News, OutboxError> {
    let history = History::open(outbox)?;
    let sent_up_to = history.sent_up_to()?;
    let limit = Some(if last.is_some() { BURST as u64 + 1 } else { FIRST });
    let (mut reports, mut newest) = (Vec::new(), last.unwrap_or(0));
    history.visit(&Filter { after: last, limit, ..Filter::default() }, &mut |entry| {
        newest = entry.sequence;
        reports.extend(api::entry(&entry, gallery).map(|entry| entry.to_string()));
        true
    })?;
    let too_many = reports.len() > BURST;
    if too_many {
        reports.clear();
    }
    Ok(News { reports, too_many, last: newest, sent_up_to })
}

/// Tells how the box is, where that changed, where somebody new listens, and now and then.
fn health(site: &Site, told: &mut Told) {
    let telemetry = site.status.telemetry(&Roots::default());
    let now = matters(&telemetry);
    let comers = site.hub.comers.load(Ordering::Relaxed);
    let is_news = told.health.as_ref().is_none_or(|(before, at)| *before != now || at.elapsed() >= AGAIN);
    if !is_news && comers == told.comers {
        return;
    }
    told.comers = comers;
    // A plain struct of numbers and text, which is always JSON.
    if let Ok(json) = serde_json::to_string(&telemetry) {
        site.hub.tell("health", &json);
        told.health = Some((now, Instant::now()));
    }
}

/// What is worth telling at once.
fn matters(telemetry: &Telemetry) -> Value {
    serde_json::json!({
        "health": telemetry.health,
        "broker": telemetry.broker.connected,
        "intake": telemetry.intake.open,
        "queue": telemetry.queue.unsent,
        "incoming": telemetry.queue.incoming,
        "model": telemetry.engine.as_ref().map(|engine| &engine.model.sha256),
        "rejected": telemetry.counts.rejected,
        "repeated": telemetry.counts.repeated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_few_and_a_slow_one_is_cut_off() {
        let hub = Hub::default();
        let mut all: Vec<_> = (0..MOST).map(|_| hub.join(&Arc::default()).unwrap()).collect();
        assert!(hub.join(&Arc::default()).is_none());
        drop(all.pop());
        let exchange = Arc::default();
        let mut slow = hub.join(&exchange).unwrap();
        for listener in all.iter_mut().chain([&mut slow]) {
            assert_eq!(listener.try_recv().unwrap(), "retry: 1000\n\n".as_bytes());
        }
        assert_eq!(exchange.life(), LIFE);
        for number in 0..QUEUE + 1 {
            hub.tell("report", "{}");
            // The others read.
            for listener in &mut all {
                let event = listener.try_recv().unwrap();
                assert_eq!(event, "event: report\ndata: {}\n\n".as_bytes(), "{number}");
            }
        }
        assert_eq!(hub.len(), MOST - 1);
        let mut waiting = 0;
        while slow.try_recv().is_ok() {
            waiting += 1;
        }
        assert_eq!(waiting, QUEUE, "what was queued is still there, and then it ends");
        assert!(slow.is_closed());
    }
}
