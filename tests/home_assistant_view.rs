//! The promise: the view for Home Assistant in `systemd/examples` shows entities that a box really makes known, and the notice.
//! Real daemon, real mosquitto; the names are made as Home Assistant makes them, of device and component. What a real one takes
//! of the discovery is held in `home_assistant.rs`.

#[path = "support/dashboards.rs"]
mod dashboards;
mod support;

use dashboards::{dashboards, example};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use support::daemon::Place;

/// A name as it stands in entities: small letters, digits, and `_` for whatever lies between.
fn slug(name: &str) -> String {
    let letters = name.to_lowercase();
    let parts = letters.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("_")
}

/// The discovery message of a box.
fn discovery(port: u16) -> Value {
    let mut options = MqttOptions::new("home", "127.0.0.1", port);
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = Client::new(options, 8);
    client.subscribe("homeassistant/device/+/config", QoS::AtLeastOnce).unwrap();
    for event in connection.iter() {
        if let Event::Incoming(Packet::Publish(publish)) = event.expect("the broker is there") {
            return serde_json::from_slice(&publish.payload).unwrap();
        }
    }
    panic!("the connection ended")
}

/// The entities that are named in the view.
fn entities(view: &str) -> BTreeSet<&str> {
    let words = view.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit() && !"_.".contains(c));
    let domains = ["sensor", "binary_sensor", "event", "update", "button"];
    words.filter(|word| word.split_once('.').is_some_and(|(domain, _)| domains.contains(&domain))).collect()
}

#[test]
fn the_view_shows_what_a_box_makes_known() {
    let Some(place) = Place::new() else { return };
    place.configure_more("[home_assistant]\n");
    let _broker = place.broker();
    let _daemon = place.daemon();
    let payload = discovery(place.port);
    let device = payload["device"]["name"].as_str().unwrap();
    let components = payload["components"].as_object().unwrap().values();
    let known: BTreeSet<String> = components
        .filter_map(|component| {
            let name = component["name"].as_str()?;
            Some(format!("{}.{}", component["platform"].as_str()?, slug(&format!("{device} {name}"))))
        })
        .collect();
    let view = example("home-assistant/dashboard.yaml").replace("box_1", "box_t");
    let shown = entities(&view);
    assert!(shown.len() > 12 && known.len() > 12, "{shown:?} {known:?}");
    let unknown: Vec<_> = shown.iter().filter(|entity| !known.contains(**entity)).collect();
    assert!(unknown.is_empty(), "no box makes known {unknown:?}, but {known:?}");
    assert!(view.contains("This screens, it does not diagnose."));
    assert!(entities("a: sensor.box_t_nonsense\n").iter().all(|entity| !known.contains(*entity)));
}

#[test]
fn the_view_is_sound_yaml_of_cards_with_a_kind() {
    let Some(packages) = dashboards() else { return };
    let script = "const view = require('js-yaml').load(require('fs').readFileSync(0, 'utf8'));\n\
        const cards = view.views.flatMap(view => view.sections).flatMap(section => section.cards);\n\
        for (const card of cards) if (typeof (card.card ?? card).type !== 'string') throw new Error(JSON.stringify(card));\n\
        console.log(cards.length);\n";
    let mut command = Command::new("node");
    command.args(["-e", script]).env("NODE_PATH", packages.join("node_modules"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("node");
    child.stdin.take().unwrap().write_all(example("home-assistant/dashboard.yaml").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cards: usize = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    assert!(cards > 10, "only {cards} cards");
}
