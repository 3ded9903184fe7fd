//! The promise: a box judges again what it has kept when it is asked to, makes an installed model the active one, and tells
//! which one waits to be asked for; and says why where it cannot. Real daemon, real mosquitto.

mod support;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::daemon::{Place, Received};
use support::{Maker, Process, names, png, tiny_writer, wait_for};

struct Clinic {
    place: Place,
    received: Received,
    _daemon: Process,
    _broker: Process,
}

impl Clinic {
    /// A box at work with the place's configuration.
    fn open(place: Place) -> Self {
        let broker = place.broker();
        let received = Received::subscribe(place.port, "screen");
        let daemon = place.daemon();
        received.wait_for_status("online");
        Self { place, received, _daemon: daemon, _broker: broker }
    }

    /// Sends a command and returns its last answer.
    fn command(&self, name: &str, mut payload: Value) -> Value {
        let id = format!("{}-{}", name.replace('/', "-"), self.received.on("result").len());
        payload["id"] = id.as_str().into();
        let (client, mut connection) = Client::new(MqttOptions::new("commander", "127.0.0.1", self.place.port), 8);
        client.publish(format!("roentgen/box-t/command/{name}"), QoS::AtLeastOnce, false, payload.to_string()).unwrap();
        for event in connection.iter() {
            if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
                break;
            }
        }
        let mut last = Value::Null;
        wait_for(&format!("an answer to {name}"), || {
            let mut answers = self.received.on("result").into_iter().map(|(_, json)| json);
            last = answers.rfind(|json| json["id"] == id.as_str()).unwrap_or_default();
            ["done", "installed", "rejected", "failed"].contains(&last["stage"].as_str().unwrap_or_default())
        });
        last
    }

    fn telemetry(&self) -> Value {
        self.received.on("telemetry").pop().map(|(_, json)| json).unwrap_or_default()
    }

    fn wait_for_version(&self, version: &str) {
        wait_for(version, || self.telemetry()["engine"]["model"]["version"] == version);
    }
}

fn assert_said(answer: &Value, stage: &str, part: &str) {
    assert_eq!(answer["stage"], stage, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(part), "{part} is missing in {answer}");
}

#[test]
fn a_radiograph_that_was_kept_is_judged_again_by_another_model() {
    let Some(place) = Place::new() else { return };
    place.configure_more("[commands]\nallow = [\"reclassify\", \"reload\"]\n");
    let clinic = Clinic::open(place);
    let place = &clinic.place;
    for seed in 0..3 {
        place.drop_file(&format!("Jane Doe {seed}.png"), &png(seed));
    }
    wait_for("three reports", || clinic.received.count() == 3);
    wait_for("the files to be settled", || names(&place.path("done")).len() == 3);
    let before = clinic.received.reports();
    let ask = |id: &str| clinic.command("reclassify", json!({ "report_id": id }));
    assert_said(&ask(&before[1].report_id), "rejected", "the same report");
    assert_said(&ask(&"0".repeat(32)), "rejected", "knows no report");
    assert_said(&ask("../a"), "rejected", "32 hexadecimal digits");

    tiny_writer("0.0.2").write(&place.path("newer")).unwrap();
    let path = place.path("roentgend.toml");
    let config = fs::read_to_string(&path).unwrap();
    let (old, new) = (format!("bundle = {:?}", place.path("tiny")), format!("bundle = {:?}", place.path("newer")));
    fs::write(&path, config.replace(&old, &new)).unwrap();
    assert_said(&clinic.command("reload", json!({})), "done", "0.0.2");
    assert_said(&ask(&before[1].report_id), "done", "its report follows");
    wait_for("its report", || clinic.received.count() == 4);
    let again = clinic.received.reports().pop().unwrap();
    assert_eq!(again.origin.content_sha256, before[1].origin.content_sha256);
    assert_ne!(again.report_id, before[1].report_id);
    assert_eq!(again.model.version, "0.0.2");
    wait_for("the file to be settled again", || names(&place.path("done")).len() == 3);

    // What is not there any more is said to be so.
    for name in names(&place.path("done")) {
        fs::remove_file(place.path("done").join(name)).unwrap();
    }
    assert_said(&ask(&before[0].report_id), "rejected", "not kept on this box");
    // No name of a file has left the box.
    for (topic, payload) in clinic.received.messages() {
        assert!(!payload.contains("Jane") && !topic.contains("Jane"), "{payload}");
    }
    assert!(!place.log().contains("Jane"), "{}", place.log());
}

fn put(place: &Place, bundle: &Path, name: &str) {
    let incoming = place.path("state/bundles/incoming");
    fs::create_dir_all(&incoming).unwrap();
    let mut builder = tar::Builder::new(fs::File::create(incoming.join(format!("{name}.part"))).unwrap());
    builder.append_dir_all(".", bundle).unwrap();
    builder.finish().unwrap();
    fs::rename(incoming.join(format!("{name}.part")), incoming.join(name)).unwrap();
}

#[test]
fn the_model_that_waits_is_told_and_installed_when_asked_for_and_an_earlier_one_can_be_activated() {
    let Some(place) = Place::new() else { return };
    let maker = Maker::new();
    let bundle = |version: &str| maker.bundle(&place.path("made"), version);
    place.configure(&bundle("1.0.0"), &format!("trusted_keys = [{:?}]", maker.key()));
    let allow = "allow = [\"bundle/install\", \"bundle/activate\", \"bundle/rollback\"]";
    place.configure_more(&format!("[updates]\nautomatic = false\n[commands]\n{allow}\n[telemetry]\ninterval_s = 5\n"));
    let (first, second, other) =
        (bundle("1.1.0"), bundle("1.2.0"), Maker::new().bundle(&place.path("strange"), "9.0.0"));
    let clinic = Clinic::open(place);
    let place = &clinic.place;
    put(place, &first, "first.tar");
    put(place, &other, "strange.tar");
    wait_for("word of the one that waits", || clinic.telemetry()["update_waiting"]["version"] == "1.1.0");
    assert_eq!(clinic.telemetry()["update_waiting"]["file"], "first.tar", "nobody we trust signed the other");
    assert_said(&clinic.command("bundle/install", json!({})), "rejected", "several bundles");
    fs::remove_file(place.path("state/bundles/incoming/strange.tar")).unwrap();
    assert_said(&clinic.command("bundle/install", json!({})), "installed", "1.1.0");
    wait_for("no more word of it", || clinic.telemetry().get("update_waiting").is_none());
    put(place, &second, "second.tar");
    assert_said(&clinic.command("bundle/install", json!({ "file": "second.tar" })), "installed", "1.2.0");

    assert_said(
        &clinic.command("bundle/activate", json!({ "version": "9.9.9" })),
        "rejected",
        "no bundle of version 9.9.9",
    );
    assert_said(&clinic.command("bundle/activate", json!({ "version": "1.1.0" })), "installed", "1.1.0");
    clinic.wait_for_version("1.1.0");
    assert_said(&clinic.command("bundle/activate", json!({ "version": "1.2.0" })), "installed", "1.2.0");
    clinic.wait_for_version("1.2.0");
    // Rolled back it is still there, and can be taken up again.
    assert_said(&clinic.command("bundle/rollback", json!({})), "installed", "1.1.0");
    assert_said(&clinic.command("bundle/activate", json!({ "version": "1.2.0" })), "installed", "1.2.0");
    clinic.wait_for_version("1.2.0");
}
