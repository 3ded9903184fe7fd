//! The one subscriber, in a thread of its own: it counts the reports that arrive, each once.

use super::boxes::Plan;
use anyhow::{Context, bail};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the broker may take to take the subscription.
const START: Duration = Duration::from_secs(20);

/// What of a report is looked at here.
#[derive(serde::Deserialize)]
struct Glance<'a> {
    #[serde(borrow)]
    device: &'a str,
    sequence: u64,
    #[serde(borrow)]
    received_at: &'a str,
}

/// What has arrived.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Reports, each once.
    pub(super) reports: u64,
    /// Those that came again.
    pub(super) repeated: u64,
    /// Milliseconds from the making of a report to its arrival, by this machine's clock.
    pub(super) latencies: Vec<f32>,
    seen: HashSet<u64>,
}

/// The subscriber. It ends with the process.
pub(super) struct Ear(Arc<Mutex<Heard>>);

impl Ear {
    /// Subscribes to the reports of all boxes below the prefix, and returns once the broker has it.
    pub(super) fn listen(plan: &Plan) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new(format!("roentgen-fleet-{}", std::process::id()), &plan.host, plan.port);
        options.set_max_packet_size(1 << 20, 1 << 20).set_keep_alive(Duration::from_secs(30));
        if let Some((user, password)) = &plan.credentials {
            options.set_credentials(user, password);
        }
        let (client, mut connection) = Client::new(options, 8);
        client.subscribe(format!("{}/+/report", plan.prefix), QoS::AtLeastOnce).context("cannot subscribe")?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (sink, (say, said)) = (Arc::clone(&heard), channel());
        std::thread::Builder::new().name("ear".into()).spawn(move || {
            // Held, so that the connection stays.
            let _client = client;
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(say.send(Ok(()))),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        sink.lock().unwrap_or_else(PoisonError::into_inner).note(&publish.payload);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        let _ = say.send(Err(error.to_string()));
                        return;
                    }
                }
            }
        })?;
        match said.recv_timeout(START) {
            Ok(Ok(())) => Ok(Self(heard)),
            Ok(Err(error)) => bail!("cannot subscribe: {error}"),
            Err(_) => bail!("the broker does not take a subscription to {}/+/report", plan.prefix),
        }
    }

    /// Waits until so many have arrived, or for that long.
    pub(super) fn wait_for(self, reports: u64, patience: Duration) -> Heard {
        let deadline = Instant::now() + patience;
        loop {
            {
                let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.reports >= reports || Instant::now() >= deadline {
                    return std::mem::take(&mut *heard);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Heard {
    fn note(&mut self, payload: &[u8]) {
        // Others may publish below the prefix too.
        let Ok(glance) = serde_json::from_slice::<Glance>(payload) else { return };
        if !glance.device.starts_with("simulated-") {
            return;
        }
        let mut hasher = DefaultHasher::new();
        (glance.device, glance.sequence).hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            self.repeated += 1;
            return;
        }
        self.reports += 1;
        if let Ok(made) = chrono::DateTime::parse_from_rfc3339(glance.received_at) {
            let since = chrono::Utc::now().signed_duration_since(made);
            self.latencies.push(since.num_microseconds().unwrap_or_default() as f32 / 1000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_report_counts_once_and_others_do_not() {
        let mut heard = Heard::default();
        for (number, sequence) in [(1, 1), (1, 2), (2, 1), (1, 1)] {
            heard.note(&serde_json::to_vec(&super::super::sample::report(number, sequence)).unwrap());
        }
        heard.note(br#"{"device": "box-1", "sequence": 1, "received_at": ""}"#);
        heard.note(b"");
        assert_eq!((heard.reports, heard.repeated, heard.latencies.len()), (3, 1, 3));
    }
}
