//! The promise: a signed bundle that is put into `bundles/incoming` becomes the box's model while it works; anything else
//! is set aside with its reason, and the model at hand goes on. Real daemon, real mosquitto.

mod support;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;
use support::daemon::{Place, Received};
use support::{Maker, Process, names, png, tiny_writer, wait_for};

/// A box at work with version 1.0.0 of a maker's bundle as its configured one, and a subscriber.
struct Clinic {
    place: Place,
    maker: Maker,
    received: Received,
    daemon: Process,
    _broker: Process,
    /// The seed of the next image.
    next: u64,
}

impl Clinic {
    fn open(sections: &str) -> Option<Self> {
        let place = Place::new()?;
        let maker = Maker::new();
        let bundle = maker.bundle(&place.path("made"), "1.0.0");
        // Unsigned ones may be installed by hand here; what comes from outside needs a signature all the same.
        place.configure(&bundle, &format!("trusted_keys = [{:?}]\nallow_unsigned = true", maker.key()));
        place.configure_more(sections);
        let broker = place.broker();
        let received = Received::subscribe(place.port, "screen");
        let daemon = place.daemon();
        received.wait_for_status("online");
        wait_for("the inbox", || sections.contains("automatic = false") || incoming(&place).is_dir());
        Some(Self { place, maker, received, daemon, _broker: broker, next: 0 })
    }

    fn made(&self, version: &str) -> PathBuf {
        self.maker.bundle(&self.place.path("made"), version)
    }

    /// Puts a bundle's folder into the inbox as somebody careful does: under another name until it is complete.
    fn put(&self, bundle: &Path, name: &str) {
        let part = incoming(&self.place).join(format!("{name}.part"));
        copy(bundle, &part);
        fs::rename(part, incoming(&self.place).join(name)).unwrap();
    }

    /// The same as an archive.
    fn put_archive(&self, bundle: &Path, name: &str) {
        fs::create_dir_all(incoming(&self.place)).unwrap();
        let part = incoming(&self.place).join(format!("{name}.part"));
        archive(bundle, &part);
        fs::rename(part, incoming(&self.place).join(name)).unwrap();
    }

    /// Drops an image and returns the version of the model that its report names.
    fn judged_by(&mut self) -> String {
        let (seed, before) = (self.next, self.received.reports().len());
        self.next += 1;
        self.place.drop_file(&format!("{seed}.png"), &png(seed));
        wait_for("a report", || self.received.reports().len() > before);
        self.received.reports()[before].model.version.clone()
    }

    /// Waits for the last word about a file or command, and returns it; all of its stages stand before.
    fn outcome(&self, of: &str) -> Value {
        let is_of = |json: &Value| json["file"] == of || json["id"] == of;
        let is_end = |json: &Value| ["installed", "rejected", "failed"].map(Value::from).contains(&json["stage"]);
        let find =
            || self.received.on("result").into_iter().map(|(_, json)| json).find(|json| is_of(json) && is_end(json));
        wait_for(&format!("the outcome of {of}; {}", self.place.log()), || find().is_some());
        find().expect("waited for")
    }

    fn publish(&self, leaf: &str, payload: &Value) {
        let options = MqttOptions::new("commander", "127.0.0.1", self.place.port);
        let (client, mut connection) = Client::new(options, 8);
        let topic = format!("roentgen/box-t/command/{leaf}");
        client.publish(topic, QoS::AtLeastOnce, false, payload.to_string()).unwrap();
        for event in connection.iter() {
            if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
                return;
            }
        }
    }
}

fn incoming(place: &Place) -> PathBuf {
    place.path("state/bundles/incoming")
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap().success());
}

fn archive(bundle: &Path, to: &Path) {
    let folder = bundle.parent().unwrap();
    let tar = Command::new("tar").arg("-cf").arg(to).arg("-C").arg(folder).arg(bundle.file_name().unwrap()).status();
    assert!(tar.unwrap().success());
}

