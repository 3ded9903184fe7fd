//! Commands that reach the box over MQTT, and its answers: the nouns, their JSON, and the parser, which is a pure function
//! because whoever may publish to the broker decides what it is fed. Not the carrying out.
//!
//! A command names what to do; it carries no address to fetch from, no path, no text that is ever run or opened. A model
//! can only come from a file that lies in the box's own `bundles/incoming`, and only if a trusted key signed it.

use serde::{Deserialize, Serialize};

/// The largest payload that is read, in bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// The schema name of answers.
pub const RESULT_SCHEMA: &str = "roentgen.result/1";

/// The longest identifier and file name.
const MAX_ID: usize = 64;
const MAX_NAME: usize = 200;

/// The `[commands]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What may be asked for over MQTT; empty: nothing, and the box subscribes to nothing.
    pub allow: Vec<Name>,
}

impl Default for Config {
    fn default() -> Self {
        // Going back to an earlier model is left out: a signature cannot say that somebody wants it now.
        Self { allow: vec![Name::Telemetry, Name::Reload, Name::Install, Name::Capture] }
    }
}

/// The commands by their topics below `<prefix>/<device>/command/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// Say now how the box is.
    #[serde(rename = "telemetry")]
    Telemetry,
    /// Read the configuration again.
    #[serde(rename = "reload")]
    Reload,
    /// Install a bundle that lies in `bundles/incoming`.
    #[serde(rename = "bundle/install")]
    Install,
    /// Go back to the good bundle before.
    #[serde(rename = "bundle/rollback")]
    Rollback,
    /// Take a picture with the camera.
    #[serde(rename = "capture")]
    Capture,
    /// Take the picture of the empty light box.
    #[serde(rename = "capture/reference")]
    Reference,
}

impl Name {
    /// All of them.
    pub const ALL: [Name; 6] =
        [Name::Telemetry, Name::Reload, Name::Install, Name::Rollback, Name::Capture, Name::Reference];

    /// As it stands in topic and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::Telemetry => "telemetry",
            Name::Reload => "reload",
            Name::Install => "bundle/install",
            Name::Rollback => "bundle/rollback",
            Name::Capture => "capture",
            Name::Reference => "capture/reference",
        }
    }
}

/// A command that makes sense by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The sender's identifier, which the answers carry; may be empty.
    pub id: String,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Say now how the box is.
    Telemetry,
    /// Read the configuration again.
    Reload,
    /// Install a bundle that lies in `bundles/incoming`.
    Install(Wanted),
    /// Go back to the good bundle before.
    Rollback,
    /// Take a picture of the film that lies before the camera, whether or not it was reported.
    Capture,
    /// Take the picture of the empty light box that films are compared with.
    Reference,
}

impl Command {
    /// Its name.
    pub fn name(&self) -> Name {
        match self {
            Command::Telemetry => Name::Telemetry,
            Command::Reload => Name::Reload,
            Command::Install(_) => Name::Install,
            Command::Rollback => Name::Rollback,
            Command::Capture => Name::Capture,
            Command::Reference => Name::Reference,
        }
    }
}

/// Which bundle is to be installed. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name in `bundles/incoming`: one plain name. Without one, the only bundle that lies there.
    pub file: Option<String>,
    /// The manifest that it must have, signed.
    pub manifest: Option<SignedManifest>,
}

/// A bundle's `bundle.toml` and the signature over it: who sends them says which bundle it is to be, hash by hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedManifest {
    /// The text of `bundle.toml`.
    pub manifest: String,
    /// The text of `bundle.sig`.
    pub signature: String,
}

/// Why a command was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refused {
    /// The sender's identifier, where it could be read.
    pub id: String,
    /// Why, and what to send instead.
    pub reason: String,
}

impl Refused {
    fn new(reason: impl Into<String>) -> Self {
        Self { id: String::new(), reason: reason.into() }
    }
}

/// The payload as it is sent; which fields a command has is checked after.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    #[serde(default)]
    id: String,
    file: Option<String>,
    manifest: Option<String>,
    signature: Option<String>,
}

