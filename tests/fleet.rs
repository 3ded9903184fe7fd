//! The promise: simulated boxes publish what real ones would, every report that the broker has acknowledged arrives, and
//! nothing is left behind. A few boxes for a few seconds; `tests/bench/fleet/run` does it with a thousand.
#![cfg(feature = "demo")]

mod support;

use serde_json::Value;
use std::time::Duration;
use support::{free_port, mosquitto, output, roentgend, start_mosquitto, stderr, stdout, user};

#[test]
fn fifty_boxes_lose_nothing_and_leave_nothing() {
    let Some(program) = mosquitto() else { return };
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let config = folder.path().join("mosquitto.conf");
    let listener = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nuser {}\n", user());
    std::fs::write(&config, listener).unwrap();
    let _broker = start_mosquitto(&program, &config, port);
    let url = format!("mqtt://127.0.0.1:{port}");
    let done = output(
        roentgend()
            .args(["simulate-fleet", "--json", "--boxes", "50", "--rate", "4", "--seconds", "3", "--url"])
            .arg(&url),
    );
    assert!(done.status.success(), "{}{}", stdout(&done), stderr(&done));
    let found: Value = serde_json::from_str(&stdout(&done)).unwrap();
    for field in ["published", "acknowledged", "arrived"] {
        assert_eq!(found[field], 600, "{found}");
    }
    assert_eq!((&found["lost"], &found["unacknowledged"]), (&0.into(), &0.into()), "{found}");
    assert!(found["payload_bytes"].as_u64() > Some(900), "{found}");
    assert!(found["acknowledged_ms"]["max"].as_f64() > Some(0.0) && found["arrived_ms"]["p50"].as_f64() > Some(0.0));
    // Nothing is retained for boxes that never were.
    let mut options = rumqttc::MqttOptions::new("late", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = rumqttc::Client::new(options, 8);
    client.subscribe("roentgen/#", rumqttc::QoS::AtLeastOnce).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(2);
    while std::time::Instant::now() < until {
        if let Ok(Ok(rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)))) =
            connection.recv_timeout(Duration::from_millis(200))
        {
            panic!("{} is left", publish.topic);
        }
    }
    drop(client);
}

#[test]
fn what_it_cannot_do_it_says_before_it_begins() {
    let refused = |arguments: &[&str]| {
        let done = output(roentgend().arg("simulate-fleet").args(arguments));
        assert!(!done.status.success());
        stderr(&done)
    };
    let nobody = format!("mqtt://127.0.0.1:{}", free_port());
    assert!(refused(&["--url", &nobody]).contains("start the broker"));
    assert!(refused(&["--url", &nobody, "--rate", "0"]).contains("--rate"));
    assert!(refused(&["--boxes", "0"]).contains("--boxes"));
}
