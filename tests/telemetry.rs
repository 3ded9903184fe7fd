//! The promise: the box says how it is, to the broker, to whoever types `roentgend status`, and to who commands it; and
//! does not when nobody listens. Real daemon, real mosquitto.

mod support;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};
use support::daemon::{Place, Received};
use support::{PATIENCE, Process, output, png, roentgend, stdout, wait_for};

const TELEMETRY: &str = "telemetry";

fn last(received: &Received) -> Value {
    received.on(TELEMETRY).pop().map(|(_, json)| json).unwrap_or_default()
}

fn status(place: &Place, json: bool) -> Output {
    let mut command = roentgend();
    command.args(["status", "--config"]).arg(place.path("roentgend.toml"));
    if json {
        command.arg("--json");
    }
    output(&mut command)
}

/// Publishes on a topic of the box, and returns once the broker has it.
fn publish(port: u16, leaf: &str, retain: bool, payload: &[u8]) {
    let mut options = MqttOptions::new(format!("commander-{}", fastrand()), "127.0.0.1", port);
    options.set_max_packet_size(8 << 20, 8 << 20);
    let (client, mut connection) = Client::new(options, 8);
    client.publish(format!("roentgen/box-t/{leaf}"), QoS::AtLeastOnce, retain, payload).unwrap();
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
            return;
        }
    }
}