/// Reads a command. `name` is what follows `<prefix>/<device>/command/` in the topic.
pub fn parse(name: &str, payload: &[u8]) -> Result<Request, Refused> {
    let known = Name::ALL.into_iter().find(|known| known.as_str() == name);
    if payload.len() > MAX_PAYLOAD {
        return Err(Refused::new(format!("a command has at most {MAX_PAYLOAD} bytes")));
    }
    let payload: Payload = match payload.trim_ascii() {
        text @ [b'{', ..] => {
            serde_json::from_slice(text).map_err(|error| Refused::new(format!("payload: {}", in_short(&error))))?
        }
        // Not even nothing: an empty message is what clears one that the broker keeps.
        _ => return Err(Refused::new("payload: send a JSON object, like {\"id\": \"1\"} or {}")),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if payload.id.len() > MAX_ID || !payload.id.bytes().all(plain) {
        let reason = format!("id: at most {MAX_ID} letters, digits, -, _, . and :");
        return Err(Refused::new(reason));
    }
    let id = payload.id.clone();
    let refuse = |reason: String| Refused { id: id.clone(), reason };
    let Some(known) = known else {
        let names: Vec<&str> = Name::ALL.into_iter().map(Name::as_str).collect();
        return Err(refuse(format!("there is no such command; there are {}", names.join(", "))));
    };
    let command = match known {
        Name::Install => Command::Install(wanted(payload).map_err(refuse)?),
        _ if payload.file.is_some() || payload.manifest.is_some() || payload.signature.is_some() => {
            return Err(refuse(format!("{} takes no other field than id", known.as_str())));
        }
        Name::Telemetry => Command::Telemetry,
        Name::Reload => Command::Reload,
        Name::Rollback => Command::Rollback,
        Name::Capture => Command::Capture,
        Name::Reference => Command::Reference,
    };
    Ok(Request { id, command })
}

/// The parser's words, which may quote the payload: without what would forge a line of the log, and not at any length.
fn in_short(error: &serde_json::Error) -> String {
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

fn wanted(payload: Payload) -> Result<Wanted, String> {
    if payload.file.as_ref().is_some_and(|file| !is_plain_name(file)) {
        let reason = "file: one plain name of what lies in bundles/incoming (letters, digits, -, _, . and +), no path";
        return Err(reason.into());
    }
    let manifest = match (payload.manifest, payload.signature) {
        (Some(manifest), Some(signature)) => Some(SignedManifest { manifest, signature }),
        (None, None) => None,
        _ => return Err("manifest and signature go together: the texts of bundle.toml and bundle.sig".into()),
    };
    if payload.file.is_none() && manifest.is_none() {
        return Err("file is missing: the name of what lies in bundles/incoming".into());
    }
    Ok(Wanted { file: payload.file, manifest })
}

/// Whether this is the name of one file or folder, and of no hidden one.
fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

/// How far a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It will be carried out.
    Accepted,
    /// A bundle is being checked, copied and tested.
    Checking,
    /// It is done.
    Done,
    /// The bundle is installed, and the box judges with it.
    Installed,
    /// It is not taken, and nothing has changed.
    Rejected,
    /// It could not be done now, and nothing has changed; trying again may help.
    Failed,
}

impl Stage {
    /// As it stands in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Accepted => "accepted",
            Stage::Checking => "checking",
            Stage::Done => "done",
            Stage::Installed => "installed",
            Stage::Rejected => "rejected",
            Stage::Failed => "failed",
        }
    }
}

