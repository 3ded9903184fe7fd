//! `roentgend reports` shows what was reported beside the running daemon, filtered and in order, and changes nothing.

#[path = "common/queue.rs"]
mod queue;
mod support;

use queue::{enqueue, report};
use roentgen::outbox::{Config, Outbox};
use roentgen::report::{Decision, Label, NOTICE, Report};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use support::{output, roentgend, stderr, stdout};

struct Place {
    root: tempfile::TempDir,
    outbox: Outbox,
}

impl Place {
    /// An outbox that is open, as the daemon's is, with so many reports of which so many were sent.
    fn new(reports: u64, sent: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        fs::create_dir(&state).unwrap();
        let text = format!(
            "device = \"box-t\"\nstate_dir = {state:?}\n[source.folder]\nincoming = {:?}\n",
            root.path().join("incoming")
        );
        fs::write(root.path().join("roentgend.toml"), text).unwrap();
        let mut outbox = Outbox::open(&state.join("outbox.sqlite3"), &Config::default()).unwrap();
        enqueue(&mut outbox, 1..=reports);
        outbox.mark_sent_up_to(sent).unwrap();
        Self { root, outbox }
    }

    fn config(&self) -> PathBuf {
        self.root.path().join("roentgend.toml")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&self.config(), arguments)
    }

    /// The sequences of the lines of JSON.
    fn sequences(&self, arguments: &[&str]) -> Vec<u64> {
        let done = self.run(&[&["--json"], arguments].concat());
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        stdout(&done).lines().map(|line| json(line)["sequence"].as_u64().unwrap()).collect()
    }
}

fn run(config: &Path, arguments: &[&str]) -> Output {
    output(roentgend().args(["reports", "--config"]).arg(config).args(arguments))
}

fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn expected(reports: u64, keep: impl Fn(&Report) -> bool) -> Vec<u64> {
    (1..=reports).filter(|&n| keep(&report(n))).collect()
}

#[test]
fn a_line_of_json_holds_the_report_as_it_was_published() {
    let mut place = Place::new(5, 3);
    place.outbox.give_up(4, "too \"large\"").unwrap();
    let said = stdout(&place.run(&["--json"]));
    let lines: Vec<_> = said.lines().map(json).collect();
    assert_eq!(lines.len(), 5, "{said}");
    for (line, n) in lines.iter().zip(1..) {
        assert_eq!(line["sequence"], n);
        let found: Report = serde_json::from_value(line["report"].clone()).unwrap();
        assert_eq!(found, Report { sequence: n, ..report(n) });
        assert_eq!(line["sent_at"].is_string(), n <= 3, "{line}");
        assert_eq!(line["undeliverable"].as_str(), (n == 4).then_some("too \"large\""), "{line}");
    }
}

#[test]
fn filters_let_through_what_they_say() {
    let place = Place::new(300, 290);
    let all = |keep: &dyn Fn(&Report) -> bool| expected(300, keep);
    assert_eq!(place.sequences(&[]), all(&|_| true), "more than one page of them");
    assert_eq!(place.sequences(&["--limit", "7"]), (294..=300).collect::<Vec<_>>(), "the newest, oldest of them first");
    assert_eq!(place.sequences(&["--limit", "0"]), Vec::<u64>::new());
    assert_eq!(place.sequences(&["--unsent"]), (291..=300).collect::<Vec<_>>());
    let abstained = |report: &Report| matches!(report.decision, Decision::Abstained { .. });
    assert_eq!(place.sequences(&["--status", "abstained"]), all(&abstained));
    assert_eq!(place.sequences(&["--status", "reported"]), all(&|report| !abstained(report)));
    let covid = |report: &Report| report.decision == Decision::Reported { label: Label::Covid };
    assert_eq!(place.sequences(&["--label", "covid"]), all(&covid));
    let last_covid = *all(&covid).last().unwrap();
    assert_eq!(place.sequences(&["--label", "covid", "--limit", "1"]), [last_covid]);
    let (since, until) = ("2026-01-05T06:00:00.000Z", "2026-01-06T00:00:00.000Z");
    let between = |report: &Report| (since..until).contains(&report.received_at.as_str());
    assert_eq!(place.sequences(&["--since", "2026-01-05T07:00:00+01:00", "--until", "2026-01-06"]), all(&between));
    assert!(!all(&between).is_empty());
    assert_eq!(place.sequences(&["--since", "0s"]), Vec::<u64>::new());
    for wrong in [["--since", "yesterday"], ["--label", "tuberculosis"], ["--status", "sick"]] {
        let refused = place.run(&wrong);
        assert_eq!(refused.status.code(), Some(1), "{wrong:?}");
        assert!(stderr(&refused).contains("write"), "{}", stderr(&refused));
    }
}

#[test]
fn a_person_reads_a_table_and_that_it_is_no_diagnosis() {
    let place = Place::new(60, 58);
    let said = stdout(&place.run(&[]));
    assert!(said.contains(NOTICE), "{said}");
    assert!(said.contains("Only the last 50 are shown"), "{said}");
    let of = |n: u64| said.lines().find(|line| line.trim_start().starts_with(&format!("{n} "))).unwrap_or_default();
    assert!(of(10).is_empty() && !of(11).is_empty(), "{said}");
    assert!(of(60).contains("waits") && !of(58).contains("waits"), "{said}");
    assert!(of(59).contains("abstained") && of(59).contains("low_confidence"), "{said}");
    assert!(of(60).contains("covid") && of(60).contains("0.70") && of(60).contains("2026-01-03T12:00:00"), "{said}");
    let order: Vec<u64> = said.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    assert_eq!(order, (11..=60).collect::<Vec<_>>(), "newest last");
    assert!(stdout(&place.run(&["--unsent", "--label", "viral_pneumonia"])).contains("none"));
}

#[test]
fn it_works_without_the_daemon_changes_nothing_and_says_what_is_missing() {
    let Place { root, outbox } = Place::new(3, 0);
    let config = root.path().join("roentgend.toml");
    drop(outbox);
    let path = root.path().join("state/outbox.sqlite3");
    let before = fs::read(&path).unwrap();
    assert_eq!(stdout(&run(&config, &["--json"])).lines().count(), 3);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(support::names(&root.path().join("state")), ["outbox.sqlite3"]);
    // A report whose bits have changed is not shown as if it were one.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE reports SET json = replace(json, '0.7', '0.9') WHERE sequence = 2", []).unwrap();
    drop(connection);
    let damaged = run(&config, &["--json"]);
    assert_eq!(
        stdout(&damaged).lines().map(|line| json(line)["sequence"].as_u64()).collect::<Vec<_>>(),
        [Some(1), Some(3)]
    );
    assert_eq!(damaged.status.code(), Some(1));
    assert!(stderr(&damaged).contains("1 reports are damaged"), "{}", stderr(&damaged));
    fs::remove_file(&path).unwrap();
    let missing = run(&config, &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("first start"), "{}", stderr(&missing));
}
