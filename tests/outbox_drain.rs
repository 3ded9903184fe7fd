//! What waited while the broker was away is delivered when it is back: all of it, in order, each once while all goes
//! well, and with repeats of the same id where a connection or the daemon dies in the middle. The long form simulates
//! the outage of a week: `tests/bench/outage`.

#[path = "common/queue.rs"]
mod queue;
mod support;

use queue::report;
use roentgen::bundle::sha256_hex;
use roentgen::outbox::{Config, Outbox};
use roentgen::report::{EvidenceMap, Report};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::daemon::{Place, Received};
use support::{Process, output, png, roentgend, stdout, wait_for};

/// Queues reports as a daemon does while the broker is away.
fn fill(place: &Place, reports: impl IntoIterator<Item = Report>) {
    fs::create_dir_all(place.path("state")).unwrap();
    let mut outbox = Outbox::open(&place.path("state/outbox.sqlite3"), &Config::default()).unwrap();
    for report in reports {
        outbox.enqueue(&report).unwrap();
    }
}

fn sequences(received: &Received) -> Vec<u64> {
    received.reports().iter().map(|report| report.sequence).collect()
}

/// The order without repeats of what came before, which must be the same report.
fn first_comings(received: &Received) -> Vec<u64> {
    let mut ids = BTreeMap::new();
    let mut order = Vec::new();
    for report in received.reports() {
        match ids.insert(report.sequence, report.report_id.clone()) {
            None => order.push(report.sequence),
            Some(before) => assert_eq!(before, report.report_id, "a repeat is the same report"),
        }
    }
    order
}

fn stop(daemon: &mut Process, place: &Place) {
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}

#[test]
fn two_thousand_waiting_reports_come_in_order_and_once() {
    let Some(place) = Place::new() else { return };
    fill(&place, (1..=2000).map(report));
    let mut daemon = place.daemon();
    // One more while nothing can be delivered: it goes to the end of the queue.
    place.drop_file("new.png", &png(1));
    wait_for("the file to leave", || support::names(&place.path("done")) == ["new.png"]);
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    wait_for("all reports", || received.count() >= 2001);
    // The same image again: it has its report, and is not judged a second time.
    place.drop_file("again.png", &png(1));
    wait_for("the repeated file to leave", || support::names(&place.path("incoming")).is_empty());
    stop(&mut daemon, &place);
    assert_eq!(sequences(&received), (1..=2001).collect::<Vec<_>>());
    assert!(place.log().contains("report 2001, it is not judged again"), "{}", place.log());
    for (found, n) in received.reports().into_iter().zip(1..=2000) {
        assert_eq!(found, Report { sequence: n, ..report(n) });
    }
}

#[test]
fn a_daemon_that_is_killed_while_it_delivers_goes_on_where_it_was() {
    let Some(place) = Place::new() else { return };
    fill(&place, (1..=1500).map(report));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    for killed_after in [1, 400, 900] {
        let mut daemon = place.daemon();
        wait_for("some reports", || received.count() >= killed_after);
        daemon.signal("KILL");
        daemon.wait();
    }
    let mut daemon = place.daemon();
    wait_for("all reports", || first_comings(&received).len() >= 1500);
    stop(&mut daemon, &place);
    assert_eq!(first_comings(&received), (1..=1500).collect::<Vec<_>>());
    let repeats = received.count() - 1500;
    assert!(repeats <= 3 * 2 * 64, "{repeats}: a kill repeats what was on its way and what was not marked yet");
}

