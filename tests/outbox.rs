//! The outbox's promises: durable on return, one row a report, oldest first, sent only when marked.

#[path = "common/queue.rs"]
mod queue;

use proptest::prelude::*;
use queue::{copy_as_killed, enqueue, report, unsent};
use roentgen::outbox::{Config, Enqueued, Outbox, OutboxError, waiting};
use roentgen::report::{EvidenceMap, Report};
use std::path::Path;

fn open(path: &Path) -> Outbox {
    Outbox::open(path, &Config::default()).unwrap()
}

#[test]
fn a_queued_report_is_there_after_the_process_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = open(&path);
    assert_eq!(outbox.enqueue(&report(5)).unwrap(), Enqueued::Queued(1));
    let left = folder.path().join("left.sqlite3");
    copy_as_killed(&path, &left);
    let mut outbox = open(&left);
    assert!(outbox.set_aside().is_none());
    let batch = outbox.next_batch(10).unwrap();
    assert_eq!(batch.len(), 1);
    assert_eq!((batch[0].sequence, batch[0].report_id.as_str()), (1, report(5).report_id.as_str()));
    assert_eq!(batch[0].report().unwrap(), Report { sequence: 1, ..report(5) });
}

#[test]
fn whatever_step_a_process_is_killed_at_nothing_is_lost_and_nothing_comes_twice_but_with_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = open(&path);
    let mut left = Vec::new();
    let mut kill = |queued: u64, sent: u64| {
        let copy = folder.path().join(format!("left-{}.sqlite3", left.len()));
        copy_as_killed(&path, &copy);
        left.push((copy, queued, sent));
    };
    for n in 1..=12 {
        kill(n - 1, (n - 1) / 3 * 3);
        enqueue(&mut outbox, [n]);
        kill(n, (n - 1) / 3 * 3);
        if n % 3 == 0 {
            outbox.next_batch(2).unwrap();
            kill(n, n - 3);
            outbox.mark_sent_up_to(n).unwrap();
            kill(n, n);
        }
    }
    drop(outbox);
    kill(12, 12);
    for (path, queued, sent) in left {
        let mut outbox = open(&path);
        assert!(outbox.set_aside().is_none());
        assert_eq!(unsent(&mut outbox), (sent + 1..=queued).collect::<Vec<_>>());
        for n in 1..=queued {
            let known = outbox.known(&report(n).report_id).unwrap();
            assert_eq!(known, Some(Enqueued::AlreadyKnown { sequence: n, sent: n <= sent }));
        }
        assert_eq!(outbox.enqueue(&report(99)).unwrap(), Enqueued::Queued(queued + 1));
    }
}

#[test]
fn the_same_image_is_queued_once_whether_or_not_it_was_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(&folder.path().join("outbox.sqlite3"));
    let id = report(1).report_id;
    assert_eq!(outbox.known(&id).unwrap(), None);
    assert_eq!(outbox.enqueue(&report(1)).unwrap(), Enqueued::Queued(1));
    let waits = Enqueued::AlreadyKnown { sequence: 1, sent: false };
    assert_eq!((outbox.enqueue(&report(1)).unwrap(), outbox.known(&id).unwrap()), (waits, Some(waits)));
    outbox.mark_sent_up_to(1).unwrap();
    let sent = Enqueued::AlreadyKnown { sequence: 1, sent: true };
    assert_eq!((outbox.enqueue(&report(1)).unwrap(), outbox.known(&id).unwrap()), (sent, Some(sent)));
    assert!(outbox.next_batch(1).unwrap().is_empty());
    assert_eq!(outbox.enqueue(&report(2)).unwrap(), Enqueued::Queued(2));
}

#[test]
fn a_report_that_is_given_up_holds_up_nobody_and_stays_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = open(&path);
    enqueue(&mut outbox, 1..=3);
    outbox.give_up(1, "too large").unwrap();
    assert_eq!(outbox.take_losses().undeliverable, 1);
    assert_eq!(outbox.take_losses().undeliverable, 0, "told once");
    drop(outbox);
    let mut outbox = open(&path);
    assert_eq!(unsent(&mut outbox), [2, 3]);
    assert!(outbox.known(&report(1).report_id).unwrap().is_some());
}

#[test]
fn a_batch_is_bounded_in_bytes_and_never_empty_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut outbox = open(&folder.path().join("outbox.sqlite3"));
    for n in 1..=4 {
        let large = EvidenceMap { rows: 100, columns: 100, logits: vec![0.123_456_79; 10_000 * 3] };
        outbox.enqueue(&Report { evidence_map: Some(large), ..report(n) }).unwrap();
    }
    let batch = outbox.next_batch(64).unwrap();
    assert_eq!(batch.len(), 1, "{}", batch[0].json.len());
    assert!(batch[0].json.len() > 256 << 10);
}

