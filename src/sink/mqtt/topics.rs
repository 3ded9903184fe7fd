//! The topics of one box, and the templates that they are made from. Checked before any socket is opened: a topic that a
//! broker would refuse, or that the box itself would take for a command, never gets that far.

use super::config::{InvalidValue, is_topic_letter};
use serde::{Deserialize, Serialize};

/// The longest topic, in bytes. MQTT allows 65535, brokers often less.
const MAX_TOPIC: usize = 1024;

/// The `[mqtt.topics]` section: each a topic in which `{prefix}` and `{device}` are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Templates {
    /// Where reports go.
    pub report: String,
    /// Where the retained online or offline stands.
    pub status: String,
    /// Where the box says how it is.
    pub telemetry: String,
    /// Where the box answers commands.
    pub result: String,
    /// Below which commands come; the rest of the topic is the command's name.
    pub command: String,
}

impl Default for Templates {
    fn default() -> Self {
        let [report, status, telemetry, result, command] =
            ["report", "status", "telemetry", "result", "command"].map(|leaf| format!("{{prefix}}/{{device}}/{leaf}"));
        Self { report, status, telemetry, result, command }
    }
}

/// The topics of one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Reports.
    pub report: String,
    /// Online or offline, retained.
    pub status: String,
    /// How the box is, retained.
    pub telemetry: String,
    /// Answers to commands.
    pub result: String,
    /// What commands' topics begin with, without the slash that follows.
    pub command: String,
}

impl Topics {
    /// The filter of all commands.
    pub fn commands(&self) -> String {
        format!("{}/#", self.command)
    }
}

impl Templates {
    /// The topics of this device, or what is wrong with a template. `prefix` and `device` are checked already.
    pub fn fill_in(&self, prefix: &str, device: &str) -> Result<Topics, InvalidValue> {
        let fill = |key, template| fill(key, template, prefix, device);
        let topics = Topics {
            report: fill("mqtt.topics.report", &self.report)?,
            status: fill("mqtt.topics.status", &self.status)?,
            telemetry: fill("mqtt.topics.telemetry", &self.telemetry)?,
            result: fill("mqtt.topics.result", &self.result)?,
            command: fill("mqtt.topics.command", &self.command)?,
        };
        // Retained messages of two boxes would replace each other, and a command would reach both.
        let own = [
            ("mqtt.topics.status", &self.status),
            ("mqtt.topics.telemetry", &self.telemetry),
            ("mqtt.topics.command", &self.command),
        ];
        for (key, template) in own {
            if !template.contains("{device}") {
                return Err(invalid(key, template, "each box needs its own: write {device} in it"));
            }
        }
        let said = [
            ("mqtt.topics.report", &topics.report),
            ("mqtt.topics.status", &topics.status),
            ("mqtt.topics.telemetry", &topics.telemetry),
            ("mqtt.topics.result", &topics.result),
        ];
        for (at, (key, topic)) in said.iter().enumerate() {
            if said[..at].iter().any(|(_, other)| other == topic) {
                return Err(invalid(key, topic, "two of [mqtt.topics] are the same: give each a topic of its own"));
            }
            let below = topic.strip_prefix(topics.command.as_str());
            if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
                let problem = "it lies where commands come, so that the box would obey itself: write another topic";
                return Err(invalid(key, topic, problem));
            }
        }
        Ok(topics)
    }
}

fn invalid(key: &'static str, value: &str, problem: impl Into<String>) -> InvalidValue {
    InvalidValue { key, value: value.into(), problem: problem.into() }
}

fn fill(key: &'static str, template: &str, prefix: &str, device: &str) -> Result<String, InvalidValue> {
    let bare = template.replace("{prefix}", "").replace("{device}", "");
    if bare.contains(['{', '}']) {
        return Err(invalid(key, template, "of words in braces there are {prefix} and {device}"));
    }
    // In this order: a device may be called "{prefix}" as far as MQTT is concerned.
    let parts: Vec<String> = template.split("{device}").map(|part| part.replace("{prefix}", prefix)).collect();
    let topic = parts.join(device);
    let is_level = |level: &str| !level.is_empty() && level.chars().all(is_topic_letter);
    if !topic.split('/').all(is_level) || topic.starts_with('$') || topic.len() > MAX_TOPIC {
        let problem = format!(
            "it becomes the topic {topic:?}: write levels without space, + or # and none of them empty, the first not \
             beginning with $, at most {MAX_TOPIC} bytes"
        );
        return Err(invalid(key, template, problem));
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Templates)) -> Result<Topics, InvalidValue> {
        let mut templates = Templates::default();
        change(&mut templates);
        templates.fill_in("clinic/x-ray", "box-7")
    }

    #[test]
    fn without_a_word_topics_are_prefix_device_and_what() {
        let topics = with(|_| ()).unwrap();
        assert_eq!(topics.report, "clinic/x-ray/box-7/report");
        assert_eq!(
            (topics.status.as_str(), topics.result.as_str()),
            ("clinic/x-ray/box-7/status", "clinic/x-ray/box-7/result")
        );
        assert_eq!(topics.telemetry, "clinic/x-ray/box-7/telemetry");
        assert_eq!(topics.commands(), "clinic/x-ray/box-7/command/#");
    }

    #[test]
    fn words_in_braces_are_filled_in_wherever_they_stand() {
        let topics = with(|to| {
            to.report = "ward/3/reports".into();
            to.status = "{prefix}/state-of-{device}/now".into();
            to.command = "do/{device}".into();
        });
        let topics = topics.unwrap();
        assert_eq!((topics.report.as_str(), topics.commands().as_str()), ("ward/3/reports", "do/box-7/#"));
        assert_eq!(topics.status, "clinic/x-ray/state-of-box-7/now");
        let odd = Templates::default().fill_in("p", "{prefix}").unwrap();
        assert_eq!(odd.report, "p/{prefix}/report");
    }

    #[test]
    fn what_no_broker_would_take_is_refused_by_its_key() {
        for bad in ["", "/a", "a/", "a//b", "a/+/b", "#", "a b", "$SYS/a", "a\0", "{Device}/a", "{device}/{", "a}"] {
            let error = with(|to| to.report = bad.into()).expect_err(bad);
            assert_eq!(error.key, "mqtt.topics.report", "{bad}");
        }
        let long = format!("{{device}}/{}", "a".repeat(1024));
        assert_eq!(with(|to| to.result = long).expect_err("too long").key, "mqtt.topics.result");
    }

    #[test]
    fn boxes_do_not_share_what_is_retained_and_obey_nobody_but_others() {
        let key = |change: fn(&mut Templates)| with(change).expect_err("it must be refused").key;
        assert_eq!(key(|to| to.status = "all/status".into()), "mqtt.topics.status");
        assert_eq!(key(|to| to.telemetry = "all/telemetry".into()), "mqtt.topics.telemetry");
        assert_eq!(key(|to| to.command = "all/command".into()), "mqtt.topics.command");
        assert_eq!(key(|to| to.result = to.report.clone()), "mqtt.topics.result");
        assert_eq!(key(|to| to.command = "{prefix}/{device}".into()), "mqtt.topics.report");
        assert_eq!(key(|to| to.result = to.command.clone()), "mqtt.topics.result");
        // Only a whole level lies below.
        assert!(with(|to| to.command = "{prefix}/{device}/rep".into()).is_ok());
    }
}
