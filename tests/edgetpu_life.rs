//! The promise: an accelerator's process lives no longer than it is of use. One that hangs, and that of a daemon that was
//! killed, is gone; one that fails is tried again, after longer and longer pauses. And `backend = "auto"` takes an accelerator
//! where it was the fastest, falls back where it then fails, and believes none that was compared with nothing.
#![cfg(all(feature = "host", feature = "edgetpu"))]

#[path = "support/accelerator.rs"]
mod accelerator;
mod support;

use accelerator::{Bench, tflite};
use roentgen::bundle::{BundleWriter, EDGETPU_FILE, Manifest};
use roentgen::classifier::Classifier;
use roentgen::classifier::edgetpu::Config;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::daemon::{Place, Received};
use support::{png, wait_for};

/// The processes that have asked the stub for a delegate.
struct Log(PathBuf);

impl Log {
    fn new(bench: &Bench) -> Self {
        Self(bench.folder.path().join("log"))
    }

    fn text(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn processes(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn last(&self) -> String {
        self.processes().pop().expect("a process")
    }
}

/// Whether there is a process of this number, be it one that ended and was not waited for.
fn lives(process: &str) -> bool {
    Path::new("/proc").join(process).exists()
}

#[test]
fn a_process_that_hangs_or_is_of_no_more_use_is_gone() {
    let Some(bench) = Bench::new() else { return };
    let log = Log::new(&bench);
    let mut guarded = bench.start(bench.config(&[("mode", "hang"), ("after", "1"), ("log", log.text())]));
    let process = log.last();
    assert!(lives(&process));
    bench.must_fall_back(&mut guarded, "took longer than 1 s");
    wait_for("the one that hangs to be gone", || !lives(&process));
    let guarded = bench.start(bench.config(&[("log", log.text())]));
    let process = log.last();
    assert!(lives(&process));
    drop(guarded);
    wait_for("the one without use to be gone", || !lives(&process));
    // And one that the daemon does not wait for: it hangs before it is ready.
    let config = Config { start_seconds: 1, ..bench.config(&[("mode", "stuck"), ("log", log.text())]) };
    bench.must_fall_back(&mut bench.start(config), "its start took longer than 1 s");
    wait_for("the one that is stuck to be gone", || !lives(&log.last()));
}

#[test]
fn the_pauses_between_tries_become_longer() {
    let Some(bench) = Bench::new() else { return };
    let log = Log::new(&bench);
    let begun = Instant::now();
    let mut guarded = bench.start(bench.config(&[("mode", "null"), ("log", log.text())]));
    wait_for("a third try", || {
        guarded.tend();
        log.processes().len() == 3
    });
    // One second, then two.
    assert!(begun.elapsed() >= Duration::from_millis(2900), "{:?}", begun.elapsed());
    assert!(log.processes()[..2].iter().all(|process| !lives(process)));
}

#[test]
fn an_accelerator_that_nothing_can_be_compared_with_judges_nobody() {
    let Some(bench) = Bench::new() else { return };
    let network = bench.bundle.network().unwrap();
    let writer = BundleWriter::new(Manifest::for_network("tiny", "0.0.1", &network), &network, &[]).unwrap();
    let writer = writer.file(EDGETPU_FILE, tflite::write_behind(&network, "edgetpu-custom-op"));
    let bundle = writer.write(&bench.folder.path().join("without")).unwrap();
    bench.must_fall_back(&mut bench.start_bundle(bench.config(&[]), bundle), "no golden vectors");
}

#[test]
fn auto_takes_the_accelerator_where_it_was_the_fastest_and_falls_back_where_it_fails() {
    let Some(bench) = Bench::new() else { return };
    let Some(place) = Place::new() else { return };
    place.configure(bench.bundle.dir(), "allow_unsigned = true");
    let (log, mode) = (Log::new(&bench), bench.folder.path().join("mode"));
    fs::write(&mode, "works").unwrap();
    place.configure_more(&format!(
        "[accelerator]\ndelegate = {:?}\nlibrary = {:?}\nretry_seconds = 1\ntolerance = 2\n\
         [accelerator.options]\nmode_file = {mode:?}\nlog = {:?}\n",
        bench.stub(),
        bench.library,
        log.text()
    ));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "auto");
    let start = || {
        let before = place.log().len();
        let daemon = place.daemon();
        wait_for("the daemon to run", || place.log()[before..].contains("takes images from"));
        (daemon, place.log()[before..].to_owned())
    };
    let judge = |name: &str, seed: u64| {
        let count = received.count();
        place.drop_file(name, &png(seed));
        wait_for("a report", || received.count() > count);
        received.reports().pop().unwrap().backend
    };
    let (mut daemon, told) = start();
    assert!(told.contains("(measured): native ") && told.contains("edgetpu "), "{told}");
    daemon.signal("TERM");
    daemon.wait();

    let file = place.path("state/backends.json");
    let measure = |min_ms: f64| {
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let rows = json["entries"][0]["measured"].as_array_mut().unwrap();
        let row = rows.iter_mut().find(|row| row["backend"] == "edgetpu").unwrap();
        assert!(row["largest_difference"].as_u64() <= Some(2), "{row}");
        row["min_ms"] = min_ms.into();
        fs::write(&file, json.to_string()).unwrap();
    };

    // Where it is the slower one it judges by name only, and no longer when a reload asks for the fastest.
    measure(1e6);
    let path = place.path("roentgend.toml");
    let auto = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("backend = \"edgetpu\"\n{auto}")).unwrap();
    let (mut daemon, _) = start();
    assert_eq!(judge("by-name.png", 11), "edgetpu");
    fs::write(&path, auto).unwrap();
    let (tries, before) = (log.processes().len(), place.log().len());
    daemon.signal("HUP");
    wait_for("the reload", || place.log()[before..].contains("read the configuration again"));
    assert_eq!(judge("by-time.png", 12), "native");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((judge("still.png", 13).as_str(), log.processes().len()), ("native", tries));
    daemon.signal("TERM");
    daemon.wait();

    // As where the accelerator is faster than this machine's processor.
    measure(1e-6);
    let (mut daemon, told) = start();
    assert!(told.contains("(measured before): native "), "{told}");
    assert_eq!(judge("a.png", 1), "edgetpu", "{}", place.log());
    let process = log.last();
    assert!(lives(&process));
    daemon.signal("KILL");
    daemon.wait();
    wait_for("the accelerator's process to end with its daemon", || !lives(&process));

    // Unplugged while the box was off.
    fs::write(&mode, "null").unwrap();
    let (mut daemon, _) = start();
    assert_eq!(judge("b.png", 2), "native");
    wait_for("the status to say so", || {
        received.last_status().is_some_and(|status| status["backend_fallback"]["wanted"] == "edgetpu")
    });
    fs::write(&mode, "works").unwrap();
    wait_for("the status to say that it is back", || {
        received
            .last_status()
            .is_some_and(|status| status["status"] == "online" && status["backend_fallback"].is_null())
    });
    assert_eq!(judge("c.png", 3), "edgetpu");
    daemon.signal("TERM");
    assert!(daemon.wait().success(), "{}", place.log());

    // Another driver is another accelerator: what was measured of the old one says nothing about it.
    let driver = fs::read(bench.stub()).unwrap();
    fs::remove_file(bench.stub()).unwrap();
    fs::write(bench.stub(), driver).unwrap();
    let (mut daemon, told) = start();
    assert!(told.contains("(measured): native "), "{told}");
    daemon.signal("TERM");
    daemon.wait();
}
