//! No result is ever lost, whatever happens to the box: the real daemon and a real broker, hundreds of files, and a fault a
//! test. What must hold afterwards is the same for all of them and is looked at from outside: every good image has given
//! its report at least once, no other report came, every repeat is the same report, every bad file lies in `rejected/`
//! with its reason, every good one in `done/`, and nothing half-written lies anywhere (`support/faults/verdict.rs`).
//!
//! Short by default. `ROENTGEN_FAULTS=long` kills the daemon 100 times (a number: so often); `ROENTGEN_FAULTS_SEED` throws
//! the dice of a failure again, which says its seed; `ROENTGEN_FAULTS_KEEP` keeps the folder of a failure;
//! `ROENTGEN_FAULTS_PROGRAM` names another `roentgend` to try, such as an installed one.

mod common;
#[path = "support/faults/mod.rs"]
mod faults;
mod support;

use faults::{Bed, Line, rounds, slow_rounds};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

#[test]
fn killed_at_random_moments_while_files_keep_coming() {
    let Some(mut bed) = Bed::new("kill") else { return };
    bed.open_clinic("incoming", false, 20);
    for _ in 0..rounds(8) {
        bed.start();
        // One in four already while it starts.
        let most = if bed.random.below(4) == 0 { 60 } else { 1200 };
        bed.pass(most);
        bed.kill();
    }
    bed.finish();
}

#[test]
fn killed_at_random_moments_while_the_broker_comes_and_goes() {
    let Some(mut bed) = Bed::new("kill, broker up and down") else { return };
    bed.open_clinic("incoming", false, 20);
    for _ in 0..rounds(8) {
        bed.start();
        for _ in 0..2 {
            bed.pass(600);
            match bed.random.below(4) {
                0 | 1 if !bed.has_broker() => bed.restart_broker(),
                0 => bed.end_broker("KILL"),
                1 => bed.end_broker("TERM"),
                _ => {}
            }
        }
        bed.pass(300);
        bed.kill();
    }
    bed.finish();
}

#[test]
fn the_broker_is_killed_and_restarted_under_a_running_box() {
    let Some(mut bed) = Bed::new("broker restarts") else { return };
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(3) {
        bed.wait_for_reports(10);
        bed.end_broker(if round % 2 == 0 { "KILL" } else { "TERM" });
        bed.wait_for_files(30);
        bed.restart_broker();
    }
    bed.finish();
}

#[test]
fn the_broker_stops_reading() {
    let Some(mut bed) = Bed::new("broker stops reading") else { return };
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(2) {
        bed.wait_for_reports(10);
        bed.signal_broker("STOP");
        // The second time for longer than the box believes in a connection.
        thread::sleep(Duration::from_secs(if round % 2 == 0 { 1 } else { 9 }));
        bed.signal_broker("CONT");
    }
    bed.finish();
}

#[test]
fn the_network_stalls() {
    let Some(mut bed) = Bed::new("network stalls") else { return };
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(2) {
        bed.wait_for_reports(10);
        bed.proxy.set(Line::Stalled);
        thread::sleep(Duration::from_secs(if round % 2 == 0 { 11 } else { 2 }));
        // What was held comes late, or never.
        bed.proxy.set(if round % 2 == 0 { Line::Through } else { Line::Down });
        bed.pass(1000);
        bed.proxy.set(Line::Through);
    }
    bed.finish();
}

#[test]
fn the_network_cuts_packets_in_two_and_delays_them() {
    let Some(mut bed) = Bed::new("network cuts") else { return };
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for _ in 0..slow_rounds(2) {
        bed.wait_for_reports(10);
        bed.proxy.set(Line::Cutting(6000));
        bed.wait_for_files(60);
        bed.proxy.set(Line::Slow(30));
        bed.wait_for_files(30);
        bed.proxy.set(Line::Through);
    }
    bed.finish();
}

