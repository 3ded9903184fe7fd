//! The outbox's promises: durable on return, one row a report, oldest first, sent only when marked.

use proptest::prelude::*;
use roentgen::outbox::{Enqueued, Outbox, OutboxError};
use roentgen::radiograph::{Origin, OriginKind};
use roentgen::report::{Clock, Decision, Finding, Label, ModelIdentity, NOTICE, Report, SCHEMA, Timing};

fn report(id: &str) -> Report {
    Report {
        schema: SCHEMA.into(),
        report_id: id.into(),
        device: "box-1".into(),
        sequence: 0,
        received_at: "2026-01-01T00:00:00.000Z".into(),
        clock: Clock::Unsynchronised,
        origin: Origin {
            kind: OriginKind::Dicom,
            content_sha256: id.into(),
            study: Some("0123456789abcdef".into()),
            series: None,
            instance: None,
            modality: Some("CR".into()),
            view: None,
        },
        model: ModelIdentity { name: "cxr-vgg16".into(), version: "1.0.0".into(), sha256: "00".into() },
        backend: "onnx".into(),
        findings: Label::ALL.map(|label| Finding { label, probability: 0.1 }),
        decision: Decision::Reported { label: Label::Covid },
        evidence_map: None,
        timing_ms: Timing { decode: 1.25, preprocess: 2.5, infer: 300.125, total: 303.875 },
        notice: NOTICE.into(),
    }
}

#[test]
fn a_queued_report_is_there_after_the_process_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path).unwrap();
    assert_eq!(outbox.enqueue(&report("a")).unwrap(), Enqueued::Queued(1));
    // A copy of the files as they are now is what a killed process leaves behind: nothing was closed or flushed.
    let left = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    let found = Outbox::open(&left.path().join("outbox.sqlite3")).unwrap().next_unsent().unwrap().unwrap();
    assert_eq!(found, Report { sequence: 1, ..report("a") });
}

#[test]
fn the_same_image_is_queued_once_whether_or_not_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::open(&folder.path().join("outbox.sqlite3")).unwrap();
    assert_eq!(outbox.enqueue(&report("a")).unwrap(), Enqueued::Queued(1));
    assert_eq!(outbox.enqueue(&report("a")).unwrap(), Enqueued::AlreadyKnown { sequence: 1, sent: false });
    outbox.mark_sent(1).unwrap();
    assert_eq!(outbox.enqueue(&report("a")).unwrap(), Enqueued::AlreadyKnown { sequence: 1, sent: true });
    assert_eq!(outbox.next_unsent().unwrap(), None);
    assert_eq!(outbox.enqueue(&report("b")).unwrap(), Enqueued::Queued(2));
}

#[test]
fn a_file_of_a_newer_version_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    drop(Outbox::open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Outbox::open(&path).expect_err("version 99");
    assert!(matches!(error, OutboxError::Schema { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("outbox.sqlite3"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    std::fs::write(&path, "this is a text and not a database, and it is long enough to be looked at ".repeat(20))
        .unwrap();
    for error in [Outbox::open(&path).expect_err("a text file"), Outbox::waiting(&path).expect_err("a text file")] {
        assert!(matches!(error, OutboxError::Unsound { .. }), "{error:?}");
        let error = error.to_string();
        assert!(error.contains("outbox.sqlite3") && error.contains("move it away"), "{error}");
    }
}

#[test]
fn waiting_reports_are_counted_beside_a_writer_and_without_touching_a_closed_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a ?b#c%20.sqlite3");
    let mut outbox = Outbox::open(&path).unwrap();
    outbox.enqueue(&report("a")).unwrap();
    outbox.enqueue(&report("b")).unwrap();
    outbox.mark_sent(1).unwrap();
    assert_eq!(Outbox::waiting(&path).unwrap(), 1, "what stands in the WAL counts");
    drop(outbox);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(Outbox::waiting(&path).unwrap(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no WAL was made");
    assert!(Outbox::waiting(&folder.path().join("none")).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(u8),
    SendOldest,
    Mark(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12).prop_map(Step::Enqueue),
        3 => Just(Step::SendOldest),
        1 => (0u8..12).prop_map(Step::Mark),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whatever order, the outbox equals a list with a flag.
    #[test]
    fn it_behaves_like_a_list_with_a_flag(steps in proptest::collection::vec(step(), 1..30)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.sqlite3");
        let mut outbox = Outbox::open(&path).unwrap();
        let mut list: Vec<(String, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Enqueue(n) => {
                    let id = format!("id-{n}");
                    let expected = match list.iter().position(|(known, _)| *known == id) {
                        Some(at) => Enqueued::AlreadyKnown { sequence: at as u64 + 1, sent: list[at].1 },
                        None => {
                            list.push((id.clone(), false));
                            Enqueued::Queued(list.len() as u64)
                        }
                    };
                    prop_assert_eq!(outbox.enqueue(&report(&id)).unwrap(), expected);
                }
                Step::SendOldest => {
                    let expected = list.iter().position(|(_, sent)| !sent);
                    let found = outbox.next_unsent().unwrap();
                    prop_assert_eq!(found.as_ref().map(|r| r.report_id.clone()), expected.map(|at| list[at].0.clone()));
                    if let (Some(at), Some(report)) = (expected, found) {
                        prop_assert_eq!(report.sequence, at as u64 + 1);
                        outbox.mark_sent(report.sequence).unwrap();
                        list[at].1 = true;
                    }
                }
                Step::Mark(n) => {
                    outbox.mark_sent(u64::from(n) + 1).unwrap();
                    if let Some(entry) = list.get_mut(usize::from(n)) {
                        entry.1 = true;
                    }
                }
                Step::Reopen => {
                    drop(outbox);
                    outbox = Outbox::open(&path).unwrap();
                }
            }
            prop_assert_eq!(outbox.unsent().unwrap(), list.iter().filter(|(_, sent)| !sent).count() as u64);
        }
    }
}
