//! The daemon as tests start it: a folder with configuration, bundle and drop folder, a mosquitto, and a subscriber that
//! hears all of it. Not a test.

use super::{PATIENCE, Process, free_port, mosquitto, roentgend, start_mosquitto, tiny_bundle, user, wait_for};
use roentgen::report::Report;
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const REPORT: &str = "roentgen/box-t/report";
const STATUS: &str = "roentgen/box-t/status";

/// A folder with a bundle, a configuration, a drop folder and a broker's port.
pub(crate) struct Place {
    root: tempfile::TempDir,
    mosquitto: PathBuf,
    /// The broker's port.
    pub(crate) port: u16,
}

impl Place {
    pub(crate) fn new() -> Option<Self> {
        let mosquitto = mosquitto()?;
        let place = Self { root: tempfile::tempdir().unwrap(), mosquitto, port: free_port() };
        let bundle = tiny_bundle(place.root.path());
        place.configure(&bundle, "allow_unsigned = true");
        fs::create_dir(place.path("broker")).unwrap();
        fs::create_dir(place.path("incoming")).unwrap();
        let broker = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\npersistence true\npersistence_location {}/\nuser {}\n",
            place.port,
            place.path("broker").display(),
            user()
        );
        fs::write(place.path("mosquitto.conf"), broker).unwrap();
        Some(place)
    }

    /// Writes the configuration: which bundle, and the lines of the section `[bundles]`.
    pub(crate) fn configure(&self, bundle: &Path, bundles: &str) {
        let config = format!(
            "device = \"box-t\"\nbundle = {bundle:?}\nstate_dir = {:?}\n[bundles]\n{bundles}\n\
             [source.folder]\nincoming = {:?}\nsettle_ms = 500\npoll_ms = 100\n\
             [mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n",
            self.path("state"),
            self.path("incoming"),
            self.port
        );
        fs::write(self.path("roentgend.toml"), config).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Appends sections to the configuration.
    pub(crate) fn configure_more(&self, sections: &str) {
        let path = self.path("roentgend.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap() + sections).unwrap();
    }

    pub(crate) fn broker(&self) -> Process {
        start_mosquitto(&self.mosquitto, &self.path("mosquitto.conf"), self.port)
    }

    pub(crate) fn daemon(&self) -> Process {
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        Process::spawn(roentgend().args(["run", "--config"]).arg(self.path("roentgend.toml")).stderr(log))
    }

    /// The same, telling all it can, with a folder for temporary files.
    pub(crate) fn verbose_daemon(&self, temporary: &Path) -> Process {
        let log = File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let config = self.path("roentgend.toml");
        let mut command = roentgend();
        command.args(["-v", "run", "--config"]).arg(config).env("TMPDIR", temporary).env("RUST_BACKTRACE", "full");
        Process::spawn(command.stderr(log.try_clone().unwrap()).stdout(log))
    }

    /// Drops a file as a plain writer does.
    pub(crate) fn drop_file(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("incoming").join(name), bytes).unwrap();
    }

    /// What the daemon said, for a failing test.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

/// Everything that came on `roentgen/box-t/#`, as topic, retained flag and payload.
#[derive(Clone, Default)]
pub(crate) struct Received(Arc<Mutex<Vec<(String, bool, String)>>>);

impl Received {
    /// Subscribes with a session that the broker keeps, so that nothing is missed while either is away.
    pub(crate) fn subscribe(port: u16, client_id: &str) -> Self {
        let received = Self::default();
        let sink = received.clone();
        let mut options = MqttOptions::new(client_id, "127.0.0.1", port);
        options.set_clean_session(false).set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 8);
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        client.try_subscribe("roentgen/box-t/#", QoS::AtLeastOnce).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                        sink.0.lock().unwrap().push((publish.topic, publish.retain, payload));
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        is_ready.recv_timeout(PATIENCE).expect("mosquitto acknowledges a subscription");
        received
    }

    /// The messages on `roentgen/box-t/` and this, with whether the broker had kept them.
    pub(crate) fn on(&self, leaf: &str) -> Vec<(bool, serde_json::Value)> {
        let messages = self.0.lock().unwrap();
        let wanted = messages.iter().filter(|(topic, ..)| topic.strip_prefix("roentgen/box-t/") == Some(leaf));
        wanted.map(|(_, retained, payload)| (*retained, serde_json::from_str(payload).unwrap())).collect()
    }

    /// Topics and payloads of everything.
    pub(crate) fn messages(&self) -> Vec<(String, String)> {
        let messages = self.0.lock().unwrap();
        messages.iter().map(|(topic, _, payload)| (topic.clone(), payload.clone())).collect()
    }

    pub(crate) fn reports(&self) -> Vec<Report> {
        let messages = self.0.lock().unwrap();
        let reports = messages.iter().filter(|(topic, ..)| topic == REPORT);
        reports.map(|(_, _, payload)| serde_json::from_str(payload).unwrap()).collect()
    }

    /// How many reports came, without reading them.
    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap().iter().filter(|(topic, ..)| topic == REPORT).count()
    }

    /// Content hashes of the reported images, with how often each came.
    pub(crate) fn hashes(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for report in self.reports() {
            *counts.entry(report.origin.content_sha256).or_default() += 1;
        }
        counts
    }

    pub(crate) fn last_status(&self) -> Option<serde_json::Value> {
        let messages = self.0.lock().unwrap();
        let (.., payload) = messages.iter().rfind(|(topic, ..)| topic == STATUS)?;
        Some(serde_json::from_str(payload).unwrap())
    }

    pub(crate) fn wait_for_status(&self, status: &str) {
        wait_for(status, || self.last_status().is_some_and(|json| json["status"] == status));
    }
}

/// The message that the broker keeps on the status topic.
pub(crate) fn retained_status(port: u16) -> serde_json::Value {
    let late = Received::subscribe(port, "late");
    wait_for("the retained status", || late.last_status().is_some());
    let messages = late.0.lock().unwrap();
    let kept = [STATUS, "roentgen/box-t/telemetry"];
    assert!(messages.iter().all(|(topic, retained, _)| kept.contains(&topic.as_str()) && *retained), "{messages:?}");
    let status = messages.iter().find(|(topic, ..)| topic == STATUS).expect("waited for");
    serde_json::from_str(&status.2).unwrap()
}
