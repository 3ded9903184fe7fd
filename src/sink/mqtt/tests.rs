//! The sink against a broker made of a few lines, which does what a real one does only on a bad day.

mod five;

use super::*;
use crate::radiograph::{Origin, OriginKind};
use crate::report::{Clock, Decision, Finding, Label, ModelIdentity, NOTICE, SCHEMA, Timing};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const DISCONNECT: u8 = 14;

/// One connection of the fake broker.
struct Peer(TcpStream);

impl Peer {
    /// Waits for the sink to connect, and accepts.
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut peer = Self(stream);
        assert_eq!(peer.read_packet().0 >> 4, CONNECT);
        peer.0.write_all(&[0x20, 2, 0, 0]).unwrap();
        peer
    }

    /// The next packet: first byte and body.
    fn read_packet(&mut self) -> (u8, Vec<u8>) {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        let first = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            self.0.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (first, body)
    }

    /// The next publish: retained, topic, packet identifier, payload.
    fn read_publish(&mut self) -> (bool, String, [u8; 2], String) {
        let (first, body) = self.read_packet();
        assert_eq!((first >> 4, first >> 1 & 3), (PUBLISH, 1), "a publish at QoS 1");
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let packet_id = [body[topic_end], body[topic_end + 1]];
        (first & 1 == 1, text(&body[2..topic_end]), packet_id, text(&body[topic_end + 2..]))
    }

    fn acknowledge(&mut self, packet_id: [u8; 2]) {
        self.0.write_all(&[0x40, 2, packet_id[0], packet_id[1]]).unwrap();
    }

    /// Reads and acknowledges the online status that opens every connection.
    fn expect_online(&mut self) {
        let (retained, topic, packet_id, payload) = self.read_publish();
        assert!(retained && payload.contains("\"online\""), "{payload}");
        assert_eq!(topic, "clinic/x-ray/box-7/status");
        self.acknowledge(packet_id);
    }

    /// Reads a publish of this report without acknowledging it.
    fn expect_report(&mut self, id: &str) -> [u8; 2] {
        let (retained, topic, packet_id, payload) = self.read_publish();
        assert_eq!((retained, topic.as_str()), (false, "clinic/x-ray/box-7/report"));
        let received: Report = serde_json::from_str(&payload).unwrap();
        assert_eq!(received, report(id));
        packet_id
    }
}

fn report(id: &str) -> Report {
    let finding = |label| Finding { label, probability: 0.25 };
    Report {
        schema: SCHEMA.into(),
        report_id: id.into(),
        device: "box-7".into(),
        sequence: 1,
        received_at: "2026-01-01T00:00:00Z".into(),
        clock: Clock::Synchronised,
        origin: Origin {
            kind: OriginKind::Raster,
            content_sha256: id.into(),
            study: None,
            series: None,
            instance: None,
            modality: None,
            view: None,
        },
        model: ModelIdentity { name: "m".into(), version: "1".into(), sha256: "0".into() },
        backend: "onnx".into(),
        findings: Label::ALL.map(finding),
        decision: Decision::Reported { label: Label::Normal },
        evidence_map: None,
        timing_ms: Timing::default(),
        notice: NOTICE.into(),
    }
}

