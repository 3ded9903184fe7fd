//! The promise: whatever ends the daemon between a report and its results, and whoever judges, the results come to the PACS once,
//! and the report does not wait for them. Real daemon, real mosquitto, a stub of a PACS.

mod common;
#[path = "support/pacs.rs"]
mod pacs;
#[path = "support/stub_pacs.rs"]
mod stub_pacs;
mod support;

use common::dicom::EXPLICIT;
use pacs::{file, section};
use roentgen::assess::Assessor;
use roentgen::bundle::Bundle;
use roentgen::radiograph::{Limits, open_bytes};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};
use stub_pacs::{STORE, StubPacs};
use support::daemon::{Place, Received};
use support::{names, wait_for};

/// What lies in a folder of the results.
fn lying(place: &Place, folder: &str) -> Vec<String> {
    names(&place.path("state/results").join(folder))
}

#[test]
fn a_report_does_not_wait_for_a_folder_and_a_crash_before_the_release_loses_nothing() {
    let Some(place) = Place::new() else { return };
    let pacs = StubPacs::new(EXPLICIT, |_| STORE);
    place.configure_more(&section(pacs.port, "[telemetry]\ninterval_s = 5"));
    // Something in the way of its first result, where this goes when the report is durable.
    let bundle = Bundle::open(&place.path("tiny")).unwrap();
    let assessor = Assessor::new(&bundle, "box-t", Default::default()).unwrap();
    let radiograph = open_bytes(&file(1), &Limits::default(), &common::key()).unwrap();
    let id = assessor.report_id(&radiograph.origin);
    let in_the_way = place.path("state/results/waiting").join(format!("{:020}-{id}-sr.dcm", 1));
    fs::create_dir_all(in_the_way.join("full")).unwrap();
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "consumer");
    let mut daemon = place.daemon();
    let started = Instant::now();
    place.drop_file("a.dcm", &file(1));
    wait_for("the report", || received.count() == 1);
    assert!(started.elapsed() < Duration::from_secs(45), "it must not wait until the drain looks by itself");
    wait_for("the log to say so", || place.log().contains("cannot queue a result in"));
    let picture =
        || fs::metadata(place.path("state/results/staged").join(format!("{id}-secondary_capture.dcm"))).unwrap().ino();
    let before = picture();
    wait_for("telemetry", || {
        received.on("telemetry").iter().any(|(_, telemetry)| telemetry["intake"]["open"] == false)
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(picture(), before, "what waits is not written again and again");
    assert!(received.on("telemetry").iter().all(|(_, telemetry)| telemetry["counts"]["repeated"] == 0));
    assert_eq!((names(&place.path("done")).len(), lying(&place, "staged").len(), pacs.count()), (0, 2, 0));
    daemon.signal("KILL");
    daemon.wait();
    fs::remove_dir_all(&in_the_way).unwrap();
    let _daemon = place.daemon();
    wait_for("report and picture", || pacs.count() == 2);
    wait_for("it to be settled", || names(&place.path("done")).len() == 1);
    wait_for("nothing to wait", || lying(&place, "waiting").is_empty());
    assert_eq!((lying(&place, "staged").len(), pacs.count(), received.hashes().len()), (0, 2, 1), "{}", place.log());
}

#[test]
fn what_a_trial_has_judged_comes_back_to_the_pacs_too() {
    let Some(place) = Place::new() else { return };
    let pacs = StubPacs::new(EXPLICIT, |_| STORE);
    place.configure_more(&section(pacs.port, ""));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "consumer");
    fs::create_dir(place.path("state")).unwrap();
    place.drop_file("suspect.dcm", &file(1));
    // What a daemon leaves behind that dies with this file at hand.
    let metadata = fs::metadata(place.path("incoming/suspect.dcm")).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let note = serde_json::json!({"boot": boot.trim(), "run": 1, "file": {
        "device": metadata.dev(), "inode": metadata.ino(), "size": metadata.size(),
        "modified": [metadata.mtime(), metadata.mtime_nsec()], "changed": [metadata.ctime(), metadata.ctime_nsec()],
    }});
    fs::write(place.path("state/at-hand"), note.to_string()).unwrap();
    let _daemon = place.daemon();
    wait_for("report and picture", || pacs.count() == 2);
    wait_for("it to be settled", || names(&place.path("done")).len() == 1);
    assert!(place.log().contains("in a process of its own"), "{}", place.log());
    assert_eq!((received.count(), lying(&place, "staged").len()), (1, 0));
}
