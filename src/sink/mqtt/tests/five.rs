//! What MQTT 5 adds, against the same broker of a few lines: refusals, a broker's own limit of packets, and brokers that do
//! not speak it.

use super::*;
use std::net::TcpListener;

/// Reasons of a PUBACK.
const QUOTA_EXCEEDED: u8 = 0x97;
const NOT_AUTHORIZED: u8 = 0x87;
const PAYLOAD_FORMAT_INVALID: u8 = 0x99;

impl Peer {
    /// Waits for the sink to connect with MQTT 5, and accepts with these properties.
    fn accept_five(listener: &TcpListener, properties: &[u8]) -> Self {
        let mut peer = Self::hear_connect(listener, 5);
        let length = properties.len() as u8;
        peer.0.write_all(&[&[0x20, 3 + length, 0, 0, length], properties].concat()).unwrap();
        let (retained, topic, packet_id, payload) = peer.read_publish_five();
        assert!(
            retained && topic == "clinic/x-ray/box-7/status" && payload.contains("\"online\""),
            "{topic} {payload}"
        );
        peer.acknowledge(packet_id);
        peer
    }

    /// Waits for a connection that asks for this level of the protocol, and says nothing.
    fn hear_connect(listener: &TcpListener, level: u8) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut peer = Self(stream);
        let (first, body) = peer.read_packet();
        assert_eq!((first >> 4, &body[..7]), (CONNECT, &[0, 4, b'M', b'Q', b'T', b'T', level][..]));
        peer
    }

    /// The next publish: retained, topic, packet identifier, payload. What stands beside it is skipped.
    fn read_publish_five(&mut self) -> (bool, String, [u8; 2], String) {
        let (first, body) = self.read_packet();
        assert_eq!((first >> 4, first >> 1 & 3), (PUBLISH, 1), "a publish at QoS 1");
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let packet_id = [body[topic_end], body[topic_end + 1]];
        let (mut at, mut length, mut shift) = (topic_end + 2, 0, 0);
        loop {
            length |= usize::from(body[at] & 0x7F) << shift;
            (at, shift) = (at + 1, shift + 7);
            if body[at - 1] & 0x80 == 0 {
                break;
            }
        }
        (first & 1 == 1, text(&body[2..topic_end]), packet_id, text(&body[at + length..]))
    }

    fn expect_report_five(&mut self, id: &str) -> [u8; 2] {
        let (retained, topic, packet_id, payload) = self.read_publish_five();
        assert_eq!((retained, topic.as_str()), (false, "clinic/x-ray/box-7/report"));
        assert_eq!(serde_json::from_str::<Report>(&payload).unwrap(), report(id));
        packet_id
    }

    fn refuse(&mut self, packet_id: [u8; 2], reason: u8) {
        self.0.write_all(&[0x40, 3, packet_id[0], packet_id[1], reason]).unwrap();
    }
}

fn sink_of(port: u16, protocol: Protocol) -> MqttSink {
    let url = format!("mqtt://127.0.0.1:{port}");
    let config = Config { url, topic_prefix: "clinic/x-ray".into(), protocol, ..Config::default() };
    let mut sink = MqttSink::start(&config, "box-7", &Online::default()).unwrap();
    sink.patience = Duration::from_secs(20);
    sink
}

fn connected_five(properties: &[u8]) -> (MqttSink, Peer) {
    let (listener, port) = listener();
    let sink = sink_of(port, Protocol::Auto);
    let peer = Peer::accept_five(&listener, properties);
    (sink, peer)
}

/// Asks until the sink has an answer other than that it waits for the next attempt.
fn publish_until(sink: &mut MqttSink, messages: &[Message]) -> usize {
    let mut acknowledged = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while acknowledged < messages.len() {
        assert!(Instant::now() < deadline, "{acknowledged} of {}", messages.len());
        match sink.publish_all(&messages[acknowledged..]) {
            (more, Ok(()) | Err(SinkError::Waiting(_))) => acknowledged += more,
            (_, Err(error)) => panic!("{error}"),
        }
    }
    acknowledged
}

#[test]
fn a_refused_report_is_not_published_and_is_tried_again_alone_until_it_is_taken() {
    let (mut sink, mut peer) = connected_five(&[]);
    let three = messages(&["a", "b", "c"]);
    let broker = std::thread::spawn(move || {
        let ids: Vec<_> = ["a", "b", "c"].iter().map(|id| peer.expect_report_five(id)).collect();
        // The first is refused, the others are taken: they come again all the same, after the first.
        peer.refuse(ids[0], QUOTA_EXCEEDED);
        peer.acknowledge(ids[1]);
        peer.acknowledge(ids[2]);
        let again = peer.expect_report_five("a");
        peer.refuse(again, NOT_AUTHORIZED);
        let again = peer.expect_report_five("a");
        peer.acknowledge(again);
        for id in ["b", "c"] {
            let packet_id = peer.expect_report_five(id);
            peer.acknowledge(packet_id);
        }
        peer
    });
    let (acknowledged, ended) = sink.publish_all(&three);
    let Err(SinkError::Waiting(why)) = ended else { panic!("{ended:?}") };
    assert_eq!(acknowledged, 0, "what was acknowledged after a refused one is no reason to forget that one");
    assert!(why.contains("quota") && why.contains("clinic/x-ray/box-7/report"), "{why}");
    assert_eq!(publish_until(&mut sink, &three), 3);
    assert!(sink.rest.is_none());
    broker.join().unwrap();
}

