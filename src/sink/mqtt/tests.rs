//! The sink against a broker made of a few lines, which does what a real one does only on a bad day.

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
    let config = Config { url, topic_prefix: "clinic/x-ray".into(), ..Config::default() };
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

#[test]
fn a_report_above_the_packet_limit_is_refused_before_it_costs_the_connection() {
    let (_listener, port) = listener();
    let mut sink = sink(port);
    sink.max_payload = 100;
    let error = sink.publish(&report("a")).expect_err("too large").to_string();
    assert!(error.contains("max_packet_bytes"), "{error}");
}
