//! The promises of the DICOM network, held against a caller that can say anything: who is let in, what each instance is
//! answered, what stays on the disk, and that nothing that a stranger sends breaks the box. The peers of the real world are
//! in `dicom_peers.rs`.

#[path = "support/modality.rs"]
mod modality;

use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AbortRQSource, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderPresentationReason as LocalReason,
    AssociationRJServiceUserReason as UserReason, AssociationRJSource, AssociationRQ,
};
use modality::dicom::{CR, EXPLICIT};
use modality::{Caller, Place, bytes, command, echo_command, instance, piece, request, store_command, uid};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, open_bytes};
use roentgen::source::dicom_scp::{Config, Provider, Watch};
use roentgen::source::reserve;
use roentgen::source::spool::{Door, Spool};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_abort(answer: Option<Pdu>) -> bool {
    matches!(answer, Some(Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(_) }))
}

#[test]
fn an_instance_is_a_whole_file_when_its_sender_hears_of_success() {
    let place = Place::new();
    let mut caller = place.caller();
    assert_eq!(caller.echo(), 0);
    assert_eq!(caller.store_number(1), 0);
    let [file] = &place.stored()[..] else { panic!("one file, not {:?}", place.stored()) };
    let bytes = std::fs::read(file).unwrap();
    assert!(bytes.ends_with(&instance(1).bare(EXPLICIT)), "the data set as it came");
    let key = Key::from_bytes([7; 32]);
    let radiograph = open_bytes(&bytes, &Limits::default(), &key).unwrap();
    assert_eq!(radiograph.origin.instance, Some(key.pseudonym("instance", &uid(1))));
    assert!(!file.to_str().unwrap().contains("1.2.826"), "no UID in its name");
    // The same again is welcome, in the same bytes, so that it has the same report.
    assert_eq!(caller.store_number(1), 0);
    assert_eq!(place.stored().len(), 2);
    assert!(place.stored().iter().all(|file| std::fs::read(file).unwrap() == bytes));
    caller.release();
    let seen = place.watch.now();
    assert_eq!((seen.stored, seen.accepted, seen.refused.len()), (2, 1, 0));
    wait_for("the association to end", || place.watch.now().associations == 0);
}

#[test]
fn pieces_may_be_of_any_size_and_share_a_pdu() {
    let place = Place::new();
    let mut caller = place.caller();
    let (command, data) = (store_command(CR, &uid(2)), instance(2).bare(EXPLICIT));
    for (at, byte) in command.iter().enumerate() {
        caller.send(&piece(3, true, at + 1 == command.len(), &[*byte]));
    }
    let values = [&data[..1], &data[1..300], &[], &data[300..]].into_iter().enumerate().flat_map(|(at, part)| {
        let Pdu::PData { data } = piece(3, false, at == 3, part) else { unreachable!("a piece is data") };
        data
    });
    caller.send(&Pdu::PData { data: values.collect() });
    assert_eq!(caller.status(), 0);
    // Everything at once, up to the release.
    let mut burst = bytes(&piece(3, true, true, &store_command(CR, &uid(3))));
    burst.extend(bytes(&piece(3, false, true, &instance(3).bare(EXPLICIT))));
    burst.extend(bytes(&piece(1, true, true, &echo_command())));
    caller.send_bytes(&burst);
    assert_eq!((caller.status(), caller.status()), (0, 0));
    caller.release();
    assert_eq!(place.stored().len(), 2);
}

/// How the box answers a request.
fn rejection(place: &Place, change: impl FnOnce(&mut AssociationRQ)) -> (AssociationRJResult, AssociationRJSource) {
    let mut request = request();
    change(&mut request);
    let (mut caller, answer) = Caller::associate(place.port, &request);
    let Some(Pdu::AssociationRJ(AssociationRJ { result, source })) = answer else { panic!("{answer:?}") };
    assert_eq!(caller.receive(), None, "it hangs up");
    (result, source)
}

