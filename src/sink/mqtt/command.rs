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
    /// Make an installed bundle the active one.
    #[serde(rename = "bundle/activate")]
    Activate,
    /// Judge a radiograph again that was kept.
    #[serde(rename = "reclassify")]
    Reclassify,
    /// Take a picture with the camera.
    #[serde(rename = "capture")]
    Capture,
    /// Take the picture of the empty light box.
    #[serde(rename = "capture/reference")]
    Reference,
}

impl Name {
    /// All of them.
    pub const ALL: [Name; 8] = [
        Name::Telemetry,
        Name::Reload,
        Name::Install,
        Name::Rollback,
        Name::Activate,
        Name::Reclassify,
        Name::Capture,
        Name::Reference,
    ];

    /// As it stands in topic and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Name::Telemetry => "telemetry",
            Name::Reload => "reload",
            Name::Install => "bundle/install",
            Name::Rollback => "bundle/rollback",
            Name::Activate => "bundle/activate",
            Name::Reclassify => "reclassify",
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
    /// Make the installed bundle of this version the active one.
    Activate(String),
    /// Judge the radiograph of this report again, if it was kept.
    Reclassify(String),
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
            Command::Activate(_) => Name::Activate,
            Command::Reclassify(_) => Name::Reclassify,
            Command::Capture => Name::Capture,
            Command::Reference => Name::Reference,
        }
    }
}

/// Which bundle is to be installed.
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
    version: Option<String>,
    report_id: Option<String>,
}

impl Payload {
    /// The fields that are there, beside the identifier.
    fn fields(&self) -> impl Iterator<Item = &'static str> {
        let fields = [
            ("file", &self.file),
            ("manifest", &self.manifest),
            ("signature", &self.signature),
            ("version", &self.version),
            ("report_id", &self.report_id),
        ];
        fields.into_iter().filter_map(|(name, value)| value.as_ref().map(|_| name))
    }
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
    let fields: &[&str] = match known {
        Name::Install => &["file", "manifest", "signature"],
        Name::Activate => &["version"],
        Name::Reclassify => &["report_id"],
        _ => &[],
    };
    if payload.fields().any(|field| !fields.contains(&field)) {
        let others = if fields.is_empty() { String::new() } else { format!(" and {}", fields.join(", ")) };
        return Err(refuse(format!("{} takes no other field than id{others}", known.as_str())));
    }
    let command = match known {
        Name::Install => Command::Install(wanted(payload).map_err(refuse)?),
        Name::Activate => match payload.version.filter(|version| is_plain_name(version)) {
            Some(version) => Command::Activate(version),
            None => return Err(refuse("version: that of an installed bundle, like 1.2.0".into())),
        },
        Name::Reclassify => match payload.report_id.filter(|id| is_report_id(id)) {
            Some(id) => Command::Reclassify(id),
            None => return Err(refuse("report_id: the 32 hexadecimal digits of a report of this box".into())),
        },
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
    Ok(Wanted { file: payload.file, manifest })
}

/// Whether this is how a report's id looks.
fn is_report_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
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
mod tests;
