//! The promise: a file that crashes the whole program is tried apart from it, after all others, and refused on that evidence
//! only.
//!
//! Daemon and trial run here as child processes of this very test, with a classifier that aborts at certain images: no such
//! thing is in the program itself. The real trial is asked as well.

mod support;

use roentgen::assess::{self, Assessor};
use roentgen::bundle::Bundle;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::{Classifier, ClassifyError, Evidence, native};
use roentgen::outbox::{self, Outbox};
use roentgen::pipeline::{self, Line};
use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, open_file};
use roentgen::report::Report;
use roentgen::sink::{Sink, SinkError};
use roentgen::source::decoder::Decoder;
use roentgen::source::folder::{self, Folder, trial::Answer};
use roentgen::source::process::Program;
use roentgen::status::Status;
use roentgen::tensor::Tensor;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::stdin;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, abort};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use support::daemon::{Place, Received};
use support::{names, png, tiny_bundle, wait_for};

fn key() -> Key {
    Key::from_bytes([7; 32])
}

/// This test's own program, to run one of the ignored functions below; `arguments` are filters that fit no other.
fn this(function: &str, arguments: &[&Path]) -> Program {
    let own = ["--exact", function, "--ignored", "--nocapture"].map(OsString::from);
    let arguments = own.into_iter().chain(arguments.iter().map(|path| path.as_os_str().to_owned()));
    Program::new(&std::env::current_exe().unwrap(), arguments)
}

/// The path among this process's arguments.
fn argument() -> PathBuf {
    std::env::args_os().map(PathBuf::from).rfind(|path| path.is_absolute() && path.is_dir()).unwrap()
}

/// Aborts on an image of one grey level.
struct Fragile(Loaded);

impl Classifier for Fragile {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        if image.data().iter().all(|&level| level == image.data()[0]) {
            abort();
        }
        self.0.classify(image)
    }
}

fn poison(level: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let grey = image::GrayImage::from_pixel(96, 96, image::Luma([level]));
    grey.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

fn judge_of(root: &Path) -> (Fragile, Assessor) {
    let bundle = Bundle::open(&root.join("tiny")).unwrap();
    let classifier = Fragile(Loaded::fastest(&bundle, &native::Config::default(), None).unwrap());
    (classifier, Assessor::new(&bundle, "box-t", assess::Config::default()).unwrap())
}

#[test]
#[ignore = "a process that the test below starts"]
fn trial_process() {
    let (mut classifier, assessor) = judge_of(&argument());
    let radiograph = open_file(&File::from(stdin().as_fd().try_clone_to_owned().unwrap()), &Limits::default(), &key());
    let now = SystemTime::now();
    let report = pipeline::judge(&radiograph.unwrap(), now, Duration::ZERO, &mut classifier, &assessor).unwrap();
    let answer = serde_json::to_vec(&Answer::Report(Box::new(report))).unwrap();
    // The test's own harness has written there before: only the answer may stand there.
    let out = File::from(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    out.set_len(0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&out, &answer, 0).unwrap();
    std::process::exit(0);
}

/// Takes every report.
struct Everything;

impl Sink for Everything {
    fn publish(&mut self, _: &Report) -> Result<(), SinkError> {
        Ok(())
    }
}

#[test]
#[ignore = "a process that the test below starts"]
fn daemon_process() {
    let root = argument();
    let (mut classifier, assessor) = judge_of(&root);
    let config =
        folder::Config { incoming: root.join("incoming"), settle_ms: 100, poll_ms: 50, ..folder::Config::default() };
    let folder = Folder::open(&config, Decoder::in_process(Limits::default(), key())).unwrap();
    let mut source = folder.with_trials(this("trial_process", &[&root]), &root.join("state"));
    let outbox = Outbox::open(&root.join("state/outbox.sqlite3"), &outbox::Config::default()).unwrap();
    let (mut sink, status) = (Everything, Status::default());
    let line = Line {
        source: &mut source,
        classifier: &mut classifier,
        sink: &mut sink,
        assessor: &assessor,
        results: None,
        gallery: None,
        status: &status,
    };
    pipeline::run(line, &Mutex::new(outbox), &mut || !root.join("stop").exists()).unwrap();
}

/// Starts the daemon; it ends with its test.
fn start(root: &Path) -> support::Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "daemon_process", "--ignored", "--nocapture"]).arg(root);
    let log = File::options().create(true).append(true).open(root.join("log")).unwrap();
    support::Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
}

