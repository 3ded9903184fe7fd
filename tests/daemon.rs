//! The real daemon against a real mosquitto: what is dropped is reported, exactly once while all goes well and at least
//! once when it does not.

mod support;

use roentgen::bundle::sha256_hex;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use support::daemon::{Place, Received, retained_status};
use support::{names, png, wait_for};

#[test]
fn two_hundred_files_at_once_are_each_reported_once_or_rejected_with_a_reason() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");

    let (mut good, mut bad) = (BTreeMap::new(), BTreeSet::new());
    let mut growing = Vec::new();
    for seed in 0..200u64 {
        let bytes = png(seed);
        match seed % 10 {
            // Broken: cut off, not an image at all, empty.
            3 => drop(bad.insert((format!("cut-{seed}.png"), bytes[..bytes.len() / 2].to_vec()))),
            6 => drop(bad.insert((format!("text-{seed}.png"), b"no image".to_vec()))),
            // Half-written and finished later: by a rename, and by a writer that keeps the file open meanwhile.
            7 => {
                place.drop_file(&format!("late-{seed}.png.part"), &bytes);
                good.insert(format!("late-{seed}.png"), sha256_hex(&bytes));
            }
            9 => {
                let name = format!("growing-{seed}.png");
                let mut writer = File::create(place.path("incoming").join(&name)).unwrap();
                writer.write_all(&bytes[..bytes.len() / 3]).unwrap();
                growing.push((writer, bytes[bytes.len() / 3..].to_vec()));
                good.insert(name, sha256_hex(&bytes));
            }
            _ => {
                let name = format!("good-{seed}.png");
                place.drop_file(&name, &bytes);
                good.insert(name, sha256_hex(&bytes));
            }
        }
    }
    for (name, bytes) in &bad {
        place.drop_file(name, bytes);
    }
    let unfinished = 40;
    wait_for("all finished files to leave", || names(&place.path("incoming")).len() == unfinished);
    assert!(
        names(&place.path("incoming")).iter().all(|name| name.starts_with("late-") || name.starts_with("growing-"))
    );
    for (mut writer, rest) in growing {
        writer.write_all(&rest).unwrap();
    }
    for name in names(&place.path("incoming")).iter().filter(|name| name.ends_with(".part")) {
        let path = place.path("incoming").join(name);
        fs::rename(&path, path.with_extension("")).unwrap();
    }
    wait_for("the folder to be empty", || names(&place.path("incoming")).is_empty());
    wait_for("all reports", || received.reports().len() >= good.len());
    // One image again: it is settled, and no second report comes of it.
    place.drop_file("again.png", &png(0));
    wait_for("the repeated image to leave", || names(&place.path("incoming")).is_empty());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    received.wait_for_status("offline");

    let expected: BTreeMap<_, _> = good.values().map(|hash| (hash.clone(), 1)).collect();
    assert_eq!(received.hashes(), expected, "{}", place.log());
    let sequences: Vec<_> = received.reports().iter().map(|report| report.sequence).collect();
    assert_eq!(sequences, (1..=good.len() as u64).collect::<Vec<_>>(), "in order, without a gap");
    let mut done: Vec<_> = good.keys().cloned().chain(["again.png".into()]).collect();
    done.sort();
    assert_eq!(names(&place.path("done")), done);
    let mut rejected: Vec<_> = bad.iter().flat_map(|(name, _)| [name.clone(), format!("{name}.reason.json")]).collect();
    rejected.sort();
    assert_eq!(names(&place.path("rejected")), rejected);
    for (name, _) in &bad {
        let reason = fs::read_to_string(place.path("rejected").join(format!("{name}.reason.json"))).unwrap();
        let reason: serde_json::Value = serde_json::from_str(&reason).unwrap();
        let code = if name.starts_with("cut") { "damaged" } else { "unknown_format" };
        assert_eq!(reason["code"], code, "{reason}");
    }
    assert_eq!(retained_status(place.port)["reason"], "stopped");
}

#[test]
fn reports_made_while_the_broker_was_away_arrive_when_it_is_back() {
    let Some(place) = Place::new() else { return };
    let mut broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    broker.signal("TERM");
    broker.wait();

    let mut daemon = place.daemon();
    let mut expected = BTreeMap::new();
    for seed in 0..20 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
        expected.insert(sha256_hex(&png(seed)), 1);
    }
    // Judging does not wait for the broker.
    wait_for("the files to leave without a broker", || names(&place.path("done")).len() == 20);
    assert!(names(&place.path("incoming")).is_empty() && received.reports().is_empty());
    let _broker = place.broker();
    wait_for("all reports", || received.reports().len() >= 20);
    received.wait_for_status("online");
    daemon.signal("INT");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    assert_eq!(received.hashes(), expected);
}

#[test]
fn a_stop_without_a_broker_is_graceful_and_keeps_the_reports() {
    let Some(place) = Place::new() else { return };
    let mut daemon = place.daemon();
    place.drop_file("a.png", &png(1));
    wait_for("the file to leave", || names(&place.path("done")) == ["a.png"]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());

    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    wait_for("the report of the earlier run", || received.reports().len() == 1);
}

#[test]
fn a_kill_in_the_middle_of_work_loses_nothing() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut expected = BTreeSet::new();
    for seed in 0..90 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
        expected.insert(sha256_hex(&png(seed)));
    }
    for killed_after in [10, 40] {
        let mut daemon = place.daemon();
        wait_for("some reports", || received.reports().len() >= killed_after);
        daemon.signal("KILL");
        assert_eq!(daemon.wait().code(), None);
        wait_for("the last will", || received.last_status().is_some_and(|json| json["reason"] == "connection lost"));
    }
    let mut daemon = place.daemon();
    wait_for("all reports", || received.hashes().len() == expected.len());
    wait_for("the folder to be empty", || names(&place.path("incoming")).is_empty());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());

    assert_eq!(received.hashes().into_keys().collect::<BTreeSet<_>>(), expected);
    assert_eq!(names(&place.path("done")).len(), 90, "{}", place.log());
    assert!(names(&place.path("rejected")).is_empty());
    // A repetition is the same report: consumers drop it by its id.
    let mut sequences = BTreeMap::new();
    for report in received.reports() {
        let first = sequences.entry(report.report_id.clone()).or_insert(report.sequence);
        assert_eq!(*first, report.sequence);
    }
    assert_eq!(sequences.len(), 90);
    assert!(Path::new(&place.path("state/outbox.sqlite3")).is_file());
}