#[test]
fn a_good_bundle_becomes_the_model_while_reports_go_on() {
    let Some(mut clinic) = Clinic::open("") else { return };
    assert_eq!(clinic.judged_by(), "1.0.0");
    clinic.put_archive(&clinic.made("1.1.0"), "next.tar");
    // Reports go on while it is checked, and none is lost when the model changes.
    let mut versions = Vec::new();
    wait_for("the new model", || {
        versions.push(clinic.judged_by());
        versions.last().is_some_and(|version| version == "1.1.0")
    });
    assert!(versions.is_sorted(), "{versions:?}");
    let outcome = clinic.outcome("next.tar");
    assert_eq!((&outcome["stage"], &outcome["command"]), (&"installed".into(), &"bundle/incoming".into()), "{outcome}");
    assert_eq!(outcome["schema"], "roentgen.result/1");
    let stages: Vec<_> = clinic.received.on("result").into_iter().map(|(_, json)| json["stage"].clone()).collect();
    assert!(stages.len() > 3 && stages[..stages.len() - 1].iter().all(|stage| stage == "checking"), "{stages:?}");
    assert_eq!(clinic.received.last_status().unwrap()["model"]["version"], "1.1.0");
    wait_for("telemetry about it", || {
        let telemetry = clinic.received.on("telemetry").pop().map(|(_, json)| json).unwrap_or_default();
        telemetry["engine"]["model"]["version"] == "1.1.0" && telemetry["update"]["stage"] == "installed"
    });
    assert!(names(&incoming(&clinic.place)).is_empty(), "it is installed, and its archive gone");

    // As a folder, which takes longer to be thought complete.
    clinic.put(&clinic.made("1.2.0"), "folder");
    assert_eq!(clinic.outcome("folder")["stage"], "installed");
    assert_eq!(clinic.judged_by(), "1.2.0");

    // A start takes the same one.
    clinic.daemon.signal("TERM");
    assert_eq!(clinic.daemon.wait().code(), Some(0), "{}", clinic.place.log());
    clinic.daemon = clinic.place.daemon();
    assert_eq!(clinic.judged_by(), "1.2.0");
    // Every image has its report, exactly one.
    assert!(clinic.received.hashes().values().all(|count| *count == 1));
    assert_eq!(clinic.received.hashes().len() as u64, clinic.next);
}

#[test]
fn what_is_no_good_is_set_aside_with_its_reason_and_the_model_goes_on() {
    let Some(mut clinic) = Clinic::open("") else { return };
    let unsigned = clinic.place.path("made/unsigned");
    tiny_writer("2.0.0").write(&unsigned).unwrap();
    let strange = Maker::new().bundle(&clinic.place.path("strange"), "2.0.0");
    let tampered = clinic.place.path("tampered");
    copy(&clinic.made("2.0.0"), &tampered);
    let text = fs::read_to_string(tampered.join("bundle.toml")).unwrap();
    fs::write(tampered.join("bundle.toml"), text.replace("2.0.0", "9.0.0")).unwrap();
    let damaged = clinic.place.path("damaged");
    copy(&clinic.made("2.0.0"), &damaged);
    let mut model = fs::read(damaged.join("model.onnx")).unwrap();
    model[100] ^= 1;
    fs::write(damaged.join("model.onnx"), model).unwrap();
    for (name, bundle) in
        [("unsigned", &unsigned), ("strange", &strange), ("tampered", &tampered), ("damaged", &damaged)]
    {
        clinic.put_archive(bundle, &format!("{name}.tar"));
    }
    clinic.put_archive(&clinic.made("0.9.0"), "older.tar");
    archive(&clinic.made("2.0.0"), &clinic.place.path("whole.tar"));
    let whole = fs::read(clinic.place.path("whole.tar")).unwrap();
    fs::write(incoming(&clinic.place).join("cut.tar"), &whole[..whole.len() / 2]).unwrap();
    fs::write(incoming(&clinic.place).join("notes.txt"), "no bundle").unwrap();
    for (name, part) in [
        ("unsigned.tar", "nobody vouches"),
        ("strange.tar", "trusted_keys does not list"),
        ("tampered.tar", "tampered"),
        ("damaged.tar", "SHA-256"),
        ("older.tar", "older than"),
        ("cut.tar", "cut off"),
        ("notes.txt", "no tar archive"),
    ] {
        let outcome = clinic.outcome(name);
        assert_eq!(outcome["stage"], "rejected", "{outcome}");
        assert!(outcome["message"].as_str().unwrap().contains(part), "{part} is missing: {outcome}");
    }
    wait_for("the inbox to be empty", || names(&incoming(&clinic.place)).is_empty());
    let rejected = names(&clinic.place.path("state/bundles/rejected"));
    assert_eq!(rejected.iter().filter(|name| name.ends_with(".reason.json")).count(), 3, "the newest: {rejected:?}");
    assert_eq!(clinic.judged_by(), "1.0.0");
    assert_eq!(clinic.received.last_status().unwrap()["model"]["version"], "1.0.0");
    assert!(clinic.received.on("result").iter().all(|(_, json)| json["stage"] != "installed"));
}