#[test]
fn a_file_that_crashes_the_program_is_tried_apart_and_refused_and_no_other_is() {
    let place = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(place.path()).unwrap();
    tiny_bundle(&root);
    fs::create_dir(root.join("state")).unwrap();
    fs::create_dir(root.join("incoming")).unwrap();
    fs::write(root.join("incoming/poison.png"), poison(7)).unwrap();
    // Crashes at the poisoned one.
    assert_eq!(start(&root).wait().code(), None);
    assert_eq!(names(&root.join("incoming")), ["poison.png"]);
    // The next one puts it behind the others, and outlives its trials.
    for seed in 0..20 {
        fs::write(root.join(format!("incoming/{seed}.png")), png(seed)).unwrap();
    }
    let log = || fs::read_to_string(root.join("log")).unwrap();
    let mut daemon = start(&root);
    wait_for("the poisoned file to be refused", || names(&root.join("rejected")).len() == 2);
    assert_eq!(names(&root.join("done")).len(), 20, "{}", log());
    let reason = fs::read_to_string(root.join("rejected/poison.png.reason.json")).unwrap();
    assert!(reason.contains("crashed_the_program"), "{reason}");

    // A good one that was at hand when somebody killed the daemon is judged by its trial.
    daemon.signal("KILL");
    daemon.wait();
    fs::write(root.join("incoming/innocent.png"), png(50)).unwrap();
    note_at_hand(&root.join("state"), &root.join("incoming/innocent.png"));
    let mut daemon = start(&root);
    wait_for("the innocent one to be reported", || names(&root.join("done")).len() == 21);
    assert!(names(&root.join("incoming")).is_empty() && names(&root.join("rejected")).len() == 2, "{}", log());
    wait_for("nobody to be suspected any more", || {
        fs::read_to_string(root.join("state/suspects.json")).unwrap() == "[]"
    });
    fs::write(root.join("stop"), "").unwrap();
    assert!(daemon.wait().success(), "{}", log());
}

/// What a daemon leaves behind that dies with a file at hand.
fn note_at_hand(state: &Path, file: &Path) {
    let metadata = fs::metadata(file).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let note = serde_json::json!({"boot": boot.trim(), "run": 1, "file": {
        "device": metadata.dev(), "inode": metadata.ino(), "size": metadata.size(),
        "modified": [metadata.mtime(), metadata.mtime_nsec()], "changed": [metadata.ctime(), metadata.ctime_nsec()],
    }});
    fs::write(state.join("at-hand"), note.to_string()).unwrap();
}

#[test]
fn the_real_trial_reports_a_suspect_that_is_innocent() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    fs::create_dir(place.path("state")).unwrap();
    place.drop_file("suspect.png", &png(1));
    place.drop_file("letter.txt", b"no image");
    note_at_hand(&place.path("state"), &place.path("incoming").join("suspect.png"));
    let mut daemon = place.daemon();
    // It is judged by the configuration in force, not by what stands on the disk now and was asked for by nobody.
    wait_for("the daemon to run", || place.log().contains("takes images from"));
    fs::write(place.path("roentgend.toml"), "half a configu").unwrap();
    wait_for("its report", || received.reports().len() == 1);
    wait_for("the folder to be empty", || names(&place.path("incoming")).is_empty());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    assert!(place.log().contains("in a process of its own"), "{}", place.log());
    assert_eq!(names(&place.path("done")), ["suspect.png"]);
    assert_eq!(names(&place.path("rejected")), ["letter.txt", "letter.txt.reason.json"]);
    // Its report is the one that the daemon itself would have made.
    assert!(received.reports()[0].sequence == 1 && received.reports()[0].device == "box-t");
}