/// What the box answers on `<prefix>/<device>/result`, never retained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Always [`RESULT_SCHEMA`].
    pub schema: String,
    /// The box's name.
    pub device: String,
    /// The sender's identifier; empty where there was none, or nobody sent a command.
    pub id: String,
    /// The command, as in its topic; `bundle/incoming` for a bundle that was put into that folder.
    pub command: String,
    /// The bundle that it is about, by its name in `bundles/incoming`; absent where it is about none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How far it has come.
    pub stage: Stage,
    /// The same in words.
    pub message: String,
    /// When, RFC 3339, UTC.
    pub at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, payload: &[u8]) -> String {
        parse(name, payload).expect_err("it must be refused").reason
    }

    #[test]
    fn commands_are_read_with_their_fields() {
        for payload in [&b"{}"[..], b" {\"id\": \"\"}\n"] {
            let request = Request { id: String::new(), command: Command::Telemetry };
            assert_eq!(parse("telemetry", payload), Ok(request));
        }
        let request = Request { id: "7".into(), command: Command::Reload };
        assert_eq!(parse("reload", br#"{"id":"7"}"#), Ok(request));
        let request = parse("bundle/install", br#"{"id":"a-1","file":"cxr-1.2.0+b.tar"}"#).unwrap();
        let wanted = Wanted { file: Some("cxr-1.2.0+b.tar".into()), manifest: None };
        assert_eq!(request.command, Command::Install(wanted));
        let request = parse("bundle/install", br#"{"manifest":"m","signature":"s"}"#).unwrap();
        let manifest = Some(SignedManifest { manifest: "m".into(), signature: "s".into() });
        assert_eq!(request.command, Command::Install(Wanted { file: None, manifest }));
        for name in [Name::Rollback, Name::Capture, Name::Reference] {
            assert_eq!(parse(name.as_str(), b"{}").unwrap().command.name(), name);
        }
    }

    #[test]
    fn an_answer_is_short_and_one_line_whatever_was_sent() {
        let reason = refused("telemetry", br#"{"a\nerror: all is lost": 1}"#);
        assert!(reason.contains("all is lost") && !reason.contains('\n'), "{reason}");
        assert!(refused("telemetry", format!("{{\"{}\": 1}}", "a".repeat(60_000)).as_bytes()).len() < 300);
    }

    #[test]
    fn what_is_strange_is_refused_and_says_what_to_send() {
        assert!(refused("bundle/erase", b"{}").contains("bundle/install"));
        assert!(refused("", b"{}").contains("no such command"));
        assert!(refused("telemetry", br#"{"ids":"7"}"#).contains("ids"));
        assert!(refused("telemetry", br#"{"id":7}"#).contains("string"));
        assert!(refused("telemetry", br#"{"id":"1","id":"2"}"#).contains("duplicate"));
        assert!(refused("reload", b"").contains("JSON object"), "what clears a kept message is no command");
        assert!(refused("telemetry", b"now").contains("JSON object"));
        assert!(refused("telemetry", b"[]").contains("JSON object"));
        assert!(refused("telemetry", br#"{"file":"a"}"#).contains("no other field"));
        assert!(refused("telemetry", br#"{"id":"a b"}"#).contains("id"));
        assert!(refused("telemetry", format!("{{\"id\":\"{}\"}}", "a".repeat(65)).as_bytes()).contains("64"));
        assert!(refused("telemetry", &vec![b' '; MAX_PAYLOAD + 1]).contains("65536"));
        assert!(refused("bundle/install", b"{}").contains("file is missing"));
        assert!(refused("bundle/install", br#"{"file":"a","signature":"s"}"#).contains("together"));
        for file in ["../a", "a/b", ".hidden", "", "a\\u0000b", "http://host/a", "-rf /", "a\\nb"] {
            let payload = format!("{{\"id\":\"9\",\"file\":\"{file}\"}}");
            let error = parse("bundle/install", payload.as_bytes()).expect_err(file);
            assert!(error.reason.contains("no path") && error.id == "9", "{error:?}");
        }
    }

    #[test]
    fn names_stand_in_the_configuration_as_in_topics() {
        for name in Name::ALL {
            assert_eq!(serde_json::to_value(name).unwrap(), name.as_str());
        }
        for stage in [Stage::Accepted, Stage::Checking, Stage::Done, Stage::Installed, Stage::Rejected, Stage::Failed] {
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.as_str());
        }
    }
}
