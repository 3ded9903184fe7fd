//! The witness: a subscriber with a session of its own at the broker, who hears every report and keeps what he heard,
//! byte for byte, in order. He does not know what to expect.

use crate::support::PATIENCE;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A report as it came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) id: String,
    pub(crate) sequence: u64,
    pub(crate) payload: String,
}

impl Heard {
    /// Its JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_default()
    }
}

/// The witness.
#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Shared>);

#[derive(Default)]
struct Shared {
    heard: Mutex<Vec<Heard>>,
    ids: Mutex<HashSet<String>>,
    /// How often the broker has acknowledged the subscription.
    subscribed: AtomicUsize,
}

impl Witness {
    /// Begins to listen, for as long as the test's process runs.
    pub(super) fn listen(port: u16, topic: &'static str) -> Self {
        let witness = Self::default();
        let own = witness.clone();
        let mut options = MqttOptions::new("witness", "127.0.0.1", port);
        options.set_clean_session(false).set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 8);
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        // Fails only with a full channel, and this is all that goes through it.
                        client.try_subscribe(topic, QoS::AtLeastOnce).expect("room in the channel");
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(own.0.subscribed.fetch_add(1, Ordering::SeqCst)),
                    Ok(Event::Incoming(Packet::Publish(publish))) => own.hear(&publish.payload),
                    Ok(_) => {}
                    Err(_) => thread::sleep(Duration::from_millis(50)),
                }
            }
        });
        witness.wait_for_subscription(0);
        witness
    }

    fn hear(&self, payload: &[u8]) {
        let payload = String::from_utf8_lossy(payload).into_owned();
        let json: Value = serde_json::from_str(&payload).unwrap_or_default();
        let id = json["report_id"].as_str().unwrap_or("(a report that is no JSON, or has no id)").to_owned();
        let sequence = json["sequence"].as_u64().unwrap_or(0);
        self.0.ids.lock().expect("no panic").insert(id.clone());
        self.0.heard.lock().expect("no panic").push(Heard { id, sequence, payload });
    }

    /// How often the broker has acknowledged the subscription: once for each connection.
    pub(super) fn subscriptions(&self) -> usize {
        self.0.subscribed.load(Ordering::SeqCst)
    }

    /// Waits until it did so once more than `before`.
    pub(super) fn wait_for_subscription(&self, before: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.subscriptions() <= before {
            assert!(Instant::now() < deadline, "the broker does not acknowledge the witness's subscription");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many different reports came.
    pub(crate) fn different(&self) -> usize {
        self.0.ids.lock().expect("no panic").len()
    }

    /// Everything that came, in order.
    pub(super) fn heard(&self) -> Vec<Heard> {
        self.0.heard.lock().expect("no panic").clone()
    }
}
