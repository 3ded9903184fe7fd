//! What Home Assistant is told about a box, so that it finds it by itself: one device-based discovery message, retained
//! (<https://www.home-assistant.io/integrations/mqtt>). A pure function of the box's configuration; the connection that it
//! goes over, and when, are others' affair. It names no image and no person, and carries no more than the box's topics do.
//!
//! Entities are named by device and name: `sensor.box_1_screening_result` of the box `box-1`.

use super::mqtt::command::Name;
use super::mqtt::{InvalidValue, Topics, check_topic_level};
use crate::bundle::sha256_hex;
use crate::report::Label;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What stands in the `id` of commands that Home Assistant sends.
const SENDER: &str = "home-assistant";

/// The `[home_assistant]` section; absent: Home Assistant is told nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What discovery topics begin with; one level or several.
    pub discovery_prefix: String,
    /// The topic on which Home Assistant says that it has started, and what it says there.
    pub birth_topic: String,
    /// The payload that says so.
    pub birth_payload: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            discovery_prefix: "homeassistant".into(),
            birth_topic: "homeassistant/status".into(),
            birth_payload: "online".into(),
        }
    }
}

impl Config {
    /// What is wrong with the values, if anything is.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let keys = [
            ("home_assistant.discovery_prefix", &self.discovery_prefix),
            ("home_assistant.birth_topic", &self.birth_topic),
        ];
        for (key, topic) in keys {
            for level in topic.split('/') {
                check_topic_level(key, level)?;
            }
        }
        if self.birth_payload.is_empty() || self.birth_payload.len() > 128 {
            let (key, value) = ("home_assistant.birth_payload", self.birth_payload.clone());
            return Err(InvalidValue { key, value, problem: "write what Home Assistant says: online".into() });
        }
        Ok(())
    }
}

/// What the discovery message is made from.
#[derive(Debug, Clone, Copy)]
pub struct Described<'a> {
    /// The box's name.
    pub device: &'a str,
    /// Its topics.
    pub topics: &'a Topics,
    /// Whether it has a camera.
    pub camera: bool,
    /// The commands that it takes.
    pub commands: &'a [Name],
}