#[test]
fn the_disk_of_the_outbox_is_full() {
    let Some(mut bed) = Bed::new("state_dir full") else { return };
    if !bed.mount_memory("state", 8) {
        return;
    }
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for _ in 0..slow_rounds(2) {
        bed.wait_for_reports(20);
        let ballast = bed.fill("state");
        bed.wait_for_files(20);
        thread::sleep(Duration::from_secs(2));
        bed.daemon();
        fs::remove_file(ballast).unwrap();
    }
    bed.finish();
}

#[test]
fn the_disk_of_the_settled_files_is_full() {
    let Some(mut bed) = Bed::new("done/ full") else { return };
    if !bed.mount_memory("done", 32) || !bed.mount_memory("rejected", 8) {
        return;
    }
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(2) {
        bed.wait_for_reports(20);
        let ballast = bed.fill(if round % 2 == 0 { "done" } else { "rejected" });
        bed.wait_for_files(20);
        thread::sleep(Duration::from_secs(2));
        bed.daemon();
        fs::remove_file(ballast).unwrap();
    }
    bed.finish();
}

#[test]
fn the_clock_jumps_by_years() {
    let Some(library) = faketime() else { return };
    let Some(mut bed) = Bed::new("clock jumps") else { return };
    let clock = bed.path("clock");
    let set = |offset: &str| {
        fs::write(clock.with_extension("new"), offset).unwrap();
        fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set("+0");
    bed.set_environment("LD_PRELOAD", &library);
    bed.set_environment("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap());
    bed.set_environment("FAKETIME_NO_CACHE", "1");
    // A clock that is set moves neither what measures durations nor the times that files have.
    bed.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    bed.set_environment("NO_FAKE_STAT", "1");
    // What was sent long ago is forgotten, so that the same image gives its report again.
    bed.forget_what_was_sent();
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(2) {
        // The broker is away, so that there are unsent reports that look old.
        bed.wait_for_reports(10);
        bed.end_broker("TERM");
        for offset in ["+20y", "-30y", "+3650d", "-1d", "+0"] {
            bed.wait_for_files(8);
            set(offset);
            bed.pass(300);
            if round % 2 == 1 && (offset == "+20y" || bed.random.below(2) == 0) {
                bed.kill();
                bed.start();
            }
        }
        set(["-30y", "+20y"][round % 2]);
        bed.restart_broker();
        bed.wait_for_files(20);
    }
    let heard = bed.finish();
    let long_ago = |json: serde_json::Value| json["received_at"].as_str().is_some_and(|time| time < "2000");
    assert!(heard.iter().any(|report| long_ago(report.json())), "the daemon's clock did not jump");
}

/// The library that fakes a process's clock; `None`, said plainly, where it is missing.
fn faketime() -> Option<String> {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.is_file());
    if found.is_none() {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "libfaketime is missing: install the package faketime");
        eprintln!("SKIPPED: libfaketime is missing; install the package faketime to run this test");
    }
    found.map(|library| library.to_str().expect("UTF-8").to_owned())
}

#[test]
fn the_drop_folder_is_unplugged_and_plugged_in_again() {
    let Some(mut bed) = Bed::new("drop folder unplugged") else { return };
    fs::create_dir(bed.path("usb")).unwrap();
    if !bed.mount_folder("usb", "incoming") {
        return;
    }
    bed.open_clinic("usb", true, 20);
    bed.start();
    for _ in 0..slow_rounds(2) {
        bed.wait_for_reports(10);
        bed.unmount("incoming");
        bed.wait_for_files(20);
        bed.pass(1500);
        bed.daemon();
        assert!(bed.mount_folder("usb", "incoming"));
    }
    bed.finish();
}

