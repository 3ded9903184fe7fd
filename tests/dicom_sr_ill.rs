//! The promise: no object stands in the way of the others, and no passing trouble of the PACS costs one. The PACS here is a stub
//! that is ill in the ways that real ones are; results are made and sent as the daemon does, without the rest of it.

mod common;
#[path = "support/pacs.rs"]
mod pacs;
#[path = "support/stub_pacs.rs"]
mod stub_pacs;
mod support;

use common::dicom::{EXPLICIT, IMPLICIT};
use common::key;
use pacs::file;
use roentgen::radiograph::dicom::Filing;
use roentgen::radiograph::{Limits, phantom};
use roentgen::report::{Clock, Decision, Finding, Label, ModelIdentity, NOTICE, Report, SCHEMA, Timing};
use roentgen::sink::dicom_sr::{Config, Kind, Results, Standing};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};
use stub_pacs::{PICTURE, Reply, SR, STORE, StubPacs};
use support::{free_port, names, wait_for};

fn report(number: u64) -> Report {
    Report {
        schema: SCHEMA.into(),
        report_id: format!("{number:032x}"),
        device: "box-t".into(),
        sequence: number,
        received_at: "2026-01-01T00:00:00.000Z".into(),
        clock: Clock::Synchronised,
        origin: phantom::radiograph(1, 16).origin,
        model: ModelIdentity { name: "m".into(), version: "1.0.0".into(), sha256: "b".repeat(64) },
        backend: "native".into(),
        findings: Label::ALL.map(|label| Finding { label, probability: 0.25 }),
        decision: Decision::Reported { label: Label::Normal },
        evidence_map: None,
        timing_ms: Timing::default(),
        notice: NOTICE.into(),
    }
}

fn time() -> Option<SystemTime> {
    Some(SystemTime::now())
}

/// A box that sends results.
struct Edge {
    folder: tempfile::TempDir,
    results: Results,
}

impl Edge {
    fn new(port: u16, kinds: &[Kind]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let results = Self::results(&folder, port, kinds);
        let mut place = Self { folder, results };
        place.results.begin().unwrap();
        place
    }

    fn results(folder: &tempfile::TempDir, port: u16, kinds: &[Kind]) -> Results {
        let address = format!("127.0.0.1:{port}");
        let config = Config { send: kinds.to_vec(), max_retry_s: 1, ..Config::to(&address, "PACS") };
        Results::new(&config, "box-t", &key(), folder.path(), time).unwrap()
    }

    /// As after a restart or a reload with this PACS.
    fn again(&mut self, port: u16, kinds: &[Kind]) {
        let mut results = Self::results(&self.folder, port, kinds);
        results.succeed(&self.results);
        self.results = results;
        self.results.begin().unwrap();
    }

    /// A report on a radiograph became durable.
    fn put(&self, number: u64) {
        let filing = Filing::of(&file(number), &Limits::default()).unwrap();
        let picture = image::RgbImage::new(8, 8);
        let made = self.results.maker().make(&filing, &report(number), Some(&picture));
        self.results.stage(&made).unwrap();
        self.results.release(&format!("{number:032x}"), number).unwrap();
    }

    fn standing(&self) -> Standing {
        self.results.standing()
    }

    fn lying(&self, folder: &str) -> Vec<String> {
        names(&self.folder.path().join("results").join(folder))
    }
}

/// Does `ill` over the first instance that it is ever offered, and stores all others.
fn ill_over_the_first(ill: Reply) -> impl FnMut(&str) -> Reply + Send + 'static {
    let mut first = None;
    move |instance: &str| {
        let first = first.get_or_insert_with(|| instance.to_owned());
        if first == instance { ill } else { STORE }
    }
}

#[test]
fn an_object_over_which_the_pacs_hangs_up_or_is_busy_does_not_stand_in_the_way() {
    for ill in [Reply::HangUp, Reply::Status(0xa700)] {
        let pacs = StubPacs::new(EXPLICIT, ill_over_the_first(ill));
        let place = Edge::new(pacs.port, &Kind::ALL);
        for number in 1..=4 {
            place.put(number);
        }
        wait_for("all others", || pacs.count() == 7);
        // And those that come later, while it is offered again and again.
        let offered = |pacs: &StubPacs| pacs.offered().iter().filter(|one| **one == pacs.offered()[0]).count();
        wait_for("it to be offered again", || offered(&pacs) >= 3);
        place.put(5);
        wait_for("the late ones", || pacs.count() == 9);
        wait_for("only it to wait", || place.standing().waiting == 1);
        let (trouble, _) = place.standing().trouble.expect("it is told that something waits");
        assert!(trouble.contains(if ill == Reply::HangUp { "aborted" } else { "A700" }), "{trouble}");
        assert_eq!(place.standing().refused, 0, "it may be the PACS");
        pacs.mend(|_| STORE);
        wait_for("it too", || pacs.count() == 10);
        wait_for("all to be well", || place.standing().waiting == 0 && place.standing().trouble.is_none());
        let distinct: BTreeSet<_> = pacs.stored().into_iter().map(|stored| stored.instance).collect();
        assert_eq!((distinct.len(), place.standing().sent), (10, 10), "each once");
    }
}

