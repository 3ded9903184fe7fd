//! The promise: a box that is told of Home Assistant is found by it, tells it what it needs to know, obeys it, and is gone
//! from it when that is switched off. Real daemon, real mosquitto; and the real Home Assistant (its core and its MQTT
//! integration), where `tests/home_assistant/run` has installed it: it needs a newer Python than Debian 12 has, and root.

mod support;

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use support::daemon::{Place, Received};
use support::{Maker, PATIENCE, Process, png, wait_for};

const TOPIC: &str = "homeassistant/device/roentgen_box-t/config";
const SECTION: &str = "[home_assistant]\n";

/// What came below `homeassistant/`: topic, whether the broker had kept it, payload.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(String, bool, String)>>>);

impl Heard {
    /// A subscriber of its own; what it is told by the broker first is what is retained.
    fn listen(port: u16, name: &str) -> Self {
        let heard = Self::default();
        let sink = heard.clone();
        let mut options = MqttOptions::new(name, "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 8);
        client.subscribe("homeassistant/#", QoS::AtLeastOnce).unwrap();
        let (ready, is_ready) = channel();
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(ready.send(())),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let payload = String::from_utf8(publish.payload.to_vec()).unwrap();
                        sink.0.lock().unwrap().push((publish.topic, publish.retain, payload));
                    }
                    Ok(_) => {}
                    Err(_) => thread::sleep(Duration::from_millis(100)),
                }
            }
            drop(client);
        });
        is_ready.recv_timeout(PATIENCE).expect("mosquitto acknowledges a subscription");
        heard
    }

    fn on(&self, topic: &str) -> Vec<String> {
        let heard = self.0.lock().unwrap();
        heard.iter().filter(|(on, ..)| on == topic).map(|(.., payload)| payload.clone()).collect()
    }
}

/// Publishes, and returns once the broker has it.
fn publish(port: u16, topic: &str, payload: &str) {
    let (client, mut connection) = Client::new(MqttOptions::new("hand", "127.0.0.1", port), 8);
    client.publish(topic, QoS::AtLeastOnce, false, payload).unwrap();
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker is there") {
            return;
        }
    }
}

fn without_section(place: &Place) {
    let path = place.path("roentgend.toml");
    let config = fs::read_to_string(&path).unwrap();
    assert!(config.contains(SECTION));
    fs::write(path, config.replace(SECTION, "")).unwrap();
}

#[test]
fn a_box_is_announced_again_after_a_birth_and_taken_back_when_that_is_switched_off() {
    let Some(place) = Place::new() else { return };
    place.configure_more(SECTION);
    let _broker = place.broker();
    let heard = Heard::listen(place.port, "ear");
    let daemon = place.daemon();
    wait_for("the announcement", || !heard.on(TOPIC).is_empty());
    let announced = heard.on(TOPIC);
    let json: Value = serde_json::from_str(&announced[0]).unwrap();
    assert_eq!(json["device"]["name"], "box-t");
    let late = Heard::listen(place.port, "late");
    wait_for("what the broker keeps", || late.on(TOPIC) == announced[..1]);
    // Another birth than Home Assistant's is none.
    publish(place.port, "homeassistant/status", "offline");
    publish(place.port, "homeassistant/status", "online");
    wait_for("the announcement again", || heard.on(TOPIC).len() == 2);
    assert_eq!(heard.on(TOPIC)[1], announced[0]);

    // On reload.
    without_section(&place);
    daemon.signal("HUP");
    wait_for("that it is taken back", || heard.on(TOPIC).len() == 3);
    assert_eq!(heard.on(TOPIC)[2], "");
    wait_for("the topics to be forgotten", || !place.path("state/home-assistant.topics").exists());
    place.configure_more(SECTION);
    daemon.signal("HUP");
    wait_for("the announcement once more", || heard.on(TOPIC).len() == 4);

    // Killed, and switched off before the next start.
    drop(daemon);
    without_section(&place);
    let mut daemon = place.daemon();
    wait_for("that it is taken back", || heard.on(TOPIC).len() == 5);
    assert_eq!(heard.on(TOPIC)[4], "");
    let after = Heard::listen(place.port, "after");
    publish(place.port, "homeassistant/status", "online");
    wait_for("the birth", || !after.on("homeassistant/status").is_empty());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
    assert_eq!((heard.on(TOPIC).len(), after.on(TOPIC).len()), (5, 0), "nothing is kept, and nobody answers a birth");
}