#[test]
fn while_the_broker_refuses_it_is_asked_more_and_more_seldom() {
    let one = Rest::after(None, "no");
    let two = Rest::after(Some(&one), "no");
    assert_eq!((one.pause, two.pause), (FIRST_REST, FIRST_REST * 2));
    let mut last = two;
    for _ in 0..10 {
        last = Rest::after(Some(&last), "no");
    }
    assert_eq!(last.pause, LONGEST_REST);
    assert!(last.until > Instant::now() + LONGEST_REST - Duration::from_secs(5));
}

#[test]
fn a_payload_that_the_broker_never_takes_blocks_no_other() {
    let (mut sink, mut peer) = connected_five(&[]);
    let broker = std::thread::spawn(move || {
        let packet_id = peer.expect_report_five("a");
        peer.refuse(packet_id, PAYLOAD_FORMAT_INVALID);
        let packet_id = peer.expect_report_five("b");
        peer.acknowledge(packet_id);
        peer
    });
    let (acknowledged, ended) = sink.publish_all(&messages(&["a"]));
    assert!(acknowledged == 0 && matches!(ended, Err(SinkError::Undeliverable(_))), "{ended:?}");
    assert_eq!(sink.publish_all(&messages(&["b"])), (1, Ok(())));
    broker.join().unwrap();
}

#[test]
fn a_report_above_the_brokers_own_limit_costs_no_connection() {
    let json = messages(&["a"])[0].json.len();
    let most = (json + "clinic/x-ray/box-7/report".len() + BESIDE) as u32;
    let (mut sink, mut peer) = connected_five(&[&[0x27][..], &most.to_be_bytes()].concat());
    let mut two = messages(&["a", "b"]);
    two[0].json.push(' ');
    let broker = std::thread::spawn(move || {
        let packet_id = peer.expect_report_five("b");
        peer.acknowledge(packet_id);
        peer
    });
    let (acknowledged, ended) = sink.publish_all(&two);
    let Err(SinkError::Undeliverable(problem)) = ended else { panic!("{ended:?}") };
    assert!(acknowledged == 0 && problem.contains("the broker takes"), "{problem}");
    assert_eq!(sink.publish_all(&two[1..]), (1, Ok(())));
    broker.join().unwrap();
}

#[test]
fn a_broker_that_does_not_know_mqtt_5_is_spoken_to_in_the_older_one() {
    // Refused by an answer of the older kind; by a goodbye; and by MQTT 5's own word for it.
    for refusal in [&[0x20, 2, 0, 1][..], &[], &[0x20, 3, 0, 0x84, 0]] {
        let (listener, port) = listener();
        let mut sink = sink_of(port, Protocol::Auto);
        let broker = std::thread::spawn(move || {
            let mut peer = Peer::hear_connect(&listener, 5);
            peer.0.write_all(refusal).unwrap();
            drop(peer);
            let mut peer = Peer::hear_connect(&listener, 4);
            peer.0.write_all(&[0x20, 2, 0, 0]).unwrap();
            peer.expect_online();
            let packet_id = peer.expect_report("a");
            peer.acknowledge(packet_id);
            // The sink must have seen it before the line is cut; and the broker is known by now.
            std::thread::sleep(Duration::from_millis(300));
            drop(peer);
            Peer::hear_connect(&listener, 4)
        });
        sink.publish(&report("a")).unwrap_or_else(|error| panic!("{refusal:?}: {error}"));
        drop(broker.join().unwrap());
    }
}

#[test]
fn a_broker_that_does_not_want_us_is_not_asked_in_another_version() {
    let (listener, port) = listener();
    let sink = sink_of(port, Protocol::Auto);
    for _ in 0..2 {
        let mut peer = Peer::hear_connect(&listener, 5);
        peer.0.write_all(&[0x20, 3, 0, NOT_AUTHORIZED, 0]).unwrap();
    }
    assert!(sink.why().contains("mqtt.username"), "{}", sink.why());
    let (other, port) = super::listener();
    let sink = sink_of(port, Protocol::Five);
    for _ in 0..2 {
        let mut peer = Peer::hear_connect(&other, 5);
        peer.0.write_all(&[0x20, 3, 0, 0x84, 0]).unwrap();
    }
    assert!(sink.why().contains("MQTT 5"), "{}", sink.why());
}