#[test]
fn a_command_installs_what_lies_there_and_a_signed_manifest_says_which() {
    let sections = "[updates]\nautomatic = false\n[commands]\nallow = [\"bundle/install\", \"bundle/rollback\"]\n";
    let Some(mut clinic) = Clinic::open(sections) else { return };
    let (one, two) = (clinic.made("1.1.0"), clinic.made("1.2.0"));
    let signed = |bundle: &Path, id: &str, file: &str| {
        let text = |name: &str| fs::read_to_string(bundle.join(name)).unwrap();
        json!({ "id": id, "file": file, "manifest": text("bundle.toml"), "signature": text("bundle.sig") })
    };
    clinic.put_archive(&one, "one.tar");
    // By itself nothing happens, and another bundle than the manifest's is not taken for it.
    let rejected = |id: &str, part: &str| {
        let outcome = clinic.outcome(id);
        assert_eq!(outcome["stage"], "rejected", "{outcome}");
        assert!(outcome["message"].as_str().unwrap().contains(part), "{part} is missing: {outcome}");
    };
    clinic.publish("bundle/install", &json!({ "id": "none", "file": "two.tar" }));
    rejected("none", "put it there first");
    let stranger = Maker::new().bundle(&clinic.place.path("strange"), "1.1.0");
    clinic.publish("bundle/install", &signed(&stranger, "stranger", "one.tar"));
    rejected("stranger", "trusted_keys does not list");
    let mut forged = signed(&one, "forged", "one.tar");
    forged["manifest"] = forged["manifest"].as_str().unwrap().replace("1.1.0", "1.1.1").into();
    clinic.publish("bundle/install", &forged);
    rejected("forged", "tampered");
    assert_eq!(names(&incoming(&clinic.place)), ["one.tar"], "a bad command is not the bundle's fault");
    clinic.publish("bundle/install", &signed(&two, "other", "one.tar"));
    rejected("other", "another bundle than the one asked for");
    assert_eq!(clinic.judged_by(), "1.0.0");

    clinic.put_archive(&one, "one.tar");
    clinic.publish("bundle/install", &signed(&one, "first", "one.tar"));
    assert_eq!(clinic.outcome("first")["stage"], "installed");
    assert_eq!(clinic.judged_by(), "1.1.0");
    clinic.put(&two, "two");
    clinic.publish("bundle/install", &json!({ "id": "second", "file": "two" }));
    assert_eq!(clinic.outcome("second")["stage"], "installed");
    assert_eq!(clinic.judged_by(), "1.2.0");

    clinic.publish("bundle/rollback", &json!({ "id": "back" }));
    let outcome = clinic.outcome("back");
    assert_eq!(outcome["stage"], "installed", "{outcome}");
    assert_eq!(clinic.judged_by(), "1.1.0");
    clinic.publish("bundle/rollback", &json!({ "id": "further" }));
    assert_eq!(clinic.outcome("further")["stage"], "installed");
    assert_eq!(clinic.judged_by(), "1.0.0", "the configured one");
    clinic.publish("bundle/rollback", &json!({ "id": "no further" }));
    clinic.publish("bundle/rollback", &json!({ "id": "no-further" }));
    assert_eq!(clinic.outcome("no-further")["stage"], "rejected");
}

#[test]
fn an_update_that_is_cut_off_by_a_kill_leaves_the_old_model_or_the_new_one() {
    let Some(mut clinic) = Clinic::open("") else { return };
    clinic.put_archive(&clinic.made("1.1.0"), "next.tar");
    wait_for("the installation to begin", || !clinic.received.on("result").is_empty());
    clinic.daemon.signal("KILL");
    clinic.daemon.wait();
    clinic.daemon = clinic.place.daemon();
    // Whichever it was, the box works, and comes to the new one.
    let first = clinic.judged_by();
    assert!(["1.0.0", "1.1.0"].contains(&first.as_str()), "{first}");
    wait_for("the new model", || clinic.judged_by() == "1.1.0");
    wait_for("the inbox to be empty", || names(&incoming(&clinic.place)).is_empty());
    assert_eq!(clinic.received.hashes().len() as u64, clinic.next);
}

#[test]
fn an_installation_ends_with_the_daemon_that_began_it() {
    let root = tempfile::tempdir().unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    // Nobody reads: whoever says a word into a full pipe stands still, as an installation does at its first one.
    let mut filler = writer.try_clone().unwrap();
    thread::spawn(move || filler.write_all(&[b' '; 1 << 20]));
    thread::sleep(Duration::from_millis(200));
    let mut parent = Command::new("sh");
    parent.args(["-c", r#""$@" & echo $! > "$0.new"; mv "$0.new" "$0"; wait"#]).arg(root.path().join("id"));
    parent.args([env!("CARGO_BIN_EXE_roentgend"), "bundle", "install", "--steps", "/nowhere", "--config", "/nowhere"]);
    let mut parent = Process::spawn(parent.stdout(writer));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    wait_for("the installation to begin", || root.path().join("id").is_file());
    let status = Path::new("/proc").join(read(&root.path().join("id")).trim()).join("status");
    wait_for("it to give up its rights", || read(&status).contains("NoNewPrivs:\t1"));
    parent.signal("KILL");
    parent.wait();
    // Whoever inherits its children may not look after them.
    wait_for("it to end too", || !status.exists() || read(&status).contains("State:\tZ"));
}