fn fastrand() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[test]
fn telemetry_tells_what_was_done_and_is_kept_by_the_broker_but_not_by_the_box() {
    let Some(place) = Place::new() else { return };
    place.configure_more("[telemetry]\ninterval_s = 5\n");
    let mut broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    for seed in 0..3 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
    }
    place.drop_file("text.png", b"no image");
    wait_for("telemetry about three reports and a refusal", || {
        let counts = &last(&received)["counts"];
        let judged: u64 = counts["reported"].as_object().map_or(0, |by| by.values().filter_map(Value::as_u64).sum());
        judged + counts["abstained"].as_u64().unwrap_or(0) == 3
            && counts["published"] == 3
            && counts["rejected"]["unknown_format"] == 1
    });
    let said = last(&received);
    assert_eq!((&said["schema"], &said["device"]), (&"roentgen.telemetry/1".into(), &"box-t".into()));
    assert_eq!(said["health"], serde_json::json!({ "healthy": true, "problems": [] }), "{said}");
    assert_eq!((&said["engine"]["model"]["name"], &said["engine"]["backend"]), (&"tiny".into(), &"native".into()));
    assert_eq!((&said["latency_ms"]["count"], &said["latency_ms"]["window"]), (&3.into(), &3.into()));
    assert!(said["latency_ms"]["total"]["p50"].as_f64() <= said["latency_ms"]["total"]["p99"].as_f64(), "{said}");
    assert!(said["memory"]["resident_bytes"].as_u64() > Some(1 << 20), "{said}");
    assert!(said["disks"]["incoming"]["free_bytes"].as_u64() > Some(0), "{said}");
    assert_eq!(said["intake"]["open"], true);
    // A file's name may be a patient's.
    assert!(!said.to_string().contains("text.png"), "{said}");
    assert!(received.on(TELEMETRY).iter().all(|(retained, _)| !retained), "they came as they were sent");
    let late = Received::subscribe(place.port, "late");
    wait_for("what the broker kept", || late.on(TELEMETRY).first().is_some_and(|(retained, _)| *retained));

    // The broker goes for longer than the interval, and what would have been said meanwhile is not made up for.
    broker.signal("TERM");
    broker.wait();
    thread::sleep(Duration::from_secs(11));
    let _broker = place.broker();
    wait_for("telemetry on the next connection", || last(&received)["broker"]["connections"] == 2);
    for (_, json) in received.on(TELEMETRY) {
        assert_eq!(json["broker"]["connected"], true, "said while nobody could hear it: {json}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}

#[test]
fn an_interval_of_0_sends_none_unless_it_is_asked_for() {
    let Some(place) = Place::new() else { return };
    place.configure_more("[telemetry]\ninterval_s = 0\n");
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    received.wait_for_status("online");
    place.drop_file("a.png", &png(1));
    wait_for("the report", || received.reports().len() == 1);
    // It has been through several rounds by now: the file is written by the same one.
    wait_for("the file", || place.path("state/status.json").exists());
    assert_eq!(received.on(TELEMETRY).len(), 0);
    wait_for("an answer", || {
        publish(place.port, "command/telemetry", false, br#"{"id":"now"}"#);
        !received.on("result").is_empty()
    });
    wait_for("telemetry", || !received.on(TELEMETRY).is_empty());
}

#[test]
fn roentgend_status_says_whether_it_runs_and_is_well() {
    let Some(place) = Place::new() else { return };
    let stopped = status(&place, false);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(stdout(&stopped).contains("does not run") && stdout(&stopped).contains("systemctl"), "{stopped:?}");

    let runtime = place.path("runtime");
    fs::create_dir(&runtime).unwrap();
    let log = fs::File::create(place.path("daemon.log")).unwrap();
    let mut command = roentgend();
    command.args(["run", "--config"]).arg(place.path("roentgend.toml")).env("RUNTIME_DIRECTORY", &runtime);
    let mut daemon = Process::spawn(command.stderr(log));
    let is_well = || status(&place, true).status.code() == Some(0);
    wait_for("a box that is well", is_well);
    let said: Value = serde_json::from_str(&stdout(&status(&place, true))).unwrap();
    assert_eq!((&said["running"], &said["healthy"]), (&true.into(), &true.into()), "{said}");
    assert_eq!(said["telemetry"]["device"], "box-t");
    let text = stdout(&status(&place, false));
    assert!(text.starts_with("box-t: healthy") && text.contains("tiny 0.0.1"), "{text}");
    // In memory, where there is such a place, and to be found from state_dir.
    let link = fs::symlink_metadata(place.path("state/status.json")).unwrap().file_type();
    assert!(link.is_symlink() && !link.is_socket() && runtime.join("status.json").is_file());

    // Its last word is none of a daemon that died.
    daemon.signal("KILL");
    daemon.wait();
    assert!(runtime.join("status.json").is_file());
    let dead: Value = serde_json::from_str(&stdout(&status(&place, true))).unwrap();
    assert_eq!((&dead["running"], &dead["healthy"]), (&false.into(), &false.into()), "{dead}");
    assert_eq!(dead["problems"][0]["code"], "not_running");

    // One that was stopped has left none. Looking did not keep the next from starting.
    let mut daemon = place.daemon();
    wait_for("a box that is well", is_well);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    assert!(fs::symlink_metadata(place.path("state/status.json")).is_err(), "it was a file of its own then");
}

#[test]
fn a_word_that_is_too_old_is_not_believed() {
    let Some(place) = Place::new() else { return };
    let daemon = place.daemon();
    wait_for("a box that is well", || status(&place, true).status.code() == Some(0));
    daemon.signal("STOP");
    let path = place.path("state/status.json");
    let mut old: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    old["machine_uptime_s"] = 1.into();
    fs::write(&path, old.to_string()).unwrap();
    let found = status(&place, false);
    daemon.signal("CONT");
    assert_eq!(found.status.code(), Some(1));
    assert!(stdout(&found).contains("has said nothing of itself for"), "{found:?}");
}

#[test]
fn commands_are_answered_and_what_is_not_allowed_is_refused() {
    let Some(place) = Place::new() else { return };
    place.configure_more("[commands]\nallow = [\"telemetry\", \"reload\"]\n[telemetry]\ninterval_s = 3600\n");
    let _broker = place.broker();
    // Kept by the broker from before: never carried out, or it would be at every connection.
    publish(place.port, "command/reload", true, br#"{"id":"kept"}"#);
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    received.wait_for_status("online");
    let answers = |id: &str| -> Vec<Value> {
        let of_id = received.on("result").into_iter().map(|(_, json)| json).filter(|json| json["id"] == id);
        of_id.collect()
    };
    let said = |id: &str, stage: &str, part: &str| {
        wait_for(&format!("{id} to be {stage}"), || answers(id).last().is_some_and(|answer| answer["stage"] == stage));
        let answers = answers(id);
        let message = answers.last().unwrap()["message"].as_str().unwrap();
        assert!(message.contains(part), "{part} is missing: {answers:?}");
    };
    said("", "rejected", "retain");
    publish(place.port, "command/telemetry", false, br#"{"id":"t-1"}"#);
    said("t-1", "done", "telemetry");
    publish(place.port, "command/reload", false, br#"{"id":"r-1"}"#);
    said("r-1", "done", "nothing has changed");
    assert_eq!(answers("r-1")[0]["stage"], "accepted");
    let config = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    fs::write(place.path("roentgend.toml"), config.clone() + "nonsense = 1\n").unwrap();
    publish(place.port, "command/reload", false, br#"{"id":"r-2"}"#);
    said("r-2", "rejected", "nonsense");
    wait_for("a warning in telemetry", || last(&received)["health"]["problems"][0]["code"] == "reload_refused");
    fs::write(place.path("roentgend.toml"), config).unwrap();
    publish(place.port, "command/bundle/install", false, br#"{"id":"b-1","file":"a.tar"}"#);
    said("b-1", "rejected", "[commands] allow");
    publish(place.port, "command/bundle/install", false, br#"{"id":"b-2","file":"../a.tar"}"#);
    said("b-2", "rejected", "no path");
    publish(place.port, "command/reboot", false, br#"{"id":"x-1"}"#);
    said("x-1", "rejected", "no such command");
    assert!(received.on("result").iter().all(|(retained, _)| !retained), "answers are events");
    assert!(answers("kept").is_empty());
    // A flood is damped, and the box goes on.
    for _ in 0..30 {
        publish(place.port, "command/telemetry", false, br#"{"id":"flood"}"#);
    }
    wait_for("the word that it is too much", || {
        received.on("result").iter().any(|(_, json)| json["message"].as_str().unwrap().contains("too many commands"))
    });
    assert!(answers("flood").len() < 20, "{}", answers("flood").len());
    place.drop_file("a.png", &png(1));
    wait_for("the report", || received.reports().len() == 1);
}

#[test]
fn a_kept_message_larger_than_a_packet_may_be_does_not_keep_the_box_from_the_broker() {
    let Some(place) = Place::new() else { return };
    // Of a broker that speaks MQTT 5 it would not come (tests/mqtt_versions.rs).
    place.configure_more("protocol = \"3.1.1\"\n");
    let _broker = place.broker();
    publish(place.port, "command/telemetry", true, &vec![b' '; 2 << 20]);
    // Not the subscriber of the other tests: it would get that message too.
    let mut options = MqttOptions::new("screen", "127.0.0.1", place.port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::new(options, 8);
    client.subscribe("roentgen/box-t/report", QoS::AtLeastOnce).unwrap();
    let _daemon = place.daemon();
    wait_for("the box to give the commands up", || place.log().contains("no commands are taken"));
    place.drop_file("a.png", &png(1));
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no report: {}", place.log());
        match connection.recv_timeout(Duration::from_secs(1)) {
            Ok(Ok(Event::Incoming(Packet::Publish(publish)))) if publish.topic == "roentgen/box-t/report" => return,
            Ok(Err(error)) => panic!("the broker is there: {error}"),
            _ => {}
        }
    }
}
