//! Tests of the thread's own care; what it does about a PACS is tested with one (`tests/dicom_sr_ill.rs`).

use super::*;
use std::sync::mpsc::{Sender, channel};

fn courier(folder: &std::path::Path) -> (Courier, Sender<()>) {
    let config = Config::to("127.0.0.1:1", "PACS");
    let store = Arc::new(Store::open(folder, &config, || None));
    let (news, heard) = channel();
    (Courier::new(store, Peer::new(&config).unwrap(), config, Arc::default(), heard), news)
}

#[test]
fn an_answer_that_the_program_breaks_down_over_counts_against_the_object_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut courier, _news) = courier(folder.path());
    let name = Name { sequence: 1, kind: Kind::Sr, report_id: "a".repeat(32) };
    let mut round = Round::default();
    let ended = courier.guarded(&mut round, |courier, _| {
        courier.at_hand = Some(name.clone());
        panic!("a test has a library break down")
    });
    assert!(matches!(ended, Err(Ended::Upset(trouble)) if trouble.0.contains("a defect of the program")));
    assert!(courier.tries.know(&name) && courier.at_hand.is_none());
}

#[test]
fn a_pause_is_cut_short_by_news_only_where_the_pacs_is_there_and_ends_when_it_is_asked_to() {
    let folder = tempfile::tempdir().unwrap();
    let (mut courier, news) = courier(folder.path());
    let long = Duration::from_secs(600);
    news.send(()).unwrap();
    assert!(courier.rest(long, true).is_ok() && courier.heard);
    // News that was heard while something was being sent.
    assert!(courier.rest(long, true).is_ok());
    drop(news);
    assert!(courier.is_stopped() && courier.rest(long, false).is_err() && courier.idle().is_err());
}

#[test]
fn a_trouble_is_logged_once_until_all_is_well() {
    let folder = tempfile::tempdir().unwrap();
    let (mut courier, _news) = courier(folder.path());
    let said = |courier: &Courier| lock(&courier.told).trouble.as_ref().map(|(reason, _)| reason.clone());
    courier.say_once("away");
    courier.say_once("busy");
    courier.say_once("away");
    assert_eq!((said(&courier).as_deref(), courier.said.len()), (Some("away"), 2));
    let name = Name { sequence: 1, kind: Kind::Sr, report_id: "a".repeat(32) };
    courier.tries.failed(&mut Round::default(), &name, Failure::Broken, "it hangs up", Instant::now());
    courier.well();
    assert_eq!(said(&courier).as_deref(), Some("it hangs up"), "there is something that it does not take");
    courier.tries.forget(&name);
    courier.well();
    assert_eq!((said(&courier), courier.said.len()), (None, 0));
}