#[test]
fn folders_are_taken_away_and_come_back() {
    let Some(mut bed) = Bed::new("folders taken away") else { return };
    bed.open_clinic("incoming", true, 20);
    bed.start();
    for round in 0..slow_rounds(3) {
        bed.wait_for_reports(10);
        let folder = ["incoming", "done", "rejected"][round % 3];
        let away = bed.path("away");
        fs::rename(bed.path(folder), &away).unwrap();
        thread::sleep(Duration::from_secs(2));
        bed.daemon();
        // It comes back as another folder with the same files in it. The box may have made it anew meanwhile.
        fs::create_dir_all(bed.path(folder)).unwrap();
        for name in support::names(&away) {
            // The clinic begins anew with what it could not finish.
            if name.starts_with('.') || name.ends_with(".part") {
                fs::remove_file(away.join(name)).unwrap();
                continue;
            }
            // A name of its own, since it may have been given again meanwhile; a reason goes with its file.
            fs::rename(away.join(&name), bed.path(folder).join(format!("{round}-{name}"))).unwrap();
        }
        fs::remove_dir(&away).unwrap();
    }
    bed.finish();
}

#[test]
fn file_systems_become_read_only() {
    let Some(mut bed) = Bed::new("read-only") else { return };
    for folder in ["incoming", "done", "rejected"] {
        let behind = format!("{folder}-disk");
        fs::create_dir(bed.path(&behind)).unwrap();
        if !bed.mount_folder(&behind, folder) {
            return;
        }
    }
    bed.open_clinic("incoming-disk", true, 20);
    bed.start();
    for round in 0..slow_rounds(3) {
        bed.wait_for_reports(10);
        let folder = ["incoming", "done", "rejected"][round % 3];
        bed.set_read_only(folder, true);
        bed.wait_for_files(20);
        thread::sleep(Duration::from_secs(2));
        bed.daemon();
        bed.set_read_only(folder, false);
    }
    bed.finish();
}

#[test]
fn the_disk_of_the_outbox_fails_and_becomes_read_only() {
    let Some(mut bed) = Bed::new("state_dir read-only") else { return };
    if !bed.mount_disk("state", 32) {
        return;
    }
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(2) {
        bed.wait_for_reports(10);
        bed.fail_disk("state");
        support::wait_for("the box to say what is wrong", || {
            bed.log().matches("no image is taken until").count() > round
        });
        bed.wait_for_files(20);
        bed.daemon();
        // Somebody starts it again, or pulls the plug: neither helps as long as the disk is what it is.
        if round % 2 == 0 {
            bed.stop();
        } else {
            bed.kill();
        }
        let reports = bed.reports();
        bed.start();
        let waits = || bed.log().matches("the start waits until this is over").count() > round;
        support::wait_for("the box to say why it waits", waits);
        thread::sleep(Duration::from_secs(3));
        assert_eq!(bed.log().matches("the start waits until this is over").count(), round + 1, "once is enough");
        let status = bed.status();
        assert!(status.contains("read-only"), "{status}");
        bed.daemon();
        assert_eq!(bed.reports(), reports, "it has nothing to work with");
        // It goes on by itself.
        bed.mend_disk("state");
    }
    bed.finish();
}

#[test]
fn the_box_is_out_of_file_descriptors() {
    let Some(mut bed) = Bed::new("out of descriptors") else { return };
    bed.open_clinic("incoming", false, 20);
    bed.start();
    for round in 0..slow_rounds(2) {
        bed.wait_for_reports(10);
        let id = bed.daemon().0.id().to_string();
        let limit = |descriptors: usize| {
            let limit = format!("--nofile={descriptors}:4096");
            let done = Command::new("prlimit").args(["--pid", &id, &limit]).status().expect("prlimit");
            assert!(done.success(), "prlimit {limit}");
        };
        let open = fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        limit(open.saturating_sub(bed.random.below(4)));
        if round % 2 == 1 {
            bed.end_broker("TERM");
            bed.restart_broker();
        }
        bed.wait_for_files(20);
        thread::sleep(Duration::from_secs(2));
        bed.daemon();
        limit(1024);
    }
    bed.finish();
}

#[test]
fn stopped_and_started_in_the_middle_of_work() {
    let Some(mut bed) = Bed::new("SIGTERM") else { return };
    bed.open_clinic("incoming", false, 10);
    for _ in 0..rounds(8).min(40) {
        bed.start();
        let before = bed.reports();
        support::wait_for("reports", || bed.reports() > before);
        bed.pass(700);
        bed.stop();
    }
    bed.finish();
}
