//! The line in one process, without a broker: what is dropped comes out as reports, and is settled. Needs no other program,
//! so that `tests/arm-box` runs it for other processors; the real daemon with its broker is tested in `daemon.rs`.

#[path = "support/tiny.rs"]
mod tiny;

use roentgen::assess::Assessor;
use roentgen::bundle::{Bundle, sha256_hex};
use roentgen::classifier::native::{Config as Engine, NativeClassifier};
use roentgen::outbox::Outbox;
use roentgen::pipeline::{self, Line};
use roentgen::pseudonym::Key;
use roentgen::report::Report;
use roentgen::sink::{Sink, SinkError};
use roentgen::source::decoder::Decoder;
use roentgen::source::folder::{Config, Folder};
use roentgen::status::Status;
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A door that keeps what passes.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Report>>>);

impl Sink for Kept {
    fn publish(&mut self, report: &Report) -> Result<(), SinkError> {
        self.0.lock().unwrap().push(report.clone());
        Ok(())
    }
}

#[test]
fn what_is_dropped_is_judged_reported_and_settled() {
    let root = tempfile::tempdir().unwrap();
    let bundle = Bundle::open(&tiny::tiny_bundle(root.path())).unwrap();
    let incoming = root.path().join("incoming");
    fs::create_dir(&incoming).unwrap();
    let mut expected = BTreeSet::new();
    for seed in 0..8 {
        let bytes = tiny::png(seed);
        expected.insert(sha256_hex(&bytes));
        fs::write(incoming.join(format!("phantom-{seed}.png")), bytes).unwrap();
    }
    fs::write(incoming.join("text.png"), "no image").unwrap();

    let mut classifier = NativeClassifier::load(&bundle, &Engine::default(), None).unwrap();
    let assessor = Assessor::new(&bundle, "box-t", Default::default()).unwrap();
    let key = Key::load_or_create(&root.path().join("key")).unwrap();
    let config = Config { incoming: incoming.clone(), settle_ms: 100, poll_ms: 50, ..Config::default() };
    let mut source = Folder::open(&config, Decoder::in_process(Default::default(), key)).unwrap();
    let mut sink = Kept::default();
    let kept = sink.clone();
    let outbox = Outbox::open(&root.path().join("outbox.sqlite3"), &Default::default()).unwrap();
    let line = Line {
        source: &mut source,
        classifier: &mut classifier,
        sink: &mut sink,
        assessor: &assessor,
        results: None,
        gallery: None,
        status: &Status::default(),
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let left = || fs::read_dir(&incoming).unwrap().count();
    pipeline::run(line, &Mutex::new(outbox), &mut || {
        assert!(Instant::now() < deadline, "{} files are left, {} reports came", left(), kept.0.lock().unwrap().len());
        left() > 0 || kept.0.lock().unwrap().len() < expected.len()
    })
    .unwrap();

    let reports = kept.0.lock().unwrap();
    let hashes: Vec<_> = reports.iter().map(|report| report.origin.content_sha256.clone()).collect();
    assert_eq!(hashes.len(), expected.len(), "once each");
    assert_eq!(hashes.into_iter().collect::<BTreeSet<_>>(), expected);
    assert!(reports.iter().map(|report| report.sequence).eq(1..=8), "in order, without a gap");
    assert!(reports.iter().all(|report| report.backend == "native"));
    assert_eq!(fs::read_dir(root.path().join("done")).unwrap().count(), 8);
    assert!(root.path().join("rejected/text.png.reason.json").is_file());
}