#[test]
fn a_pacs_that_answers_everything_with_an_error_for_a_while_costs_no_object() {
    for status in [0xc000, 0x0110, 0xa900] {
        let offers = AtomicU32::new(0);
        let ill = move |_: &str| {
            let ill = offers.fetch_add(1, Ordering::Relaxed) < 45;
            if ill { Reply::Status(status) } else { STORE }
        };
        let pacs = StubPacs::new(EXPLICIT, ill);
        let place = Edge::new(pacs.port, &Kind::ALL);
        for number in 1..=8 {
            place.put(number);
        }
        wait_for("everything", || pacs.count() == 16);
        wait_for("nothing to wait", || place.standing().waiting == 0);
        assert_eq!((place.lying("refused").len(), place.standing().sent, pacs.count()), (0, 16, 16), "{status:04x}");
    }
}

#[test]
fn what_the_pacs_refuses_while_it_takes_others_is_set_aside_and_offered_again_after_a_restart() {
    let pacs = StubPacs::new(EXPLICIT, ill_over_the_first(Reply::Status(0xa900)));
    let mut place = Edge::new(pacs.port, &[Kind::Sr]);
    let mut number = 0;
    // Every report that comes is another chance for it, beside one that gets through.
    wait_for("it to be set aside", || {
        number += 1;
        place.put(number);
        std::thread::sleep(Duration::from_millis(300));
        place.standing().refused == 1
    });
    wait_for("all others", || pacs.count() == number as usize - 1);
    let Standing { waiting, refused, refusal, news, .. } = place.standing();
    assert_eq!((waiting, refused, place.lying("refused").len()), (0, 1, 1));
    assert!(refusal.is_some_and(|why| why.contains("A900")) && news > 0);
    let (offered, first) = (pacs.offered(), pacs.offered()[0].clone());
    assert!(offered.iter().filter(|one| **one == first).count() >= 3, "{offered:?}");
    pacs.mend(|_| STORE);
    place.again(pacs.port, &[Kind::Sr]);
    wait_for("it as well", || pacs.count() == number as usize);
    wait_for("nothing to wait", || place.standing().waiting == 0);
    assert_eq!((place.standing().refused, place.lying("refused").len()), (0, 0));
    assert_eq!(place.standing().sent, number, "counted since the start, not since the reload");
}

#[test]
fn a_reload_while_objects_wait_brings_them_to_the_other_pacs() {
    let mut place = Edge::new(free_port(), &Kind::ALL);
    for number in 1..=3 {
        place.put(number);
    }
    wait_for("it to be told", || place.standing().trouble.is_some());
    let pacs = StubPacs::new(EXPLICIT, |_| STORE);
    place.again(pacs.port, &Kind::ALL);
    place.put(4);
    wait_for("everything", || pacs.count() == 8);
    wait_for("nothing to wait", || place.standing().waiting == 0);
    let stored = pacs.stored();
    let count = |class: &str| stored.iter().filter(|stored| stored.class == class).count();
    assert_eq!((count(SR), count(PICTURE), place.standing().trouble), (4, 4, None));
    let order: Vec<_> = stored.iter().map(|stored| stored.class.as_str()).collect();
    assert_eq!(order, [SR, PICTURE].repeat(4), "the report before its picture");
}

#[test]
fn objects_that_somebody_puts_there_are_found_also_while_the_pacs_is_away() {
    let (pacs, away) = (StubPacs::new(EXPLICIT, |_| STORE), free_port());
    let mut place = Edge::new(away, &[Kind::Sr]);
    place.put(1);
    wait_for("it to be told", || place.standing().trouble.is_some());
    // A technician has it somewhere else, and brings it back.
    let waiting = place.folder.path().join("results/waiting");
    let name = place.lying("waiting").remove(0);
    let other = format!("{:020}-{:032x}-sr.dcm", 2, 2);
    std::fs::copy(waiting.join(name), waiting.join(other)).unwrap();
    wait_for("both to be counted", || place.standing().waiting == 2);
    place.again(pacs.port, &[Kind::Sr]);
    wait_for("both", || pacs.count() == 2);
}

#[test]
fn the_report_says_the_same_in_the_transfer_syntax_that_everybody_knows() {
    let objects = [EXPLICIT, IMPLICIT].map(|syntax| {
        let pacs = StubPacs::new(syntax, |_| STORE);
        let place = Edge::new(pacs.port, &Kind::ALL);
        place.put(1);
        wait_for("both objects", || pacs.count() == 2);
        let mut stored = pacs.stored();
        let picture = stored.pop().unwrap();
        assert_eq!(picture.class, PICTURE);
        (syntax, stored.pop().unwrap())
    });
    assert_eq!(objects[0].1.instance, objects[1].1.instance);
    assert_ne!(objects[0].1.data, objects[1].1.data);
    let Some(python) = pacs::python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let paths = objects.map(|(syntax, stored)| {
        let path = folder.path().join(syntax);
        std::fs::write(&path, pacs::part10(&stored.class, &stored.instance, syntax, &stored.data)).unwrap();
        path
    });
    let said = pacs::read_reports(&python, &paths);
    assert_eq!(said[0], said[1]);
    assert_eq!(said[0]["groups"][2]["tracking"], "normal (reported)");
    assert_eq!(said[0]["algorithm"], serde_json::json!(["m", "1.0.0"]));
}

#[test]
fn radiographs_of_no_study_are_counted() {
    let place = Edge::new(free_port(), &Kind::ALL);
    place.results.unfiled();
    place.results.unfiled();
    assert_eq!((place.standing().unfiled, place.standing().waiting), (2, 0));
}