/// Forwards to the broker, and cuts each of the first connections after so many bytes.
fn cutting_proxy(broker: u16, cut_after: usize, cuts: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let done = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&done);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", broker)).unwrap());
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from_server, &mut to_client));
            let counted = Arc::clone(&counted);
            thread::spawn(move || {
                let (mut passed, mut buffer) = (0, [0; 1024]);
                while let Ok(read @ 1..) = client.read(&mut buffer) {
                    passed += read;
                    if passed > cut_after && counted.load(Ordering::SeqCst) < cuts {
                        // In the middle of a packet, as cables are.
                        counted.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    if server.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (port, done)
}

#[test]
fn order_holds_where_connections_break_in_the_middle() {
    let Some(place) = Place::new() else { return };
    fill(&place, (1..=600).map(report));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let (port, cuts) = cutting_proxy(place.port, 100_000, 4);
    let text = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    fs::write(place.path("roentgend.toml"), text.replace(&place.port.to_string(), &port.to_string())).unwrap();
    let mut daemon = place.daemon();
    wait_for("all reports", || first_comings(&received).len() >= 600);
    stop(&mut daemon, &place);
    assert_eq!(cuts.load(Ordering::SeqCst), 4, "{}", place.log());
    assert_eq!(first_comings(&received), (1..=600).collect::<Vec<_>>(), "{}", place.log());
    // Within each connection they ascend: a step back is the start of a new one.
    let steps_back = sequences(&received).windows(2).filter(|pair| pair[1] <= pair[0]).count();
    assert!(steps_back <= 4, "{steps_back}");
}

#[test]
fn a_report_that_no_packet_holds_does_not_block_the_line() {
    let Some(place) = Place::new() else { return };
    let large = EvidenceMap { rows: 100, columns: 100, logits: vec![0.123_456_79; 10_000] };
    let large = |n: u64| Report { evidence_map: (n == 3 || n == 5).then(|| large.clone()), ..report(n) };
    fill(&place, (1..=7).map(large));
    let config = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    fs::write(place.path("roentgend.toml"), format!("{config}max_packet_bytes = 65536\n")).unwrap();
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    wait_for("the others", || received.count() >= 5);
    stop(&mut daemon, &place);
    assert_eq!(sequences(&received), [1, 2, 4, 6, 7]);
    assert!(place.log().contains("report 3 cannot be delivered"), "{}", place.log());
    let shown = stdout(&output(roentgend().args(["reports", "--config"]).arg(place.path("roentgend.toml"))));
    let of = |sequence: &str| shown.lines().find(|line| line.trim_start().starts_with(sequence)).unwrap_or_default();
    assert!(of("3 ").contains("cannot be delivered") && of("5 ").contains("cannot be delivered"), "{shown}");
    assert!(!of("4 ").contains("deliver") && !of("4 ").contains("waits"), "{shown}");

    // The limit is raised: they come after all, with new sequences and else as they were.
    fs::write(place.path("roentgend.toml"), config).unwrap();
    let mut daemon = place.daemon();
    wait_for("the large ones", || received.count() >= 7);
    stop(&mut daemon, &place);
    assert_eq!(sequences(&received), [1, 2, 4, 6, 7, 8, 9]);
    assert_eq!(received.reports()[5..], [Report { sequence: 8, ..large(3) }, Report { sequence: 9, ..large(5) }]);
    let mut daemon = place.daemon();
    place.drop_file("new.png", &png(1));
    wait_for("another", || received.count() >= 8);
    stop(&mut daemon, &place);
    assert_eq!(sequences(&received)[7..], [10], "each is sent once");
}

#[test]
fn an_outbox_that_breaks_is_said_on_the_status_and_by_doctor_and_service_goes_on() {
    let Some(place) = Place::new() else { return };
    fill(&place, (1..=30).map(report));
    let path = place.path("state/outbox.sqlite3");
    let len = fs::metadata(&path).unwrap().len();
    File::options().write(true).open(&path).unwrap().set_len(len * 2 / 3).unwrap();
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    place.drop_file("new.png", &png(1));
    wait_for("the file to leave", || support::names(&place.path("done")) == ["new.png"]);
    wait_for("its report", || received.hashes().contains_key(&sha256_hex(&png(1))));
    let status = received.last_status().unwrap();
    let aside = &status["outbox_set_aside"];
    assert!(aside["file"].as_str().unwrap().starts_with("outbox.sqlite3.broken-"), "{status}");
    assert_eq!(aside["complete"], false, "{status}");
    assert!(aside["requeued"].as_u64().unwrap() > 0, "{status}");
    stop(&mut daemon, &place);
    let doctor = stdout(&output(roentgend().args(["doctor", "--config"]).arg(place.path("roentgend.toml"))));
    let line = doctor.lines().find(|line| line.contains("outbox")).unwrap_or_default();
    assert!(line.starts_with("warn") && doctor.contains(".broken-"), "{doctor}");
    assert!(place.log().contains("broken"), "{}", place.log());
}

/// Kilobytes of a line of the daemon's `/proc/…/status`.
fn memory(daemon: &Process, what: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", daemon.0.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with(what)).unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A week's outage. Prints what `tests/bench/outage` is about.
#[test]
#[ignore = "minutes; run it with tests/bench/outage"]
fn the_outage_of_a_week() {
    let Some(place) = Place::new() else { return };
    let reports: u64 =
        std::env::var("ROENTGEN_OUTAGE_REPORTS").map_or(25_000, |count| count.parse().expect("a number"));
    // What the same daemon takes with nothing to deliver.
    let mut daemon = place.daemon();
    place.drop_file("a.png", &png(1));
    wait_for("the file to leave", || support::names(&place.path("done")) == ["a.png"]);
    let idle = memory(&daemon, "VmHWM");
    stop(&mut daemon, &place);
    let started = Instant::now();
    fill(&place, (1..reports).map(report));
    let filled = started.elapsed();
    let bytes = fs::metadata(place.path("state/outbox.sqlite3")).unwrap().len();
    let mut daemon = place.daemon();
    place.drop_file("b.png", &png(2));
    wait_for("the file to leave", || support::names(&place.path("done")).len() == 2);
    let before = memory(&daemon, "VmHWM");
    let total = reports as usize + 1;
    let broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let deadline = Instant::now() + Duration::from_secs(600);
    while received.count() == 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    let (started, at_start) = (Instant::now(), received.count());
    while received.count() < total && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let took = started.elapsed().as_secs_f64();
    let peak = memory(&daemon, "VmHWM");
    stop(&mut daemon, &place);
    drop(broker);
    println!("queued: {reports} reports in {:.0} s, {bytes} bytes in the file", filled.as_secs_f64());
    let rate = (total - at_start) as f64 / took;
    println!("drained: {} in {took:.2} s = {rate:.0} reports/s", total - at_start);
    println!("peak RSS of the daemon: {idle} kB idle, {before} kB with the queue waiting, {peak} kB after the drain");
    assert_eq!(sequences(&received), (1..=total as u64).collect::<Vec<_>>(), "in order, each once");
    // A bench, not part of the test command: these are what it is held to.
    assert!(rate >= 500.0, "{rate:.0} reports/s");
    assert!(peak <= idle + (32 << 10), "{peak} kB after {idle} kB: memory grows with what waits");
}