#[test]
fn who_may_not_call_is_rejected_with_the_reason_that_the_standard_has() {
    let permanent = |reason| (AssociationRJResult::Permanent, AssociationRJSource::ServiceUser(reason));
    let place = Place::new();
    let calling = permanent(UserReason::CallingAETitleNotRecognized);
    assert_eq!(rejection(&place, |request| request.calling_ae_title = "CR2".into()), calling);
    let called = permanent(UserReason::CalledAETitleNotRecognized);
    assert_eq!(rejection(&place, |request| request.called_ae_title = "PACS".into()), called);
    let context = permanent(UserReason::ApplicationContextNameNotSupported);
    assert_eq!(rejection(&place, |request| request.application_context_name = "1.2.3".into()), context);
    let elsewhere = Config { allowed_peers: vec!["CR1@10.0.0.0/8".into()], ..Config::default() };
    assert_eq!(rejection(&Place::with(elsewhere, 1 << 20, 0), |_| ()), calling, "the right title, from elsewhere");
    let seen = place.watch.now();
    assert_eq!((seen.rejected["calling_ae_title"], seen.rejected["called_ae_title"], seen.accepted), (1, 1, 0));
}

#[test]
fn who_is_one_too_many_is_asked_to_come_again() {
    let place = Place::with(Config { max_associations: 2, ..Config::default() }, 1 << 20, 0);
    let (first, second) = (place.caller(), place.caller());
    let busy = (
        AssociationRJResult::Transient,
        AssociationRJSource::ServiceProviderPresentation(LocalReason::LocalLimitExceeded),
    );
    assert_eq!(rejection(&place, |_| ()), busy);
    first.release();
    wait_for("one to be gone", || place.watch.now().associations == 1);
    assert_eq!(place.caller().echo(), 0);
    second.release();
}

#[test]
fn what_cannot_be_taken_is_answered_with_its_status_and_leaves_nothing() {
    let place = Place::with(Config::default(), 50_000, 0);
    let mut caller = place.caller();
    let data = instance(4).bare(EXPLICIT);
    assert_eq!(caller.store(CR, &uid(5), &data), 0xa900, "another instance");
    let dx = "1.2.840.10008.5.1.4.1.1.1.1";
    assert_eq!(caller.store(dx, &uid(4), &data), 0x0122, "a class that its context is not for");
    assert_eq!(caller.store(CR, "../../etc/passwd", &data), 0xc000, "no UID");
    assert_eq!(caller.store(CR, &uid(4), b"no data set"), 0xc000);
    let large = instance(4).bytes((0x7fe1, 0x0010), "OB", &vec![0; 60_000]).bare(EXPLICIT);
    assert_eq!(caller.store(CR, &uid(4), &large), 0xc001);
    // An operation that is not served, with a data set and without.
    for (flag, has_data) in [(0u16, true), (0x101, false)] {
        let find = [(0x0100, &0x20u16.to_le_bytes()[..]), (0x0110, &[9, 0]), (0x0800, &flag.to_le_bytes())];
        caller.send(&piece(3, true, true, &command(&find)));
        if has_data {
            caller.send(&piece(3, false, true, &data));
        }
        assert_eq!(caller.status(), 0x0211);
    }
    assert!(place.stored().is_empty() && place.arriving().is_empty());
    // None of it has harmed the association.
    assert_eq!((caller.store_number(4), caller.echo()), (0, 0));
    caller.release();
    let refused = place.watch.now().refused;
    assert_eq!((refused["mismatch"], refused["not_understood"], refused["too_large"]), (1, 2, 1), "{refused:?}");
}

#[test]
fn without_room_nothing_is_written_and_the_sender_is_told_to_come_again() {
    let place = Place::with(Config::default(), 1 << 20, u64::MAX);
    let mut caller = place.caller();
    caller.send(&piece(3, true, true, &store_command(CR, &uid(6))));
    let data = instance(6).bare(EXPLICIT);
    caller.send(&piece(3, false, false, &data[..1000]));
    std::thread::sleep(Duration::from_millis(200));
    assert!(place.arriving().is_empty());
    caller.send(&piece(3, false, true, &data[1000..]));
    assert_eq!((caller.status(), caller.echo()), (0xa700, 0));
    caller.release();
    assert_eq!(place.watch.now().refused["no_room"], 1);
}