fn sink(port: u16) -> MqttSink {
    let url = format!("mqtt://127.0.0.1:{port}");
    let config = Config { url, topic_prefix: "clinic/x-ray".into(), protocol: Protocol::Three, ..Config::default() };
    let mut sink = MqttSink::start(&config, "box-7", &Online::default()).unwrap();
    // Long enough for a loaded machine; the tests that need an early answer shorten it.
    sink.patience = Duration::from_secs(20);
    sink
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A sink that has announced itself to its peer.
fn connected() -> (MqttSink, Peer) {
    let (listener, port) = listener();
    let sink = sink(port);
    let mut peer = Peer::accept(&listener);
    peer.expect_online();
    (sink, peer)
}

#[test]
fn without_an_acknowledgement_nothing_counts_as_published() {
    let (mut sink, mut peer) = connected();
    sink.patience = Duration::from_millis(300);
    assert!(sink.publish(&report("a")).is_err());
    let packet_id = peer.expect_report("a");
    // Asked again, the sink goes on waiting for the same publish: the next packet is not a repetition of it.
    assert!(sink.publish(&report("a")).is_err());
    peer.acknowledge(packet_id);
    sink.patience = Duration::from_secs(20);
    sink.publish(&report("a")).unwrap();
    let next = std::thread::spawn(move || {
        let packet_id = peer.expect_report("b");
        peer.acknowledge(packet_id);
        peer
    });
    sink.publish(&report("b")).unwrap();
    next.join().unwrap();
}

#[test]
fn the_acknowledgement_of_an_abandoned_report_is_not_taken_for_another_one() {
    let (mut sink, mut peer) = connected();
    sink.patience = Duration::from_millis(300);
    assert!(sink.publish(&report("a")).is_err());
    let first = peer.expect_report("a");
    assert!(sink.publish(&report("b")).is_err());
    peer.acknowledge(first);
    assert!(sink.publish(&report("b")).is_err());
    let second = peer.expect_report("b");
    peer.acknowledge(second);
    sink.patience = Duration::from_secs(20);
    sink.publish(&report("b")).unwrap();
}

#[test]
fn a_connection_lost_before_the_acknowledgement_makes_it_publish_again() {
    let (listener, port) = listener();
    let mut sink = sink(port);
    let broker = std::thread::spawn(move || {
        let mut peer = Peer::accept(&listener);
        peer.expect_online();
        peer.expect_report("a");
        drop(peer);
        let mut peer = Peer::accept(&listener);
        peer.expect_online();
        let packet_id = peer.expect_report("a");
        peer.acknowledge(packet_id);
        peer
    });
    sink.publish(&report("a")).unwrap();
    broker.join().unwrap();
}

#[test]
fn a_broker_that_comes_late_is_waited_for() {
    let (held, port) = listener();
    drop(held);
    let mut sink = sink(port);
    sink.patience = Duration::from_millis(200);
    assert!(!sink.connected());
    assert!(sink.publish(&report("a")).is_err());
    sink.patience = Duration::from_secs(20);
    let broker = std::thread::spawn(move || {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let mut peer = Peer::accept(&listener);
        peer.expect_online();
        let packet_id = peer.expect_report("a");
        peer.acknowledge(packet_id);
        peer
    });
    sink.publish(&report("a")).unwrap();
    assert!(sink.connected());
    broker.join().unwrap();
}

#[test]
fn a_graceful_stop_says_offline_before_it_disconnects() {
    let (mut sink, mut peer) = connected();
    let broker = std::thread::spawn(move || {
        let (retained, topic, packet_id, payload) = peer.read_publish();
        assert!(retained && topic.ends_with("/status") && payload.contains("\"offline\""), "{topic} {payload}");
        peer.acknowledge(packet_id);
        assert_eq!(peer.read_packet().0 >> 4, DISCONNECT);
    });
    sink.close();
    broker.join().unwrap();
}

fn messages(ids: &[&str]) -> Vec<Message> {
    ids.iter().map(|id| Message::of(&report(id)).unwrap()).collect()
}

#[test]
fn a_report_above_the_packet_limit_is_undeliverable_and_costs_neither_connection_nor_the_reports_before() {
    let (mut sink, mut peer) = connected();
    let mut three = messages(&["a", "b", "c"]);
    sink.max_payload = three[0].json.len();
    three[1].json.push(' ');
    let broker = std::thread::spawn(move || {
        let packet_id = peer.expect_report("a");
        peer.acknowledge(packet_id);
        let packet_id = peer.expect_report("c");
        peer.acknowledge(packet_id);
        peer
    });
    let (acknowledged, ended) = sink.publish_all(&three);
    assert_eq!(acknowledged, 1);
    let Err(SinkError::Undeliverable(problem)) = ended else { panic!("{ended:?}") };
    assert!(problem.contains("max_packet_bytes"), "{problem}");
    assert_eq!(sink.publish_all(&three[2..]), (1, Ok(())));
    broker.join().unwrap();
}

#[test]
fn many_reports_are_on_their_way_at_a_time_and_each_is_waited_for() {
    let (mut sink, mut peer) = connected();
    sink.patience = Duration::from_millis(300);
    let four = messages(&["a", "b", "c", "d"]);
    let (acknowledged, ended) = sink.publish_all(&four);
    assert!(acknowledged == 0 && matches!(ended, Err(SinkError::Waiting(_))), "{ended:?}");
    let ids: Vec<_> = ["a", "b", "c", "d"].iter().map(|id| peer.expect_report(id)).collect();
    // The answer to a later one says nothing about an earlier one.
    peer.acknowledge(ids[2]);
    assert_eq!(sink.publish_all(&four).0, 0);
    peer.acknowledge(ids[0]);
    peer.acknowledge(ids[1]);
    sink.patience = Duration::from_secs(2);
    let (acknowledged, ended) = sink.publish_all(&four);
    assert!(acknowledged == 3 && ended.is_err(), "{acknowledged} {ended:?}");
    // Asked for the rest and more, it goes on waiting for what is on its way, and sends only what is new.
    sink.patience = Duration::from_secs(20);
    let broker = std::thread::spawn(move || {
        let new = peer.expect_report("e");
        peer.acknowledge(ids[3]);
        peer.acknowledge(new);
        peer
    });
    assert_eq!(sink.publish_all(&messages(&["d", "e"])), (2, Ok(())));
    broker.join().unwrap();
}

#[test]
fn after_a_lost_connection_all_from_the_first_unacknowledged_come_again_in_order() {
    let (listener, port) = listener();
    let mut sink = sink(port);
    let broker = std::thread::spawn(move || {
        let mut peer = Peer::accept(&listener);
        peer.expect_online();
        let ids: Vec<_> = ["a", "b", "c"].iter().map(|id| peer.expect_report(id)).collect();
        peer.acknowledge(ids[0]);
        // The sink must have seen it before the line is cut.
        std::thread::sleep(Duration::from_millis(300));
        drop(peer);
        let mut peer = Peer::accept(&listener);
        peer.expect_online();
        for id in ["b", "c"] {
            let packet_id = peer.expect_report(id);
            peer.acknowledge(packet_id);
        }
        peer
    });
    assert_eq!(sink.publish_all(&messages(&["a", "b", "c"])), (3, Ok(())));
    broker.join().unwrap();
}

#[test]
fn what_was_on_its_way_over_one_link_is_handed_over_anew_on_the_next() {
    let (old, peer) = connected();
    let mut sent = None;
    assert!(!old.side().answer("{}", &mut sent) && sent.is_some());
    let before = old.side().connection().connections;
    drop(peer);
    drop(old);
    // As after a reload that reconnects.
    let (new, mut peer) = connected();
    let side = new.side();
    assert!(side.connection().connections > before, "a connection is never taken for one of another link");
    assert!(!side.answer("{}", &mut sent));
    let (_, topic, packet_id, _) = peer.read_publish();
    assert_eq!(topic, "clinic/x-ray/box-7/result");
    peer.acknowledge(packet_id);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !side.answer("{}", &mut sent) {
        assert!(Instant::now() < deadline, "the acknowledgement counts for the answer");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_prepared_starts_without_its_files() {
    use std::os::unix::fs::PermissionsExt;
    let (listener, port) = listener();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "secret").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = format!("mqtt://127.0.0.1:{port}");
    let (username, password_file) = (Some("box".into()), Some(path.clone()));
    let (topic_prefix, protocol) = ("clinic/x-ray".into(), Protocol::Three);
    let config = Config { url, username, password_file, topic_prefix, protocol, ..Config::default() };
    let prepared = MqttSink::prepare(&config, "box-7").unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(MqttSink::prepare(&config, "box-7").is_err());
    let _sink = prepared.start(&Online::default()).unwrap();
    Peer::accept(&listener).expect_online();
}
