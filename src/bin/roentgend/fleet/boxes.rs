//! The simulated boxes: a connection each, all in one thread, which has nothing else to do.

use super::sample;
use anyhow::Context;
use rumqttc::{AsyncClient, ClientError, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::LocalSet;
use tokio::time::{sleep, sleep_until};

/// How many reports of a box may be on their way.
const WINDOW: usize = 64;

/// How long the boxes take to connect, one after the other, so that the broker is not asked by all at once.
const ARRIVAL: Duration = Duration::from_millis(2);

/// How often a box publishes telemetry.
const TELEMETRY: Duration = Duration::from_secs(60);

/// How long to wait at the end for acknowledgements.
const FAREWELL: Duration = Duration::from_secs(20);

/// The pause before a lost connection is made again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is to be simulated.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) prefix: String,
    pub(super) credentials: Option<(String, String)>,
    pub(super) boxes: u32,
    /// The time between two reports of a box.
    pub(super) every: Duration,
    pub(super) lasting: Duration,
    /// Whether what is retained stays.
    pub(super) keep: bool,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    pub(super) unacknowledged: u64,
    pub(super) reconnections: u64,
    /// Milliseconds from the moment at which a report was due to its acknowledgement.
    pub(super) latencies: Vec<f32>,
    /// Bytes of one report.
    pub(super) payload_bytes: usize,
    /// From the first report to the last acknowledgement.
    pub(super) took: Duration,
}

/// What a box's two halves share: who publishes, and who hears the broker.
#[derive(Default)]
struct Shared {
    /// When what was handed to the client was due; none: it is no report.
    queued: VecDeque<Option<Instant>>,
    in_flight: HashMap<u16, Option<Instant>>,
    published: u64,
    acknowledged: u64,
    reconnections: u64,
    connected: bool,
    latencies: Vec<f32>,
    last: Option<Instant>,
}

impl Shared {
    fn waiting(&self) -> usize {
        self.queued.len() + self.in_flight.len()
    }
}

/// Simulates them all, to the end.
pub(super) fn run(plan: &Plan) -> anyhow::Result<Fleet> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let telemetry = sample::telemetry();
    runtime.block_on(LocalSet::new().run_until(async {
        // All have arrived by then.
        let start = Instant::now() + ARRIVAL * plan.boxes + Duration::from_secs(1);
        let mut boxes = Vec::new();
        for number in 0..plan.boxes {
            let mut telemetry = telemetry.clone();
            telemetry.device = sample::device(number);
            let said = serde_json::to_string(&telemetry).context("telemetry")?;
            boxes.push(tokio::task::spawn_local(simulate(plan.clone(), number, said, start)));
            sleep(ARRIVAL).await;
        }
        let mut fleet = Fleet { payload_bytes: payload(0, 1).len(), ..Fleet::default() };
        let mut last = start;
        for one in boxes {
            let shared = one.await.context("a simulated box ended")?;
            let shared = shared.borrow();
            fleet.published += shared.published;
            fleet.acknowledged += shared.acknowledged;
            fleet.unacknowledged += shared.published - shared.acknowledged;
            fleet.reconnections += shared.reconnections;
            fleet.latencies.extend(&shared.latencies);
            last = last.max(shared.last.unwrap_or(start));
        }
        fleet.took = last.saturating_duration_since(start).max(Duration::from_millis(1));
        Ok(fleet)
    }))
}

fn payload(number: u32, sequence: u64) -> Vec<u8> {
    // A plain struct of numbers and text, which is always JSON.
    serde_json::to_vec(&sample::report(number, sequence)).unwrap_or_default()
}