#[test]
fn an_instance_that_is_cut_off_leaves_nothing() {
    let place = Place::new();
    let data = instance(7).bare(EXPLICIT);
    let whole = bytes(&piece(3, false, true, &data));
    for length in [0, 3, 6, 7, 300, whole.len() - 1] {
        let mut caller = place.caller();
        caller.send(&piece(3, true, true, &store_command(CR, &uid(7))));
        caller.send_bytes(&whole[..length]);
        // The sender dies.
        drop(caller);
    }
    // Another one thinks better of it.
    let mut caller = place.caller();
    caller.send(&piece(3, true, true, &store_command(CR, &uid(7))));
    caller.send(&Pdu::AbortRQ { source: AbortRQSource::ServiceUser });
    let is_over =
        |place: &Place| place.watch.now().broken.get("cut") == Some(&6) && place.watch.now().associations == 0;
    wait_for("all to be gone", || is_over(&place));
    assert!(place.stored().is_empty() && place.arriving().is_empty());
    assert_eq!(place.caller().store_number(7), 0);
}

#[test]
fn what_is_no_dicom_is_broken_off() {
    let place = Place::with(Config { max_pdu_bytes: 4096, ..Config::default() }, 1 << 20, 0);
    // Before an association: another protocol, an unknown PDU, one that would be too large, and what does not come first.
    let too_large = [1, 0, 0x7f, 0xff, 0xff, 0xff];
    let early = bytes(&piece(1, true, true, &echo_command()));
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[9, 0, 0, 0, 0, 4, 1, 2, 3, 4], &too_large, &early] {
        let mut caller = Caller::connect(place.port);
        caller.send_bytes(first);
        assert!(is_abort(caller.receive()), "{first:?}");
        assert_eq!(caller.receive(), None);
    }
    // Within one: a PDU larger than was agreed, data without a command, a command in a context that was not accepted, a
    // command that never ends, a second request, a value that ends beyond its PDU.
    let endless = bytes(&piece(3, true, false, &[0; 3000])).repeat(6);
    for next in [
        bytes(&piece(3, false, true, &[0; 5000])),
        bytes(&piece(3, false, true, &[0; 50])),
        bytes(&piece(99, true, true, &echo_command())),
        endless,
        bytes(&request().into()),
        vec![4, 0, 0, 0, 0, 6, 0, 0, 0, 9, 1, 3],
        bytes(&piece(1, true, true, b"no command")),
    ] {
        let mut caller = place.caller();
        caller.send_bytes(&next);
        assert!(is_abort(caller.receive()), "{:?}", &next[..20.min(next.len())]);
    }
    assert_eq!(place.watch.now().broken["malformed"], 11);
    assert_eq!(place.caller().echo(), 0);
}

#[test]
fn who_is_silent_or_too_slow_is_broken_off_and_holds_no_place() {
    let config = Config { idle_seconds: 5, max_associations: 1, ..Config::default() };
    let place = Place::with(config, 1 << 20, 0);
    // One who never says anything, and one who says a byte now and then, which is within every pause.
    let mut silent = Caller::connect(place.port);
    let mut slow = Caller::connect(place.port);
    let request = bytes(&request().into());
    let dripping = std::thread::spawn(move || {
        for byte in request.iter().take(30) {
            slow.send_bytes(&[*byte]);
            std::thread::sleep(Duration::from_millis(300));
        }
        slow.receive()
    });
    // One who has an association, and falls silent between two messages.
    let mut caller = place.caller();
    assert_eq!(caller.echo(), 0);
    assert!(is_abort(caller.receive()));
    wait_for("its place to be free", || place.watch.now().associations == 0);
    // And within one.
    let mut caller = place.caller();
    caller.send(&piece(3, true, true, &store_command(CR, &uid(8))));
    caller.send_bytes(&bytes(&piece(3, false, true, &[0; 100]))[..50]);
    assert!(is_abort(caller.receive()));
    assert!(is_abort(silent.receive()));
    let answer = dripping.join().unwrap();
    assert!(answer.is_none() || is_abort(answer.clone()), "{answer:?}");
    wait_for("all four to be counted", || place.watch.now().broken.get("silent") == Some(&4));
    assert!(place.arriving().is_empty());
}

