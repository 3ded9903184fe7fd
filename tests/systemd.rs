//! What the daemon tells its service manager: ready once it works, a watchdog beat by its own turns, a reload's
//! begin and end, stopping at last. And how little the unit leaves to it; tests/nspawn/check looks from inside.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use support::{PATIENCE, Process, free_port, output, roentgend, stderr, tiny_bundle};

#[test]
fn the_service_manager_hears_ready_then_the_watchdog_then_stopping() {
    let root = tempfile::tempdir().unwrap();
    let bundle = tiny_bundle(root.path());
    let config = root.path().join("roentgend.toml");
    let text = format!(
        "bundle = {bundle:?}\nstate_dir = {:?}\nbundles.allow_unsigned = true\n[source.folder]\nincoming = {:?}\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n",
        root.path().join("state"),
        root.path().join("drop/incoming"),
        free_port()
    );
    fs::write(&config, text).unwrap();
    let path = root.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut bytes = [0; 512];
        let length = manager.recv(&mut bytes).expect("the daemon has something to say");
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };

    let mut command = roentgend();
    command.args(["run", "--config"]).arg(&config).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000000");
    let mut daemon = Process::spawn(&mut command);
    let mut steps = 0;
    while let said = hear()
        && said != "READY=1"
    {
        assert!(said.starts_with("EXTEND_TIMEOUT_USEC="), "{said}");
        steps += 1;
    }
    assert!(
        steps >= 3,
        "reading the outbox, loading the model and each golden vector may take long, not {steps} things"
    );
    assert!(root.path().join("drop/incoming").is_dir(), "ready means ready");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }

    let second = output(roentgend().args(["run", "--config"]).arg(&config));
    assert_eq!(second.status.code(), Some(1), "{}", stderr(&second));
    assert!(stderr(&second).contains(root.path().join("state/lock").to_str().unwrap()), "{}", stderr(&second));

    daemon.signal("HUP");
    let mut reload = Vec::new();
    while reload.last().is_none_or(|said| said != "READY=1") {
        reload.extend(Some(hear()).filter(|said| said != "WATCHDOG=1"));
    }
    assert_eq!(reload.len(), 3, "{reload:?}");
    let time = reload[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&reload[0]);
    assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{time}");
    assert!(reload[1].starts_with("STATUS="), "{reload:?}");

    daemon.signal("TERM");
    let mut last = BTreeSet::new();
    while !last.contains("STOPPING=1") {
        last.insert(hear());
    }
    assert!(last.iter().all(|said| said == "WATCHDOG=1" || said == "STOPPING=1"), "{last:?}");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn the_unit_leaves_little_for_an_intruder() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/roentgend.service");
    let analysed = Command::new("systemd-analyze").args(["security", "--offline=yes", "--no-pager", unit]).output();
    let Ok(analysed) = analysed else {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "systemd-analyze is missing: install the package systemd");
        eprintln!("SKIPPED: systemd-analyze is missing; install the package systemd to run this test");
        return;
    };
    let said = String::from_utf8_lossy(&analysed.stdout).into_owned();
    let score = said.split("exposure level for roentgend.service: ").nth(1).and_then(|rest| rest.split(' ').next());
    let score: f64 =
        score.and_then(|score| score.parse().ok()).unwrap_or_else(|| panic!("{said}{}", stderr(&analysed)));
    assert!(score <= 1.5, "{said}");
}
