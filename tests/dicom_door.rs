//! The promise: nobody holds the DICOM network's door. Who never pauses is broken off when the box stops, and who pauses for
//! ever in time, with TLS and without; strangers leave the places to those who may call. What each is answered is in
//! `dicom_scp.rs`.

#[path = "support/modality.rs"]
mod modality;

use dicom_ul::Pdu;
use modality::dicom::{CR, EXPLICIT};
use modality::{Caller, Place, bytes, echo_command, instance, piece, request, store_command, uid};
use roentgen::source::dicom_scp::Config;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Far more than anything here may take, and far less than it took where nothing bounded it.
const LONG: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How often the box broke connections off for a reason.
fn broken(place: &Place, reason: &str) -> u64 {
    place.watch.now().broken.get(reason).copied().unwrap_or_default()
}

/// Sends pieces, a pause between each two, until the box has hung up.
fn drip(mut caller: Caller, pieces: impl Iterator<Item = Vec<u8>>, pause: Duration) {
    let start = Instant::now();
    for bytes in pieces {
        assert!(start.elapsed() < LONG, "it goes on and on");
        std::thread::sleep(pause);
        caller.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        match caller.0.read(&mut [0; 64]) {
            // Its last word, or the end.
            Ok(_) => return,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        caller.send_bytes(&bytes);
    }
    panic!("all of it was taken");
}

#[test]
fn a_stop_ends_a_sender_that_never_pauses() {
    let place = Place::new();
    let mut caller = place.caller();
    assert_eq!(caller.store_number(1), 0);
    // Ahead of the answers, so that the next message is always there already.
    let data = instance(2).bare(EXPLICIT);
    let message =
        [bytes(&piece(3, true, true, &store_command(CR, &uid(2)))), bytes(&piece(3, false, true, &data))].concat();
    let mut reading = Caller(caller.0.try_clone().unwrap());
    let answers = std::thread::spawn(move || {
        let mut stored = 0;
        while let Some(Pdu::PData { .. }) = reading.receive() {
            stored += 1;
        }
        stored
    });
    let writing = std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < LONG {
            use std::io::Write;
            if caller.0.write_all(&message).is_err() {
                return;
            }
        }
        panic!("it is served for ever");
    });
    wait_for("some instances", || place.watch.now().stored > 5);
    let asked = Instant::now();
    let (before, watch, stored) = (place.watch.now().stored, place.watch.clone(), place.stored().len());
    // As a reload and SIGTERM do: it waits for those that are at hand.
    let Place { scp, .. } = place;
    drop(scp);
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    writing.join().unwrap();
    let heard = answers.join().unwrap() + 1;
    assert!(heard <= watch.now().stored && watch.now().stored >= before, "{heard} {stored}");
    assert_eq!((watch.now().associations, watch.now().broken["stopping"]), (0, 1));
}

#[test]
fn a_command_that_never_ends_and_one_that_never_begins_are_broken_off() {
    let place = Place::with(Config { idle_seconds: 5, ..Config::default() }, 1 << 20, 0);
    // A piece a second, each within every pause; most of them empty, so that no bound on bytes is met.
    let begun = bytes(&piece(1, true, false, &echo_command()[..8]));
    let empty = bytes(&piece(1, true, false, &[]));
    let pieces = std::iter::once(begun).chain(std::iter::repeat(empty));
    let endless = std::thread::spawn({
        let caller = place.caller();
        move || drip(caller, pieces, Duration::from_millis(500))
    });
    // Data PDUs in which there is nothing.
    let mut caller = place.caller();
    caller.send_bytes(&[4, 0, 0, 0, 0, 0]);
    assert!(matches!(caller.receive(), Some(Pdu::AbortRQ { .. })));
    endless.join().unwrap();
    wait_for("both to be counted", || broken(&place, "silent") == 1 && broken(&place, "malformed") == 1);
    assert_eq!(place.caller().echo(), 0);
}

