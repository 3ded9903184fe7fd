//! SIGHUP has the running daemon read its configuration again: what can change changes at once and loses nothing, and of a
//! bad one the old goes on.

mod support;

use roentgen::bundle::sha256_hex;
use std::collections::BTreeMap;
use std::fs;
use support::daemon::{Place, Received, retained_status};
use support::{Process, names, png, tiny_writer, wait_for};

/// Replaces a piece of the configuration file and tells the daemon.
fn reload(place: &Place, daemon: &Process, old: &str, new: &str) {
    let path = place.path("roentgend.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(old), "{old:?} is not in {text}");
    fs::write(&path, text.replacen(old, new, 1)).unwrap();
    daemon.signal("HUP");
}

/// Waits until the log holds `text` so many times.
fn wait_for_log(place: &Place, text: &str, times: usize) {
    wait_for(&format!("{text:?} in the log"), || place.log().matches(text).count() >= times);
}

const TAKEN: &str = "read the configuration again";
const REFUSED: &str = "not taking the new configuration, the old one goes on";

#[test]
fn reports_that_waited_for_one_broker_go_to_another_one_in_order() {
    let (Some(place), Some(other)) = (Place::new(), Place::new()) else { return };
    let broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    place.drop_file("first.png", &png(0));
    wait_for("the first report", || received.reports().len() == 1);
    drop(broker);
    let mut expected = BTreeMap::new();
    for seed in 1..=10 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
        expected.insert(sha256_hex(&png(seed)), 1);
    }
    wait_for("the files to leave", || names(&place.path("done")).len() == 11);

    let _other = other.broker();
    let elsewhere = Received::subscribe(other.port, "screen");
    reload(&place, &daemon, &format!(":{}\"", place.port), &format!(":{}\"", other.port));
    wait_for("all reports at the other broker", || elsewhere.reports().len() >= 10);
    let sequences: Vec<_> = elsewhere.reports().iter().map(|report| report.sequence).collect();
    assert_eq!(sequences, (2..=11).collect::<Vec<_>>());
    assert_eq!(elsewhere.hashes(), expected);
    elsewhere.wait_for_status("online");
    wait_for_log(&place, &format!("{TAKEN}: mqtt.url"), 1);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    elsewhere.wait_for_status("offline");
}

#[test]
fn a_change_of_brokers_says_goodbye_to_the_old_one() {
    let (Some(place), Some(other)) = (Place::new(), Place::new()) else { return };
    let (_old, _new) = (place.broker(), other.broker());
    let received = Received::subscribe(place.port, "screen");
    let daemon = place.daemon();
    received.wait_for_status("online");
    reload(&place, &daemon, &format!(":{}\"", place.port), &format!(":{}\"", other.port));
    received.wait_for_status("offline");
    assert_eq!(retained_status(place.port)["reason"], "stopped", "said by the daemon, not by its last will");
    Received::subscribe(other.port, "screen").wait_for_status("online");
    wait_for_log(&place, TAKEN, 1);
}

#[test]
fn another_drop_folder_is_watched_and_the_connection_stays() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let daemon = place.daemon();
    received.wait_for_status("online");
    let connections = place.log().matches("connected to the broker").count();
    fs::create_dir_all(place.path("ward/incoming")).unwrap();
    fs::write(place.path("ward/incoming/early.png"), png(1)).unwrap();
    reload(&place, &daemon, "/incoming\"", "/ward/incoming\"");
    wait_for_log(&place, &format!("{TAKEN}: source.folder.incoming"), 1);
    fs::write(place.path("ward/incoming/late.png"), png(2)).unwrap();
    wait_for("both reports", || received.reports().len() == 2);
    wait_for("both files to leave", || names(&place.path("ward/done")) == ["early.png", "late.png"]);
    place.drop_file("forgotten.png", &png(3));
    // What is dropped into the old folder stays there: the new one is served meanwhile.
    fs::write(place.path("ward/incoming/last.png"), png(4)).unwrap();
    wait_for("the last report", || received.reports().len() == 3);
    assert_eq!(names(&place.path("incoming")), ["forgotten.png"]);
    assert_eq!(place.log().matches("connected to the broker").count(), connections);
}

#[test]
fn a_bad_configuration_is_refused_with_its_reason_and_the_old_one_goes_on() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    let good = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    let state = place.path("state");
    let missing = place.path("tiny");
    for (number, (old, new, named)) in [
        ("device = ", "devise = ", "devise"),
        ("device = \"box-t\"", "device = \"box-u\"", "device cannot change while roentgend runs"),
        (state.to_str().unwrap(), place.path("other").to_str().unwrap(), "state_dir cannot change"),
        (missing.to_str().unwrap(), place.path("nowhere").to_str().unwrap(), "nowhere"),
        ("mqtt://", "mqtts+x://", "mqtt.url"),
        ("allow_unsigned = true", "allow_unsigned = false", "signed"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(place.path("roentgend.toml"), &good).unwrap();
        reload(&place, &daemon, old, new);
        wait_for_log(&place, REFUSED, number + 1);
        let log = place.log();
        let line = log.lines().rfind(|line| line.contains(REFUSED)).unwrap();
        let reason = &log[log.rfind(line).unwrap()..];
        assert!(reason.contains(named), "{named:?} is not in {reason}");
        place.drop_file(&format!("{number}.png"), &png(number as u64));
        wait_for("the report of an image dropped after it", || received.reports().len() == number + 1);
    }
    fs::remove_file(place.path("roentgend.toml")).unwrap();
    daemon.signal("HUP");
    wait_for_log(&place, REFUSED, 7);
    fs::write(place.path("roentgend.toml"), &good).unwrap();
    daemon.signal("HUP");
    wait_for_log(&place, "nothing has changed", 1);
    assert!(!place.path("other").exists(), "a refused configuration leaves nothing behind");
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}

#[test]
fn another_bundle_is_loaded_and_named_while_the_connection_stays() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let daemon = place.daemon();
    received.wait_for_status("online");
    place.drop_file("old.png", &png(1));
    wait_for("the old model's report", || received.reports().len() == 1);
    tiny_writer("0.0.2").write(&place.path("newer")).unwrap();
    reload(&place, &daemon, place.path("tiny").to_str().unwrap(), place.path("newer").to_str().unwrap());
    wait_for("the new model on the status", || {
        received.last_status().is_some_and(|json| json["model"]["version"] == "0.0.2" && json["status"] == "online")
    });
    // The same image: judged anew, since it is another model's report.
    place.drop_file("again.png", &png(1));
    wait_for("the new model's report", || received.reports().len() == 2);
    let reports = received.reports();
    let versions: Vec<_> = reports.iter().map(|report| report.model.version.as_str()).collect();
    assert_eq!(versions, ["0.0.1", "0.0.2"]);
    assert_ne!(reports[0].report_id, reports[1].report_id);
    assert_eq!(place.log().matches("connected to the broker").count(), 1);
    // Another bundle in the same place, as a package's upgrade leaves it.
    fs::remove_dir_all(place.path("newer")).unwrap();
    tiny_writer("0.0.3").write(&place.path("newer")).unwrap();
    daemon.signal("HUP");
    wait_for("the third model on the status", || {
        received.last_status().is_some_and(|json| json["model"]["version"] == "0.0.3")
    });
}
