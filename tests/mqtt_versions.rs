//! The promise: the box speaks MQTT 5 where the broker does and 3.1.1 where it does not, on the topics that the
//! configuration gives; a broker whose rules refuse its reports costs none of them; and the rules that are documented let
//! each do its own and no more. Real daemon, real mosquitto; and rumqttd as a broker that knows only 3.1.1.

mod support;

use roentgen::report::Report;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{Client, Event, MqttOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::daemon::{Place, Received};
use support::{PATIENCE, png, wait_for};

/// Something that came: topic, whether it was retained, payload, what stood beside it.
#[derive(Debug, Clone)]
struct Heard {
    topic: String,
    retained: bool,
    payload: String,
    beside: PublishProperties,
}

/// A subscriber that speaks MQTT 5, with what it has heard.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Heard>>>);

impl Ear {
    fn listen(port: u16, name: &str, credentials: Option<(&str, &str)>) -> Self {
        Self::listen_to(port, name, credentials, "#")
    }

    fn listen_to(port: u16, name: &str, credentials: Option<(&str, &str)>, filter: &str) -> Self {
        let ear = Self::default();
        let sink = ear.clone();
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(Some(1 << 20));
        if let Some((user, password)) = credentials {
            options.set_credentials(user, password);
        }
        let (client, mut connection) = Client::new(options, 8);
        client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                        let (topic, payload) = (text(&publish.topic), text(&publish.payload));
                        let beside = publish.properties.unwrap_or_default();
                        sink.0.lock().unwrap().push(Heard { topic, retained: publish.retain, payload, beside });
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
            drop(client);
        });
        is_ready.recv_timeout(PATIENCE).expect("mosquitto acknowledges a subscription");
        ear
    }

    fn on(&self, topic: &str) -> Vec<Heard> {
        self.0.lock().unwrap().iter().filter(|heard| heard.topic == topic).cloned().collect()
    }

    fn json(&self, topic: &str) -> Vec<Value> {
        self.on(topic).iter().map(|heard| serde_json::from_str(&heard.payload).unwrap()).collect()
    }
}

/// Publishes with MQTT 5 and says whether the broker took it.
fn publish(port: u16, credentials: Option<(&str, &str)>, topic: &str, payload: &str) -> bool {
    use rumqttc::v5::mqttbytes::v5::PubAckReason::{NoMatchingSubscribers, Success};
    let mut options = MqttOptions::new("hand", "127.0.0.1", port);
    if let Some((user, password)) = credentials {
        options.set_credentials(user, password);
    }
    let (client, mut connection) = Client::new(options, 8);
    client.publish(topic, QoS::AtLeastOnce, false, payload.to_owned()).unwrap();
    for event in connection.iter() {
        match event {
            Ok(Event::Incoming(Packet::PubAck(ack))) => return matches!(ack.reason, Success | NoMatchingSubscribers),
            Ok(_) => {}
            Err(error) => panic!("the broker is there: {error}"),
        }
    }
    unreachable!("a connection's events do not end");
}