#[test]
fn another_prefix_takes_the_first_one_back() {
    let Some(place) = Place::new() else { return };
    place.configure_more(SECTION);
    let _broker = place.broker();
    let heard = Heard::listen(place.port, "ear");
    let daemon = place.daemon();
    wait_for("the announcement", || heard.on(TOPIC).len() == 1);
    place.configure_more("discovery_prefix = \"homeassistant/clinic\"\n");
    daemon.signal("HUP");
    let other = TOPIC.replace("homeassistant", "homeassistant/clinic");
    wait_for("the announcement elsewhere", || !heard.on(&other).is_empty());
    assert_eq!(heard.on(TOPIC).last().unwrap(), "");
}

/// A Home Assistant that obeys.
struct HomeAssistant {
    process: Process,
    input: ChildStdin,
    said: Receiver<String>,
    folder: PathBuf,
    warnings: PathBuf,
}

/// Where `tests/home_assistant/run` puts the root that Home Assistant lives in.
fn root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/ha/root");
    let is_there = root.join("ha/bin/python").exists() && support::user() == "root";
    if !is_there {
        let required = std::env::var_os("ROENTGEN_REQUIRE_HOME_ASSISTANT").is_some();
        assert!(!required, "there is no Home Assistant in {}: tests/home_assistant/run installs it", root.display());
        eprintln!("SKIPPED: no Home Assistant here; tests/home_assistant/run, as root, installs it and runs this test");
    }
    is_there.then_some(root)
}

impl HomeAssistant {
    fn start(root: &Path, port: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("ha-").tempdir_in(root.join("tmp")).unwrap().keep();
        let witness = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/home_assistant/witness.py");
        fs::copy(witness, folder.join("witness.py")).unwrap();
        let inside = Path::new("/").join(folder.strip_prefix(root).unwrap());
        let warnings = folder.join("warnings");
        let mut command = Command::new("chroot");
        command.arg(root).arg("/ha/bin/python").arg(inside.join("witness.py")).arg(&inside).arg(port.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&warnings).unwrap());
        let mut process = Process::spawn(&mut command);
        let (input, output) = (process.0.stdin.take().unwrap(), process.0.stdout.take().unwrap());
        let (say, said) = channel();
        thread::spawn(move || BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let home = Self { process, input, said, folder, warnings };
        assert_eq!(home.hear(), "ready", "{}", home.warned());
        home
    }

    fn warned(&self) -> String {
        fs::read_to_string(&self.warnings).unwrap_or_default()
    }

    fn hear(&self) -> String {
        self.said.recv_timeout(PATIENCE * 2).unwrap_or_else(|_| panic!("Home Assistant is silent: {}", self.warned()))
    }

    fn ask(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").unwrap();
        serde_json::from_str(&self.hear()).unwrap()
    }

    /// An entity's state, and whether it is there at all.
    fn state(&mut self, entity: &str) -> Option<String> {
        let states = self.ask("states");
        Some(states.get(entity)?["state"].as_str().unwrap().to_owned())
    }