/// One box.
async fn simulate(plan: Plan, number: u32, telemetry: String, start: Instant) -> Rc<RefCell<Shared>> {
    let device = sample::device(number);
    let topic = |leaf: &str| format!("{}/{device}/{leaf}", plan.prefix);
    let mut options = MqttOptions::new(format!("roentgen-{device}"), &plan.host, plan.port);
    options.set_keep_alive(Duration::from_secs(30)).set_inflight(WINDOW as u16);
    let will = LastWill::new(topic("status"), sample::status(number, "offline"), QoS::AtLeastOnce, true);
    options.set_last_will(will).set_clean_session(true);
    if let Some((user, password)) = &plan.credentials {
        options.set_credentials(user, password);
    }
    let (client, events) = AsyncClient::new(options, WINDOW + 8);
    let shared = Rc::new(RefCell::new(Shared::default()));
    let hearing = tokio::task::spawn_local(hear(events, Rc::clone(&shared)));
    let retained = |leaf: &str, payload: String| {
        let handed = client.try_publish(topic(leaf), QoS::AtLeastOnce, true, payload);
        note(&shared, handed, None);
    };
    retained("status", sample::status(number, "online"));

    // Spread over the interval: boxes do not work in step.
    let mut due = start + plan.every.mul_f64(f64::from(number) / f64::from(plan.boxes));
    let end = start + plan.lasting;
    let mut telemetry_at = due;
    let report_topic = topic("report");
    let mut sequence = 0;
    while due < end {
        sleep_until(due.into()).await;
        if due >= telemetry_at {
            retained("telemetry", telemetry.clone());
            telemetry_at += TELEMETRY;
        }
        sequence += 1;
        let payload = payload(number, sequence);
        let handed = client.publish(&report_topic, QoS::AtLeastOnce, false, payload).await;
        note(&shared, handed, Some(due));
        due += plan.every;
    }
    if !plan.keep {
        retained("status", String::new());
        retained("telemetry", String::new());
    }
    let patience = Instant::now() + FAREWELL;
    while shared.borrow().waiting() > 0 && Instant::now() < patience {
        sleep(Duration::from_millis(20)).await;
    }
    // A graceful goodbye: the broker sends no will.
    let _ = client.try_disconnect();
    sleep(Duration::from_millis(50)).await;
    hearing.abort();
    shared
}

/// Notes what was handed to the client.
fn note(shared: &RefCell<Shared>, handed: Result<(), ClientError>, due: Option<Instant>) {
    let mut shared = shared.borrow_mut();
    shared.published += u64::from(due.is_some());
    if handed.is_ok() {
        shared.queued.push_back(due);
    }
}

/// Hears the broker's answers. After a lost connection the client library sends again what was not answered.
async fn hear(mut events: EventLoop, shared: Rc<RefCell<Shared>>) {
    loop {
        match events.poll().await {
            Ok(Event::Outgoing(Outgoing::Publish(packet_id))) => {
                let mut shared = shared.borrow_mut();
                // What is sent again is known by its identifier already.
                if !shared.in_flight.contains_key(&packet_id)
                    && let Some(due) = shared.queued.pop_front()
                {
                    shared.in_flight.insert(packet_id, due);
                }
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                let mut shared = shared.borrow_mut();
                if let Some(Some(due)) = shared.in_flight.remove(&ack.pkid) {
                    let now = Instant::now();
                    shared.acknowledged += 1;
                    shared.latencies.push(now.saturating_duration_since(due).as_secs_f32() * 1000.0);
                    shared.last = Some(now);
                }
            }
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let mut shared = shared.borrow_mut();
                let again = std::mem::replace(&mut shared.connected, true);
                shared.reconnections += u64::from(again);
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Half, nine in ten, ninety-nine in a hundred, and all of them, by nearest rank; 0 of none.
pub(super) fn quantiles(latencies: &[f32]) -> [f32; 4] {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(f32::total_cmp);
    [0.5, 0.9, 0.99, 1.0].map(|quantile: f64| {
        let rank = (quantile * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_times_that_there_were() {
        let times: Vec<f32> = (1..=200).rev().map(|i| i as f32).collect();
        assert_eq!(quantiles(&times), [100.0, 180.0, 198.0, 200.0]);
        assert_eq!(quantiles(&[3.0]), [3.0; 4]);
        assert_eq!(quantiles(&[]), [0.0; 4]);
    }
}