/// A key and its certificate, signed by itself; `None` without openssl, which CI does not forgive.
fn certificate(folder: &Path) -> Option<Config> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-keyout", "box.key", "-out", "box.pem", "-subj", "/CN=localhost"])
        .current_dir(folder)
        .output();
    let Ok(made) = made else {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| std::env::var_os(name).is_some());
        assert!(!required, "openssl is missing");
        eprintln!("SKIPPED: openssl is missing");
        return None;
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name| Some(folder.join(name));
    Some(Config { tls_certificate: file("box.pem"), tls_key: file("box.key"), ..Config::default() })
}

#[test]
fn who_begins_tls_and_goes_on_slowly_is_broken_off_and_does_not_hold_up_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let Some(config) = certificate(folder.path()) else { return };
    let place = Place::with(config, 1 << 20, 0);
    // The head of a record of 16 KB, and a byte of it every twentieth of a second: 13 minutes, if it were waited for.
    let hello =
        || [22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb].into_iter().chain(std::iter::repeat(3)).map(|byte| vec![byte]);
    let start = Instant::now();
    drip(Caller::connect(place.port), hello(), Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    wait_for("it to be counted", || broken(&place, "silent") == 1);
    // Plain DICOM is no TLS, and is told so in TLS's way.
    let mut plain = Caller::connect(place.port);
    plain.send(&request().into());
    let mut alert = [0; 1];
    plain.0.read_exact(&mut alert).unwrap();
    assert_eq!(alert, [21]);
    wait_for("that to be counted", || broken(&place, "failed") == 1);
    // And the stop.
    let slow = std::thread::spawn({
        let caller = Caller::connect(place.port);
        move || drip(caller, hello(), Duration::from_millis(50))
    });
    std::thread::sleep(Duration::from_millis(500));
    let asked = Instant::now();
    drop(place);
    assert!(asked.elapsed() < Duration::from_secs(9), "{:?}", asked.elapsed());
    slow.join().unwrap();
}

#[test]
fn tls_on_a_plain_port_is_broken_off_at_its_first_byte() {
    let place = Place::new();
    let mut caller = Caller::connect(place.port);
    caller.send_bytes(&[22]);
    assert!(matches!(caller.receive(), Some(Pdu::AbortRQ { .. })));
    wait_for("it to be counted", || broken(&place, "malformed") == 1);
}

/// Whether the box hangs up without a word; else it waits for one's request.
fn is_turned_away(caller: &mut Caller) -> bool {
    caller.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    match caller.0.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn strangers_and_crowds_are_turned_away_at_the_door() {
    // From where nobody may call: four may say what they want.
    let place = Place::with(Config { allowed_peers: vec!["CR1@10.0.0.0/8".into()], ..Config::default() }, 1 << 20, 0);
    let waiting: Vec<_> = (0..4).map(|_| Caller::connect(place.port)).collect();
    wait_for("a fifth to be turned away", || is_turned_away(&mut Caller::connect(place.port)));
    assert!(broken(&place, "crowd") >= 1);
    drop(waiting);
    wait_for("one to be heard", || matches!(Caller::associate(place.port, &request()).1, Some(Pdu::AssociationRJ(_))));
    // Of who may call: as many as there are associations, and some that are told to come again.
    let place = Place::with(Config { max_associations: 1, ..Config::default() }, 1 << 20, 0);
    let held = place.caller();
    let waiting: Vec<_> = (0..8).map(|_| Caller::connect(place.port)).collect();
    wait_for("a tenth to be turned away", || is_turned_away(&mut Caller::connect(place.port)));
    drop(waiting);
    held.release();
    wait_for("the place to be free", || {
        let (caller, answer) = Caller::associate(place.port, &request());
        let is_in = matches!(answer, Some(Pdu::AssociationAC(_)));
        if is_in {
            caller.release();
        }
        is_in
    });
}