fn said(beside: &PublishProperties, name: &str) -> Option<String> {
    beside.user_properties.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

#[test]
fn beside_each_payload_stands_what_it_is_and_how_long_it_is_worth_keeping() {
    let Some(place) = Place::new() else { return };
    place.configure_more("report_expiry_s = 7200\n[telemetry]\ninterval_s = 100\n");
    let _broker = place.broker();
    let ear = Ear::listen(place.port, "ear", None);
    let mut daemon = place.daemon();
    place.drop_file("a.png", &png(1));
    wait_for("a report", || !ear.on("roentgen/box-t/report").is_empty());
    assert!(publish(place.port, None, "roentgen/box-t/command/telemetry", r#"{"id":"t"}"#));
    wait_for("an answer", || !ear.on("roentgen/box-t/result").is_empty());
    wait_for("telemetry", || !ear.on("roentgen/box-t/telemetry").is_empty());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    for (leaf, schema, expiry) in [
        ("report", "roentgen.report/1", Some(7200)),
        ("status", "roentgen.status/1", None),
        ("telemetry", "roentgen.telemetry/1", Some(360)),
        ("result", "roentgen.result/1", Some(3600)),
    ] {
        for Heard { beside, payload, retained, .. } in ear.on(&format!("roentgen/box-t/{leaf}")) {
            assert_eq!(beside.content_type.as_deref(), Some("application/json"), "{leaf}");
            assert_eq!(beside.payload_format_indicator, Some(1), "{leaf}");
            // The broker takes off the seconds that it has kept it for.
            let kept = beside.message_expiry_interval;
            assert!(
                kept <= expiry && kept.is_some() == expiry.is_some() && kept.is_none_or(|left| left > 60),
                "{leaf}: {kept:?}"
            );
            assert_eq!(said(&beside, "schema").as_deref(), Some(schema), "{leaf}");
            assert_eq!(said(&beside, "device").as_deref(), Some("box-t"), "{leaf}");
            let json: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(said(&beside, "report_id").map(Value::from), json.get("report_id").cloned(), "{leaf}");
            assert!(!retained, "{leaf} came as it was sent");
        }
    }
    let telemetry = ear.json("roentgen/box-t/telemetry");
    assert_eq!(telemetry[0]["broker"]["protocol"], "5", "{telemetry:?}");
}

#[test]
fn mqtt_3_1_1_is_spoken_where_the_configuration_says_so() {
    let Some(place) = Place::new() else { return };
    place.configure_more("protocol = \"3.1.1\"\n[telemetry]\ninterval_s = 5\n");
    let _broker = place.broker();
    let ear = Ear::listen(place.port, "ear", None);
    let _daemon = place.daemon();
    place.drop_file("a.png", &png(1));
    wait_for("a report", || !ear.on("roentgen/box-t/report").is_empty());
    wait_for("telemetry", || {
        ear.json("roentgen/box-t/telemetry").iter().any(|json| json["broker"]["protocol"] == "3.1.1")
    });
    assert_eq!(ear.on("roentgen/box-t/report")[0].beside, PublishProperties::default());
}

#[test]
fn topics_are_those_of_the_configuration() {
    let Some(place) = Place::new() else { return };
    place.configure_more(
        "[mqtt.topics]\nreport = \"ward/3/reports\"\nstatus = \"{prefix}/state/{device}\"\n\
         telemetry = \"{prefix}/{device}/how\"\nresult = \"answers/{device}\"\ncommand = \"do/{device}\"\n",
    );
    let _broker = place.broker();
    let ear = Ear::listen(place.port, "ear", None);
    let mut daemon = place.daemon();
    wait_for("the status", || ear.json("roentgen/state/box-t").last().is_some_and(|json| json["status"] == "online"));
    place.drop_file("a.png", &png(1));
    wait_for("a report", || !ear.on("ward/3/reports").is_empty());
    assert!(publish(place.port, None, "do/box-t/telemetry", r#"{"id":"t"}"#));
    wait_for("an answer", || ear.json("answers/box-t").iter().any(|json| json["id"] == "t" && json["stage"] == "done"));
    wait_for("telemetry", || !ear.on("roentgen/box-t/how").is_empty());
    daemon.signal("KILL");
    daemon.wait();
    wait_for("the last will", || {
        ear.json("roentgen/state/box-t").last().is_some_and(|json| json["reason"] == "connection lost")
    });
    let topics =
        ["ward/3/reports", "roentgen/state/box-t", "roentgen/box-t/how", "answers/box-t", "do/box-t/telemetry"];
    let heard = ear.0.lock().unwrap();
    assert!(heard.iter().all(|heard| topics.contains(&heard.topic.as_str())), "{heard:?}");
}

/// Gives mosquitto rules, and users with their passwords.
fn with_rules(place: &Place, rules: &str, users: &[(&str, &str)]) {
    let (acl, passwords) = (place.path("acl"), place.path("passwords"));
    fs::write(&acl, rules).unwrap();
    fs::write(&passwords, "").unwrap();
    for (user, password) in users {
        let done =
            std::process::Command::new("mosquitto_passwd").arg("-b").arg(&passwords).args([user, password]).output();
        assert!(done.as_ref().is_ok_and(|done| done.status.success()), "mosquitto_passwd: {done:?}");
    }
    for file in [&acl, &passwords] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let path = place.path("mosquitto.conf");
    let config = fs::read_to_string(&path).unwrap().replace("allow_anonymous true", "allow_anonymous false");
    // With 0, no bound, mosquitto 2.0.11 ends a connection together with its refusal.
    let config = config.replace("max_queued_messages 0", "max_queued_messages 100000");
    let config = format!("{config}acl_file {}\npassword_file {}\n", acl.display(), passwords.display());
    fs::write(path, config).unwrap();
}

fn with_password(place: &Place, user: &str, password: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = place.path("password");
    fs::write(&path, password).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    place.configure_more(&format!("username = {user:?}\npassword_file = {path:?}\n"));
}

#[test]
fn a_broker_whose_rules_refuse_reports_costs_none_of_them() {
    let Some(place) = Place::new() else { return };
    let users = [("box-t", "a"), ("ear", "b")];
    let ear_rules = "user ear\ntopic read #\n";
    let rules =
        format!("user box-t\ntopic write roentgen/box-t/status\ntopic write roentgen/box-t/telemetry\n{ear_rules}");
    with_rules(&place, &rules, &users);
    with_password(&place, "box-t", "a");
    place.configure_more("[telemetry]\ninterval_s = 5\n");
    let broker = place.broker();
    let ear = Ear::listen(place.port, "ear", Some(("ear", "b")));
    let _daemon = place.daemon();
    for seed in 0..5 {
        place.drop_file(&format!("{seed}.png"), &png(seed));
    }
    wait_for("the box to say that its reports are refused", || {
        place.log().contains("refuses it on roentgen/box-t/report")
    });
    wait_for("telemetry of five that wait", || {
        ear.json("roentgen/box-t/telemetry").last().is_some_and(|json| json["queue"]["unsent"] == 5)
    });
    assert_eq!(ear.on("roentgen/box-t/report").len(), 0);
    // Mended, without a restart of anything.
    let rules = format!("user box-t\ntopic write roentgen/box-t/#\ntopic read roentgen/box-t/command/#\n{ear_rules}");
    fs::write(place.path("acl"), rules).unwrap();
    broker.signal("HUP");
    wait_for("all reports", || ear.on("roentgen/box-t/report").len() >= 5);
    let reports: Vec<Report> =
        ear.on("roentgen/box-t/report").iter().map(|heard| serde_json::from_str(&heard.payload).unwrap()).collect();
    let sequences: Vec<u64> = reports.iter().map(|report| report.sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5], "in their order, each once");
    wait_for("telemetry of none that waits", || {
        ear.json("roentgen/box-t/telemetry").last().is_some_and(|json| json["queue"]["unsent"] == 0)
    });
}

#[test]
fn the_documented_rules_let_each_do_its_own_and_no_more() {
    let Some(place) = Place::new() else { return };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/examples/mosquitto/acl");
    let rules = fs::read_to_string(example).unwrap();
    let users = [("box-t", "a"), ("fleet", "b"), ("dashboard", "c"), ("homeassistant", "d"), ("box-2", "e")];
    with_rules(&place, &rules, &users);
    with_password(&place, "box-t", "a");
    place.configure_more("[home_assistant]\n[telemetry]\ninterval_s = 5\n");
    let _broker = place.broker();
    let fleet = Ear::listen(place.port, "ear", Some(("fleet", "b")));
    let home = Ear::listen(place.port, "home", Some(("homeassistant", "d")));
    let _daemon = place.daemon();
    wait_for("the status", || !fleet.on("roentgen/box-t/status").is_empty());
    place.drop_file("a.png", &png(1));
    wait_for("a report", || !fleet.on("roentgen/box-t/report").is_empty());
    wait_for("the box in Home Assistant", || !home.on("homeassistant/device/roentgen_box-t/config").is_empty());
    wait_for("telemetry in Home Assistant", || !home.on("roentgen/box-t/telemetry").is_empty());

    let command = |user: &str, password: &str, id: &str| {
        let payload = json!({ "id": id }).to_string();
        publish(place.port, Some((user, password)), "roentgen/box-t/command/telemetry", &payload)
    };
    assert!(command("fleet", "b", "by-fleet") && command("homeassistant", "d", "by-home"));
    let answered = |id: &str| fleet.json("roentgen/box-t/result").iter().any(|json| json["id"] == id);
    wait_for("answers", || answered("by-fleet") && answered("by-home"));
    assert!(!command("dashboard", "c", "by-dashboard") && !command("box-2", "e", "by-box-2"));
    // Nobody says anything in another box's name.
    for (user, password) in [("box-2", "e"), ("dashboard", "c"), ("homeassistant", "d"), ("fleet", "b")] {
        assert!(!publish(place.port, Some((user, password)), "roentgen/box-t/report", "{}"), "{user}");
    }
    assert!(publish(place.port, Some(("box-2", "e")), "roentgen/box-2/report", "{}"));
    assert!(command("fleet", "b", "last"));
    wait_for("the last answer", || answered("last"));
    assert!(!answered("by-dashboard") && !answered("by-box-2"));
    assert_eq!(fleet.on("roentgen/box-t/report").len(), 1);
}

#[test]
fn a_kept_message_that_is_too_large_is_left_out_by_a_broker_that_speaks_mqtt_5() {
    let Some(place) = Place::new() else { return };
    let _broker = place.broker();
    let mut options = rumqttc::MqttOptions::new("hand", "127.0.0.1", place.port);
    options.set_max_packet_size(8 << 20, 8 << 20);
    let (client, mut connection) = rumqttc::Client::new(options, 8);
    let large = vec![b' '; 2 << 20];
    client.publish("roentgen/box-t/command/telemetry", rumqttc::QoS::AtLeastOnce, true, large).unwrap();
    for event in connection.iter() {
        if let rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) = event.expect("the broker is there") {
            break;
        }
    }
    // The subscriber of the other tests would get it too.
    let _daemon = place.daemon();
    place.drop_file("a.png", &png(1));
    let answers = Ear::listen_to(place.port, "ear", None, "roentgen/box-t/result");
    wait_for("the box to obey all the same", || {
        publish(place.port, None, "roentgen/box-t/command/telemetry", r#"{"id":"small"}"#)
            && answers.json("roentgen/box-t/result").iter().any(|json| json["id"] == "small")
    });
    assert!(!place.log().contains("no commands are taken"), "{}", place.log());
}

/// A broker that speaks 3.1.1 alone: rumqttd with no listener for MQTT 5.
#[cfg(feature = "demo")]
#[test]
fn a_broker_of_the_older_kind_is_spoken_to_in_its_own_way() {
    use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
    let Some(place) = Place::new() else { return };
    let connections = ConnectionSettings {
        connection_timeout_ms: 10_000,
        max_payload_size: 1 << 20,
        max_inflight_count: 100,
        auth: None,
        external_auth: None,
        dynamic_filters: true,
    };
    let listen = ([127, 0, 0, 1], place.port).into();
    let server = ServerSettings { name: "old".into(), listen, tls: None, next_connection_delay_ms: 1, connections };
    let router = RouterConfig {
        max_connections: 16,
        max_outgoing_packet_count: 200,
        max_segment_size: 1 << 20,
        max_segment_count: 4,
        ..RouterConfig::default()
    };
    let v4 = Some(std::collections::HashMap::from([("old".to_owned(), server)]));
    let mut broker = Broker::new(Config { router, v4, ..Config::default() });
    thread::spawn(move || broker.start().map_err(|error| error.to_string()));
    wait_for("the broker", || std::net::TcpStream::connect(("127.0.0.1", place.port)).is_ok());
    let received = Received::subscribe(place.port, "screen");
    let _daemon = place.daemon();
    place.drop_file("a.png", &png(1));
    wait_for("a report", || received.count() == 1);
    assert!(place.log().contains("MQTT 3.1.1"), "{}", place.log());
}