#[test]
fn a_file_of_a_newer_version_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    drop(open(&path));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Outbox::open(&path, &Config::default()).expect_err("version 99");
    assert!(matches!(error, OutboxError::Schema { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("outbox.sqlite3") && !error.is_passing(), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "it is left as it is");
}

#[test]
fn what_may_pass_is_told_from_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("no/folder/outbox.sqlite3");
    let error = Outbox::open(&missing, &Config::default()).expect_err("no folder");
    assert!(error.is_passing(), "a folder may be mounted later: {error}");
    assert!(error.to_string().contains("no/folder"), "{error}");
}

#[test]
fn waiting_reports_are_counted_beside_a_writer_and_without_touching_a_closed_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a ?b#c%20.sqlite3");
    let mut outbox = open(&path);
    enqueue(&mut outbox, 1..=2);
    outbox.mark_sent_up_to(1).unwrap();
    assert_eq!(waiting(&path).unwrap(), 1, "what stands in the WAL counts");
    drop(outbox);
    let before = std::fs::read(&path).unwrap();
    assert_eq!(waiting(&path).unwrap(), 1);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no WAL was made");
    assert!(waiting(&folder.path().join("none")).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Enqueue(u64),
    SendOldest(usize),
    GiveUpOldest,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..24).prop_map(Step::Enqueue),
        4 => (1usize..5).prop_map(Step::SendOldest),
        1 => Just(Step::GiveUpOldest),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whatever order, the outbox equals a list of ten with a flag: what exceeds ten falls out at
    /// the front, and what was not sent then counts as lost.
    #[test]
    fn it_behaves_like_a_bounded_list_with_a_flag(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox.sqlite3");
        let config = Config { max_reports: 10, ..Config::default() };
        let mut outbox = Outbox::open(&path, &config).unwrap();
        // Sequence, image, whether it needs no more sending.
        let mut list: Vec<(u64, u64, bool)> = Vec::new();
        let (mut last, mut lost) = (0, 0);
        for step in steps {
            match step {
                Step::Enqueue(n) => {
                    let expected = match list.iter().find(|(_, image, _)| *image == n) {
                        Some(&(sequence, _, sent)) => Enqueued::AlreadyKnown { sequence, sent },
                        None => {
                            last += 1;
                            list.push((last, n, false));
                            Enqueued::Queued(last)
                        }
                    };
                    if list.len() > 10 {
                        lost += u64::from(!list.remove(0).2);
                    }
                    prop_assert_eq!(outbox.enqueue(&report(n)).unwrap(), expected);
                }
                Step::SendOldest(most) => {
                    let expected: Vec<_> =
                        list.iter().filter(|(.., sent)| !sent).map(|&(sequence, image, _)| (sequence, report(image).report_id)).take(most).collect();
                    let found = outbox.next_batch(most).unwrap();
                    let found: Vec<_> = found.into_iter().map(|m| (m.sequence, m.report_id)).collect();
                    prop_assert_eq!(&found, &expected);
                    if let Some((sequence, _)) = found.last() {
                        outbox.mark_sent_up_to(*sequence).unwrap();
                        list.iter_mut().filter(|(of, ..)| of <= sequence).for_each(|(.., sent)| *sent = true);
                    }
                }
                Step::GiveUpOldest => {
                    if let Some((sequence, _, sent)) = list.iter_mut().find(|(.., sent)| !sent) {
                        outbox.give_up(*sequence, "a test").unwrap();
                        *sent = true;
                    }
                }
                Step::Reopen => {
                    lost -= outbox.take_losses().dropped;
                    drop(outbox);
                    outbox = Outbox::open(&path, &config).unwrap();
                }
            }
            prop_assert_eq!(outbox.unsent().unwrap(), list.iter().filter(|(.., sent)| !sent).count() as u64);
            prop_assert_eq!(outbox.total(), list.len() as u64);
        }
        prop_assert_eq!(outbox.take_losses().dropped, lost);
    }
}

#[test]
fn what_was_struck_off_is_queued_again_where_it_fits_and_else_stays_struck_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox.sqlite3");
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    enqueue(&mut outbox, 1..=5);
    for sequence in 1..=3 {
        outbox.give_up(sequence, "too large").unwrap();
    }
    let mut asked = Vec::new();
    let requeued = outbox.requeue(&mut |message| {
        asked.push(message.sequence);
        message.sequence != 2
    });
    assert_eq!((requeued.unwrap(), asked), (2, vec![1, 2, 3]));
    assert_eq!((unsent(&mut outbox), outbox.unsent().unwrap(), outbox.total()), (vec![4, 5, 6, 7], 4, 5));
    let batch = outbox.next_batch(10).unwrap();
    assert_eq!(batch[2].report().unwrap(), Report { sequence: 6, ..report(1) });
    assert_eq!(outbox.known(&report(3).report_id).unwrap(), Some(Enqueued::AlreadyKnown { sequence: 7, sent: false }));
    assert_eq!(outbox.requeue(&mut |_| false).unwrap(), 0);
    drop(outbox);
    let mut outbox = Outbox::open(&path, &Config::default()).unwrap();
    assert_eq!(unsent(&mut outbox), [4, 5, 6, 7]);
    assert_eq!(outbox.requeue(&mut |_| true).unwrap(), 1, "the one that was left");
    assert_eq!(unsent(&mut outbox), [4, 5, 6, 7, 8]);
}