    fn wait_for(&mut self, entity: &str, what: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state(entity);
            if state.as_deref().is_some_and(&what) {
                return;
            }
            assert!(Instant::now() < deadline, "{entity} is {state:?} in Home Assistant: {}", self.warned());
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for HomeAssistant {
    fn drop(&mut self) {
        let _ = self.process.0.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn home_assistant_finds_the_box_shows_what_it_says_and_commands_it() {
    let Some(root) = root() else { return };
    let Some(place) = Place::new() else { return };
    let maker = Maker::new();
    let bundle = |version: &str| maker.bundle(&place.path("made"), version);
    place.configure(&bundle("1.0.0"), &format!("trusted_keys = [{:?}]", maker.key()));
    place.configure_more(SECTION);
    place.configure_more("[telemetry]\ninterval_s = 5\n[updates]\nautomatic = false\n");
    let later = bundle("1.1.0");
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let daemon = place.daemon();
    let mut home = HomeAssistant::start(&root, place.port);
    home.wait_for("binary_sensor.box_t_connection", |state| state == "on");
    home.wait_for("binary_sensor.box_t_problem", |state| state == "off");
    let states = home.ask("states");
    let entities: Vec<&String> = states.as_object().unwrap().keys().collect();
    for entity in [
        "sensor.box_t_screening_result",
        "sensor.box_t_probability_covid_19",
        "sensor.box_t_probability_lung_opacity",
        "sensor.box_t_probability_normal",
        "sensor.box_t_probability_viral_pneumonia",
        "sensor.box_t_last_radiograph",
        "event.box_t_report",
        "sensor.box_t_reports_waiting",
        "sensor.box_t_images_waiting",
        "sensor.box_t_radiographs_judged",
        "sensor.box_t_time_for_a_radiograph",
        "sensor.box_t_temperature",
        "sensor.box_t_room_on_the_disk",
        "sensor.box_t_backend",
        "sensor.box_t_last_command",
        "update.box_t_model",
        "button.box_t_ask_how_it_is",
        "button.box_t_reload_configuration",
    ] {
        assert!(entities.iter().any(|found| *found == entity), "{entity} is missing in {entities:?}");
    }
    assert!(!entities.iter().any(|found| found.starts_with("button.box_t_take")), "this box has no camera");
    home.wait_for("update.box_t_model", |state| state == "off");
    let model = &home.ask("states")["update.box_t_model"]["attributes"];
    assert_eq!((&model["installed_version"], &model["latest_version"]), (&"1.0.0".into(), &"1.0.0".into()), "{model}");

    place.drop_file("a.png", &png(1));
    home.wait_for("sensor.box_t_screening_result", |state| !["unknown", "unavailable"].contains(&state));
    let report = received.reports().remove(0);
    let states = home.ask("states");
    let shown = |entity: &str| states[entity]["state"].as_str().unwrap_or_default().to_owned();
    assert_eq!(states["sensor.box_t_screening_result"]["attributes"]["report_id"], report.report_id.as_str());
    let notice = states["sensor.box_t_screening_result"]["attributes"]["notice"].as_str().unwrap();
    assert!(notice.contains("not a diagnosis"), "{notice}");
    match &report.decision {
        roentgen::report::Decision::Reported { label } => {
            assert_eq!(shown("sensor.box_t_screening_result"), label.name());
            let covid: f32 = shown("sensor.box_t_probability_covid_19").parse().unwrap();
            assert!((covid - report.findings[0].probability * 100.0).abs() < 0.06, "{covid} {report:?}");
        }
        roentgen::report::Decision::Abstained { .. } => {
            assert_eq!(shown("sensor.box_t_screening_result"), "abstained");
            assert_eq!(shown("sensor.box_t_probability_covid_19"), "unknown");
        }
    }
    assert_ne!(shown("event.box_t_report"), "unknown");
    home.wait_for("sensor.box_t_radiographs_judged", |state| state == "1");
    assert!(home.state("sensor.box_t_room_on_the_disk").unwrap().parse::<f64>().unwrap() > 0.0);
    assert_eq!(home.state("sensor.box_t_backend").as_deref(), Some("native"));

    assert_eq!(home.ask("call button press button.box_t_reload_configuration"), true);
    wait_for("the answer", || received.on("result").iter().any(|(_, json)| json["id"] == "home-assistant"));
    home.wait_for("sensor.box_t_last_command", |state| state == "done");

    // A model that lies there is offered, and installed from there.
    let incoming = place.path("state/bundles/incoming");
    fs::create_dir_all(&incoming).unwrap();
    fs::rename(&later, incoming.join("later")).unwrap();
    home.wait_for("update.box_t_model", |state| state == "on");
    let model = &home.ask("states")["update.box_t_model"]["attributes"];
    assert_eq!((&model["installed_version"], &model["latest_version"]), (&"1.0.0".into(), &"1.1.0".into()), "{model}");
    assert_eq!(home.ask("call update install update.box_t_model"), true);
    home.wait_for("update.box_t_model", |state| state == "off");
    let model = &home.ask("states")["update.box_t_model"]["attributes"];
    assert_eq!(model["installed_version"], "1.1.0", "{model}");

    // Switched off, all of it goes away.
    without_section(&place);
    daemon.signal("HUP");
    wait_for("the box to be gone", || {
        home.ask("states").as_object().unwrap().keys().all(|found| !found.contains("box_t"))
    });
    let warned = home.warned();
    for line in warned.lines().filter(|line| line.contains("mqtt")) {
        assert!(!line.contains("ERROR") && !line.contains("template"), "{warned}");
    }
}