impl Described<'_> {
    /// The topic and the payload of the discovery message.
    pub fn discovery(&self, config: &Config) -> (String, String) {
        let id = format!("roentgen_{}", slug(self.device));
        let topic = format!("{}/device/{id}/config", config.discovery_prefix);
        let mut components = Map::new();
        for (key, mut component) in self.components() {
            // A removed one is named by its platform alone.
            if let Some(fields) = component.as_object_mut().filter(|fields| fields.len() > 1) {
                fields.insert("unique_id".into(), format!("{id}_{key}").into());
            }
            components.insert(key.into(), component);
        }
        let payload = json!({
            "device": {
                "identifiers": [id],
                "name": self.device,
                "manufacturer": "Roentgen",
                "model": "Chest-radiograph screening (no diagnosis)",
                "sw_version": env!("CARGO_PKG_VERSION"),
            },
            "origin": { "name": "roentgend", "sw_version": env!("CARGO_PKG_VERSION") },
            "components": components,
            "qos": 1,
        });
        (topic, payload.to_string())
    }

    fn components(&self) -> Vec<(&'static str, Value)> {
        let mut all = vec![self.result(), self.report_event(), self.received()];
        all.extend(PROBABILITIES.map(|(label, key, name)| (key, self.probability(label, name))));
        all.extend([
            self.connectivity(),
            self.problem(),
            self.queue("unsent", "queue_unsent", "Reports waiting", "mdi:tray-full"),
            self.queue("incoming", "queue_incoming", "Images waiting", "mdi:tray-arrow-down"),
            self.judged(),
            self.duration(),
            self.temperature(),
            self.disk(),
            self.backend(),
            self.last_command(),
            self.update(),
        ]);
        let buttons = [
            ("capture", Name::Capture, "Take picture", "mdi:camera", self.camera),
            ("ask_telemetry", Name::Telemetry, "Ask how it is", "mdi:refresh", true),
            ("reload", Name::Reload, "Reload configuration", "mdi:file-refresh", true),
            ("rollback", Name::Rollback, "Go back to the model before", "mdi:undo", true),
        ];
        all.extend(buttons.map(|(key, name, title, icon, can)| (key, self.button(name, title, icon, can))));
        all
    }

    /// Something that is there while the box is: read from a topic by a template.
    fn read(&self, platform: &str, name: &str, topic: &str, template: &str, more: Value) -> Value {
        let mut component = json!({
            "platform": platform,
            "name": name,
            "state_topic": topic,
            "value_template": template,
            "availability_topic": self.topics.status,
            "availability_template": "{{ value_json.status }}",
        });
        if let (Some(fields), Value::Object(more)) = (component.as_object_mut(), more) {
            fields.extend(more);
        }
        component
    }

    fn result(&self) -> (&'static str, Value) {
        let options: Vec<&str> = Label::ALL.into_iter().map(Label::name).chain(["abstained"]).collect();
        let attributes = "{{ {'report_id': value_json.report_id, 'received_at': value_json.received_at, \
                          'model': value_json.model.name ~ ' ' ~ value_json.model.version, \
                          'reasons': value_json.decision.reasons | default([]) | map(attribute='message') | list, \
                          'notice': value_json.notice} | to_json }}";
        let more = json!({
            "device_class": "enum",
            "options": options,
            "icon": "mdi:lungs",
            "json_attributes_topic": self.topics.report,
            "json_attributes_template": attributes,
        });
        let template = "{{ value_json.decision.label | default('abstained') }}";
        ("result", self.read("sensor", "Screening result", &self.topics.report, template, more))
    }

    fn report_event(&self) -> (&'static str, Value) {
        let template = "{{ {'event_type': value_json.decision.status, 'report_id': value_json.report_id, \
                        'label': value_json.decision.label | default(none), \
                        'reasons': value_json.decision.reasons | default([]) | map(attribute='code') | list} | to_json }}";
        let more = json!({ "event_types": ["reported", "abstained"], "icon": "mdi:file-document-check" });
        ("report", self.read("event", "Report", &self.topics.report, template, more))
    }

    fn received(&self) -> (&'static str, Value) {
        let more = json!({ "device_class": "timestamp" });
        let template = "{{ value_json.received_at }}";
        ("received", self.read("sensor", "Last radiograph", &self.topics.report, template, more))
    }

    /// Of an abstention the probabilities are no result, and are not shown.
    fn probability(&self, label: Label, name: &str) -> Value {
        let template = format!(
            "{{{{ (value_json.findings | selectattr('label', 'eq', '{}') | map(attribute='probability') | first * 100) \
             | round(1) if value_json.decision.status == 'reported' else none }}}}",
            label.name()
        );
        let more = json!({
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "suggested_display_precision": 1,
            "icon": "mdi:percent",
        });
        self.read("sensor", name, &self.topics.report, &template, more)
    }

    /// The one thing that is there while the box is not.
    fn connectivity(&self) -> (&'static str, Value) {
        let component = json!({
            "platform": "binary_sensor",
            "name": "Connection",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": self.topics.status,
            "value_template": "{{ value_json.status }}",
            "payload_on": "online",
            "payload_off": "offline",
        });
        ("connection", component)
    }

    fn problem(&self) -> (&'static str, Value) {
        let attributes =
            "{{ {'healthy': value_json.health.healthy, 'problems': value_json.health.problems} | to_json }}";
        let more = json!({
            "device_class": "problem",
            "entity_category": "diagnostic",
            "json_attributes_topic": self.topics.telemetry,
            "json_attributes_template": attributes,
        });
        let template = "{{ 'ON' if value_json.health.problems else 'OFF' }}";
        ("problem", self.read("binary_sensor", "Problem", &self.topics.telemetry, template, more))
    }

    /// A sensor of the telemetry for who looks after the box.
    fn diagnostic(&self, name: &str, template: &str, mut more: Value) -> Value {
        more["entity_category"] = "diagnostic".into();
        self.read("sensor", name, &self.topics.telemetry, template, more)
    }

    fn queue(&self, field: &str, key: &'static str, name: &str, icon: &str) -> (&'static str, Value) {
        let more = json!({ "state_class": "measurement", "icon": icon });
        (key, self.diagnostic(name, &format!("{{{{ value_json.queue.{field} | default(none) }}}}"), more))
    }

    fn judged(&self) -> (&'static str, Value) {
        let template = "{{ value_json.counts.reported.values() | sum + value_json.counts.abstained }}";
        let more = json!({ "state_class": "total_increasing", "icon": "mdi:counter" });
        ("judged", self.diagnostic("Radiographs judged", template, more))
    }

    fn duration(&self) -> (&'static str, Value) {
        let template = "{{ value_json.latency_ms.total.p50 | round(1) if value_json.latency_ms is defined else none }}";
        let more = json!({
            "device_class": "duration",
            "unit_of_measurement": "ms",
            "state_class": "measurement",
            "suggested_display_precision": 0,
        });
        ("duration", self.diagnostic("Time for a radiograph", template, more))
    }

    fn temperature(&self) -> (&'static str, Value) {
        let template =
            "{{ value_json.heat.zones | map(attribute='celsius') | max if value_json.heat.zones else none }}";
        let more = json!({ "device_class": "temperature", "unit_of_measurement": "°C", "state_class": "measurement" });
        ("temperature", self.diagnostic("Temperature", template, more))
    }

    fn disk(&self) -> (&'static str, Value) {
        let template = "{{ (value_json.disks.state_dir.free_bytes / 1073741824) | round(2) \
                        if value_json.disks.state_dir is defined else none }}";
        let more = json!({ "device_class": "data_size", "unit_of_measurement": "GiB", "state_class": "measurement" });
        ("disk_free", self.diagnostic("Room on the disk", template, more))
    }

    fn backend(&self) -> (&'static str, Value) {
        let template = "{{ value_json.engine.backend if value_json.engine is defined else none }}";
        ("backend", self.diagnostic("Backend", template, json!({ "icon": "mdi:chip" })))
    }

    fn last_command(&self) -> (&'static str, Value) {
        let attributes =
            "{{ {'command': value_json.command, 'message': value_json.message, 'at': value_json.at} | to_json }}";
        let more = json!({
            "entity_category": "diagnostic",
            "icon": "mdi:console",
            "json_attributes_topic": self.topics.result,
            "json_attributes_template": attributes,
        });
        ("command", self.read("sensor", "Last command", &self.topics.result, "{{ value_json.stage }}", more))
    }

    /// The model: which one runs, and which one lies in `bundles/incoming` and may be installed.
    fn update(&self) -> (&'static str, Value) {
        let template = "{% if value_json.engine is defined %}{% set model = value_json.engine.model %}\
                        {{ {'installed_version': model.version, \
                        'latest_version': (value_json.update_waiting | default({})).version | default(model.version), \
                        'in_progress': value_json.update is defined and value_json.update.stage == 'checking'} \
                        | to_json }}{% endif %}";
        let mut more = json!({ "title": "Model bundle", "entity_category": "config" });
        if self.commands.contains(&Name::Install) {
            more["command_topic"] = self.command(Name::Install).into();
            more["payload_install"] = json!({ "id": SENDER }).to_string().into();
        }
        ("model", self.read("update", "Model", &self.topics.telemetry, template, more))
    }

    fn command(&self, name: Name) -> String {
        format!("{}/{}", self.topics.command, name.as_str())
    }

    /// A button, or that there is none any more.
    fn button(&self, command: Name, name: &str, icon: &str, can: bool) -> Value {
        if !can || !self.commands.contains(&command) {
            return json!({ "platform": "button" });
        }
        let mut button = json!({
            "platform": "button",
            "name": name,
            "icon": icon,
            "command_topic": self.command(command),
            "payload_press": json!({ "id": SENDER }).to_string(),
            "availability_topic": self.topics.status,
            "availability_template": "{{ value_json.status }}",
        });
        if command != Name::Capture {
            button["entity_category"] = if command == Name::Telemetry { "diagnostic" } else { "config" }.into();
        }
        button
    }
}

