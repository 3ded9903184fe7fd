//! The promise: with `systemd/examples/mosquitto/bridge.conf` a clinic's broker hands on what its boxes publish to a broker
//! elsewhere, loses nothing while the line is down, and brings commands back. Two real mosquittos, real daemon. The far one
//! asks for user and password and has rules; it stands in for a cluster, which no package archive has.

mod support;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::daemon::{Place, Received};
use support::{PATIENCE, Process, free_port, mosquitto, png, start_mosquitto, user, wait_for};

/// The broker elsewhere: its folder, its program, its port.
struct Far {
    folder: PathBuf,
    program: PathBuf,
    port: u16,
}

impl Far {
    fn new(place: &Place) -> Option<Self> {
        let far = Self { folder: place.path("far"), program: mosquitto()?, port: free_port() };
        fs::create_dir(&far.folder).unwrap();
        let passwords = far.folder.join("passwords");
        fs::write(&passwords, "clinic-1:a secret\nfleet:another\n").unwrap();
        let tool = Path::new("/usr/bin/mosquitto_passwd");
        let hashed =
            Command::new(tool).arg("-U").arg(&passwords).stdin(Stdio::null()).status().expect("mosquitto_passwd");
        assert!(hashed.success());
        let rules = "user clinic-1\ntopic readwrite clinic-1/#\nuser fleet\ntopic readwrite #\n";
        fs::write(far.folder.join("rules"), rules).unwrap();
        let folder = far.folder.display();
        let config = format!(
            "listener {} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/rules\n\
             persistence true\npersistence_location {folder}/\nautosave_interval 1\nautosave_on_changes true\nuser {}\n",
            far.port,
            user()
        );
        fs::write(far.folder.join("mosquitto.conf"), config).unwrap();
        Some(far)
    }

    fn start(&self) -> Process {
        start_mosquitto(&self.program, &self.folder.join("mosquitto.conf"), self.port)
    }

    fn options(&self, client_id: &str) -> MqttOptions {
        let mut options = MqttOptions::new(client_id, "127.0.0.1", self.port);
        options.set_credentials("fleet", "another").set_clean_session(false).set_max_packet_size(1 << 20, 1 << 20);
        options
    }

    /// Hears everything there, as topic, retained flag and payload.
    fn subscribe(&self, client_id: &str) -> Arc<Mutex<Vec<(String, bool, String)>>> {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (sink, (client, mut connection)) = (heard.clone(), Client::new(self.options(client_id), 8));
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => client.try_subscribe("#", QoS::AtLeastOnce).unwrap(),
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload = String::from_utf8_lossy(&publish.payload).into_owned();
                        sink.lock().unwrap().push((publish.topic, publish.retain, payload));
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
        });
        is_ready.recv_timeout(PATIENCE).expect("a subscription");
        heard
    }

    fn publish(&self, topic: &str, payload: &str) {
        let (client, mut connection) = Client::new(self.options("a-hand"), 8);
        client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
        for event in connection.iter() {
            if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
                return;
            }
        }
    }
}

/// The JSON that came on this topic.
fn on(heard: &Mutex<Vec<(String, bool, String)>>, topic: &str) -> Vec<(bool, Value)> {
    let heard = heard.lock().unwrap();
    let wanted = heard.iter().filter(|(found, ..)| found == topic);
    wanted.map(|(_, retained, payload)| (*retained, serde_json::from_str(payload).unwrap_or_default())).collect()
}

#[test]
fn a_bridge_hands_on_what_boxes_say_keeps_it_while_the_line_is_down_and_brings_commands() {
    let Some(place) = Place::new() else { return };
    let Some(far) = Far::new(&place) else { return };
    let bridge =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/examples/mosquitto/bridge.conf")).unwrap();
    // What a technician puts in; and a line without TLS, tried again sooner.
    let changed: Vec<String> = bridge
        .lines()
        .filter(|line| !line.starts_with("bridge_cafile"))
        .map(|line| match line.split(' ').next() {
            Some("address") => format!("address 127.0.0.1:{}", far.port),
            Some("remote_password") => "remote_password a secret".into(),
            Some("restart_timeout") => "restart_timeout 1 2".into(),
            _ => line.into(),
        })
        .collect();
    let config = place.path("mosquitto.conf");
    fs::write(&config, fs::read_to_string(&config).unwrap() + &changed.join("\n") + "\n").unwrap();

    let mut far_broker = far.start();
    let heard = far.subscribe("dashboards");
    let _broker = place.broker();
    let near = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    near.wait_for_status("online");
    place.drop_file("a.png", &png(1));
    let report = "clinic-1/roentgen/box-t/report";
    wait_for("a report over there", || on(&heard, report).len() == 1);
    assert_eq!(on(&heard, report)[0].1["report_id"], near.reports()[0].report_id.as_str());

    far.publish("clinic-1/roentgen/box-t/command/telemetry", r#"{"id": "from-afar"}"#);
    wait_for("the answer over there", || {
        let answers = on(&heard, "clinic-1/roentgen/box-t/result");
        answers.iter().any(|(_, answer)| answer["id"] == "from-afar" && answer["stage"] == "done")
    });

    // Without the far side the clinic goes on, and nothing is lost.
    thread::sleep(Duration::from_secs(2)); // what the far broker knows of its sessions is on its disk then
    far_broker.0.kill().unwrap();
    far_broker.wait();
    for seed in 2..12 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
    }
    wait_for("ten more in the clinic", || near.count() == 11);
    let _far_broker = far.start();
    wait_for("all of them over there", || on(&heard, report).len() >= 11);
    let ids = |reports: Vec<String>| reports.into_iter().collect::<std::collections::BTreeSet<_>>();
    let there = on(&heard, report).iter().map(|(_, json)| json["report_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids(there), ids(near.reports().into_iter().map(|report| report.report_id).collect()));

    // State is kept over there too, events are not.
    daemon.0.kill().unwrap();
    daemon.wait();
    let status = "clinic-1/roentgen/box-t/status";
    wait_for("the last will over there", || on(&heard, status).iter().any(|(_, json)| json["status"] == "offline"));
    let late = far.subscribe("late");
    wait_for("what is kept", || {
        !on(&late, status).is_empty() && !on(&late, "clinic-1/roentgen/box-t/telemetry").is_empty()
    });
    assert!(on(&late, status).iter().all(|(retained, json)| *retained && json["status"] == "offline"));
    assert!(on(&late, report).is_empty());
}