#[test]
fn a_stop_breaks_off_who_waits_and_lets_an_instance_come_in() {
    let place = Place::new();
    let (mut idle, mut busy) = (place.caller(), place.caller());
    busy.send(&piece(3, true, true, &store_command(CR, &uid(9))));
    let data = instance(9).bare(EXPLICIT);
    busy.send(&piece(3, false, false, &data[..500]));
    wait_for("the instance to have begun", || place.arriving().len() == 1);
    place.scp.ask_to_stop();
    assert!(is_abort(idle.receive()));
    busy.send(&piece(3, false, true, &data[500..]));
    assert_eq!((busy.status(), is_abort(busy.receive()), place.stored().len()), (0, true, 1));
    wait_for("the port to be free", || std::net::TcpListener::bind(("127.0.0.1", place.port)).is_ok());
    wait_for("that to be said", || place.watch.now().listening.is_none());
}

#[test]
fn a_port_that_is_taken_is_tried_again() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let root = tempfile::tempdir().unwrap();
    let spool = Spool::open(root.path(), Door::Dicom, &reserve::Config { min_free_bytes: 0 }).unwrap();
    let config = Config { listen: format!("127.0.0.1:{port}"), allowed_peers: vec!["*".into()], ..Config::default() };
    let watch = Watch::default();
    let provider = Provider::prepare(&config, spool, 1 << 20, watch.clone()).unwrap();
    let _scp = provider.start().unwrap();
    wait_for("the trouble to be said", || watch.now().error.is_some_and(|error| error.contains("another program")));
    drop(taken);
    wait_for("the port to be had", || watch.now().listening.is_some());
    assert_eq!((watch.now().error, Caller::associate(port, &request()).1.is_some()), (None, true));
}

/// A conversation as it should be, to be spoiled: request, instance, echo, release.
fn conversation() -> Vec<u8> {
    let mut all = bytes(&request().into());
    let data = instance(10).bare(EXPLICIT);
    for pdu in [
        piece(3, true, true, &store_command(CR, &uid(10))),
        piece(3, false, false, &data[..700]),
        piece(3, false, true, &data[700..1400]),
        piece(1, true, true, &echo_command()),
        Pdu::ReleaseRQ,
    ] {
        all.extend(bytes(&pdu));
    }
    all
}

/// One change of a conversation: where, how, and to what.
fn spoil(conversation: &mut Vec<u8>, (at, how, value): (usize, u8, u8)) {
    let at = at % (conversation.len() + 1);
    match how % 5 {
        0 => conversation.insert(at, value),
        1 => conversation.truncate(at),
        2 if at < conversation.len() => drop(conversation.remove(at)),
        3 => conversation.extend_from_within(at..),
        _ if at < conversation.len() => conversation[at] ^= value | 1,
        _ => {}
    }
}

#[test]
fn nothing_that_a_stranger_sends_breaks_the_box() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Of this test alone: others of this file run beside it, and fail as they should.
        if std::thread::current().name() == Some("dicom") {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    let place = Place::new();
    let sound = conversation();
    let strategy = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..400),
        prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6).prop_map(move |changes| {
            let mut spoiled = sound.clone();
            changes.into_iter().for_each(|change| spoil(&mut spoiled, change));
            spoiled
        }),
    ];
    let mut runner = TestRunner::new(Cases { cases: 300, failure_persistence: None, ..Cases::default() });
    let done = runner.run(&strategy, |bytes| {
        let mut caller = Caller::connect(place.port);
        caller.send_bytes(&bytes);
        let _ = caller.0.shutdown(Shutdown::Write);
        while caller.receive().is_some() {}
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0);
        Ok(())
    });
    done.unwrap();
    wait_for("all to be gone", || place.watch.now().associations == 0);
    assert!(place.arriving().is_empty());
    let mut caller = place.caller();
    assert_eq!((caller.store_number(11), caller.echo()), (0, 0));
    caller.release();
}