/// Key and name of the probabilities.
const PROBABILITIES: [(Label, &str, &str); 4] = [
    (Label::Covid, "probability_covid", "Probability COVID-19"),
    (Label::LungOpacity, "probability_lung_opacity", "Probability lung opacity"),
    (Label::Normal, "probability_normal", "Probability normal"),
    (Label::ViralPneumonia, "probability_viral_pneumonia", "Probability viral pneumonia"),
];

/// A device's name in the letters that discovery topics may have; of names that would become the same each stays its own.
fn slug(device: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    if device.chars().all(plain) {
        return device.to_owned();
    }
    let letters: String = device.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
    format!("{letters}_{:.8}", sha256_hex(device.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::mqtt::Templates;

    fn discovery(device: &str, camera: bool, commands: &[Name]) -> (String, Value) {
        let topics = Templates::default().fill_in("roentgen", device).unwrap();
        let described = Described { device, topics: &topics, camera, commands };
        let (topic, payload) = described.discovery(&Config::default());
        (topic, serde_json::from_str(&payload).unwrap())
    }

    #[test]
    fn every_entity_has_an_identifier_of_its_own_and_reads_a_topic_of_the_box() {
        let (topic, payload) = discovery("box-1", true, &Name::ALL);
        assert_eq!(topic, "homeassistant/device/roentgen_box-1/config");
        let components = payload["components"].as_object().unwrap();
        let mut identifiers = Vec::new();
        for (key, component) in components {
            identifiers.push(component["unique_id"].as_str().unwrap_or_else(|| panic!("{key} has none")));
            for (field, value) in component.as_object().unwrap() {
                if field.ends_with("_topic") {
                    assert!(value.as_str().unwrap().starts_with("roentgen/box-1/"), "{key} {field}: {value}");
                }
            }
        }
        let count = identifiers.len();
        identifiers.dedup();
        assert!(identifiers.len() == count && count >= 20, "{identifiers:?}");
        assert_eq!(components["capture"]["command_topic"], "roentgen/box-1/command/capture");
    }

    #[test]
    fn what_a_box_cannot_do_is_named_so_that_it_goes_away() {
        let (_, payload) = discovery("box-1", false, &[Name::Telemetry]);
        let gone = json!({ "platform": "button" });
        assert_eq!(payload["components"]["capture"], gone);
        assert_eq!(payload["components"]["rollback"], gone);
        assert_eq!(payload["components"]["model"].get("command_topic"), None);
        assert_eq!(payload["components"]["ask_telemetry"]["name"], "Ask how it is");
    }

    #[test]
    fn the_topic_has_only_letters_that_home_assistant_takes_and_no_two_boxes_share_it() {
        let topics = ["box-1", "box.1", "box:1", "Röntgen", "a{b}"].map(|device| discovery(device, false, &[]).0);
        for (at, topic) in topics.iter().enumerate() {
            let id = topic.split('/').nth(2).unwrap();
            assert!(id.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter)), "{id}");
            assert!(!topics[..at].contains(topic), "{topic}");
        }
    }

    #[test]
    fn unusable_values_name_their_key() {
        let key = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().map_err(|error| error.key)
        };
        assert_eq!(key(|_| ()), Ok(()));
        assert_eq!(key(|config| config.discovery_prefix = "a/+".into()), Err("home_assistant.discovery_prefix"));
        assert_eq!(key(|config| config.birth_topic.clear()), Err("home_assistant.birth_topic"));
        assert_eq!(key(|config| config.birth_payload.clear()), Err("home_assistant.birth_payload"));
    }
}
