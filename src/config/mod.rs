//! One TOML file, every module with its own section, unknown keys refused. Reads and checks; opens nothing it names.

mod backend;
mod health;
mod web;

pub use backend::Backend;
pub use health::{Telemetry, Updates};
pub use web::Web;

use crate::assess;
use crate::bundle;
use crate::classifier::{edgetpu, native};
use crate::outbox;
use crate::plain_file;
use crate::radiograph::Limits;
use crate::sink::dicom_sr;
use crate::sink::home_assistant;
use crate::sink::mqtt::{self, check_topic_level, command};
use crate::source::{camera, dicom_scp, folder, reserve};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The default configuration with a comment at every key; `roentgend config` prints it.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// A configuration is a page of text; whatever is larger is another file.
const MAX_BYTES: u64 = 1 << 20;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The box's name: a level of its topics and a field of every report.
    pub device: String,
    /// The directory of the model bundle that runs where none is installed.
    pub bundle: PathBuf,
    /// What runs the model.
    pub backend: Backend,
    /// How the native backend runs it.
    pub engine: native::Config,
    /// Which accelerator the edgetpu backend drives.
    pub accelerator: edgetpu::Config,
    /// Where outbox, key and installed bundles are kept.
    pub state_dir: PathBuf,
    /// Whose bundles are installed and run.
    pub bundles: bundle::Config,
    /// The doors into the box.
    pub source: SourceConfig,
    /// How many reports are kept, and for how long.
    pub outbox: outbox::Config,
    /// The broker.
    pub mqtt: mqtt::Config,
    /// What Home Assistant is told; absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_assistant: Option<home_assistant::Config>,
    /// The PACS that gets results; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dicom_results: Option<dicom_sr::Config>,
    /// What reports carry.
    pub report: assess::Config,
    /// Bounds on what one file may ask of the box.
    pub limits: Limits,
    /// Room that stays free on the disks.
    pub reserve: reserve::Config,
    /// How the box says how it is.
    pub telemetry: Telemetry,
    /// What may be asked of it over MQTT.
    pub commands: command::Config,
    /// How it takes new models.
    pub updates: Updates,
    /// Its own pages.
    pub web: Web,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device: "box-1".into(),
            bundle: "/usr/share/roentgen/models/cxr-vgg16".into(),
            backend: Backend::Auto,
            engine: native::Config::default(),
            accelerator: edgetpu::Config::default(),
            state_dir: "/var/lib/roentgen".into(),
            bundles: bundle::Config::default(),
            source: SourceConfig::default(),
            outbox: outbox::Config::default(),
            mqtt: mqtt::Config::default(),
            home_assistant: None,
            dicom_results: None,
            report: assess::Config::default(),
            limits: Limits::default(),
            reserve: reserve::Config::default(),
            telemetry: Telemetry::default(),
            commands: command::Config::default(),
            updates: Updates::default(),
            web: Web::default(),
        }
    }
}

/// The `[source.*]` sections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceConfig {
    /// The drop folder.
    pub folder: folder::Config,
    /// The DICOM network; off where it is absent.
    pub dicom: Option<dicom_scp::Config>,
    /// The camera; absent: off.
    #[cfg_attr(not(feature = "camera"), serde(deserialize_with = "no_camera"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<camera::Config>,
}

/// The configuration cannot be used: exit code 78, and the unit does not restart on it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path}: {error}; `roentgend config > {path}` makes one to start from")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// It is no TOML, or has a key or value that is not known.
    #[error("configuration {path}: {message}\n`roentgend config` prints every key with its default")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column, key and what was expected.
        message: String,
    },
    /// A value is of the right type and yet unusable.
    #[error("configuration {path}: {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Key, value and what to write instead.
        message: String,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let failed = |error| ConfigError::Read { path: path.to_owned(), error };
        let mut text = String::new();
        let (file, _) = plain_file::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_BYTES {
            let message = format!("larger than {MAX_BYTES} bytes; this is no configuration");
            return Err(ConfigError::Value { path: path.to_owned(), message });
        }
        Self::parse(&text, path)
    }

    /// Checks a configuration's text; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: locate(&error, text) })?;
        config.validate().map_err(|message| ConfigError::Value { path: path.to_owned(), message })?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), String> {
        check_topic_level("device", &self.device).map_err(|error| error.to_string())?;
        self.mqtt.validate().map_err(|error| error.to_string())?;
        self.mqtt.topics(&self.device).map_err(|error| error.to_string())?;
        let home_assistant = self.home_assistant.as_ref().map_or(Ok(()), home_assistant::Config::validate);
        home_assistant.map_err(|error| error.to_string())?;
        self.outbox.validate()?;
        self.dicom_results.as_ref().map_or(Ok(()), dicom_sr::Config::validate)?;
        self.source.folder.validate()?;
        self.source.dicom.as_ref().map_or(Ok(()), dicom_scp::Config::validate)?;
        self.source.camera.as_ref().map_or(Ok(()), camera::Config::validate)?;
        self.limits.validate()?;
        self.bundles.validate()?;
        self.engine.validate()?;
        self.accelerator.validate()?;
        self.telemetry.validate()?;
        self.web.validate()?;
        if !self.backend.is_built() {
            let name = self.backend.name();
            return Err(format!("backend = {name:?}: it is not in this build; write {}", Backend::built()));
        }
        Ok(())
    }

    /// The outbox's database file.
    pub fn outbox(&self) -> PathBuf {
        self.state_dir.join("outbox.sqlite3")
    }

    /// The key file of the pseudonyms.
    pub fn key(&self) -> PathBuf {
        self.state_dir.join("pseudonym.key")
    }
}

/// What is wrong, and in which line; of the line only what stands before its value, which may be a secret that somebody
/// wrote where none belongs.
fn locate(error: &toml::de::Error, text: &str) -> String {
    let said = error.message().trim_end();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else { return said.to_owned() };
    let number = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim()).or_else(|| line.starts_with('[').then_some(line));
    match key {
        Some(key) => format!("line {number}, {key}: {said}"),
        None => format!("line {number}: {said}"),
    }
}

/// Refuses a section whose door is not in this build: ignoring it would leave someone waiting for images that never come.
#[cfg(not(feature = "camera"))]
fn no_camera<'de, D: serde::Deserializer<'de>>(_: D) -> Result<Option<camera::Config>, D::Error> {
    Err(serde::de::Error::custom("[source.camera] is not in this build; remove the section"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("roentgen.toml")).expect_err(text).to_string()
    }

    #[test]
    fn the_printed_configuration_is_the_default_one() {
        let parsed = Config::parse(DEFAULT_TOML, Path::new("default.toml")).unwrap();
        assert_eq!(parsed, Config::default());
        assert_eq!(Config::parse("", Path::new("empty.toml")).unwrap(), Config::default());
    }

    #[test]
    fn every_key_stands_in_the_printed_configuration() {
        fn keys(table: &toml::Table, found: &mut Vec<String>) {
            for (key, value) in table {
                match value {
                    toml::Value::Table(inner) => keys(inner, found),
                    _ => found.push(key.clone()),
                }
            }
        }
        let mut config = Config::default();
        config.mqtt.username = Some(String::new());
        config.mqtt.password_file = Some(PathBuf::new());
        config.mqtt.ca_file = Some(PathBuf::new());
        config.mqtt.client_certificate = Some(PathBuf::new());
        config.mqtt.client_key = Some(PathBuf::new());
        config.web.listen = Some(String::new());
        config.web.token = Some(PathBuf::new());
        config.home_assistant = Some(home_assistant::Config::default());
        let mut results = dicom_sr::Config::to("", "");
        results.ca_file = Some(PathBuf::new());
        results.client_certificate = Some(PathBuf::new());
        results.client_key = Some(PathBuf::new());
        config.dicom_results = Some(results);
        config.source.dicom = Some(dicom_scp::Config {
            tls_certificate: Some(PathBuf::new()),
            tls_key: Some(PathBuf::new()),
            tls_client_ca: Some(PathBuf::new()),
            ..dicom_scp::Config::default()
        });
        config.source.camera = Some(camera::Config::default());
        let mut found = Vec::new();
        keys(&toml::Table::try_from(&config).unwrap(), &mut found);
        assert!(found.len() > 15, "{found:?}");
        for key in found {
            let stands =
                DEFAULT_TOML.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
            assert!(stands, "{key} is missing");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_name() {
        let message = error("device = \"box-1\"\n[mqtt]\nurll = \"mqtt://a\"\n");
        for part in ["roentgen.toml", "line 3", "urll", "url"] {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_repeated() {
        for text in [
            "[mqtt]\npassword = \"hunter2\"",
            "[mqtt]\npassword_file = hunter2",
            "[mqtt]\nusername = \"a\"\npassword_file = \"hunter2\"",
            "[mqtt]\nurl = \"mqtt://a:hunter2@b\"",
            "[mqtt]\nclient_key = \"\"\"\n-----BEGIN PRIVATE KEY-----\nhunter2\"\"\"",
            "[mqtt]\npassword_file = \"\"\"hunter2",
        ] {
            let message = error(text);
            assert!(!message.contains("hunter2") && message.contains("mqtt") | message.contains("line"), "{message}");
        }
    }

    #[test]
    fn an_error_names_the_line_it_is_in() {
        for (text, line) in [("a = 1", 1), ("\n\na = 1", 3), ("device = \"a\"\r\n[mqtt]\r\nkeep_alive_s = true", 3)] {
            assert!(error(text).contains(&format!("line {line}, ")), "{}", error(text));
        }
    }

    #[test]
    fn doors_that_are_not_built_are_refused_rather_than_ignored() {
        if !cfg!(feature = "camera") {
            let message = error("device = \"a\"\n[source.camera]\ndevice = \"x\"\n");
            assert!(message.contains("[source.camera] is not in this build"), "{message}");
            assert!(message.contains("line 2") || message.contains("line 3"), "{message}");
        }
        for backend in Backend::ALL.into_iter().filter(|backend| !backend.is_built()) {
            assert!(error(&format!("backend = {:?}", backend.name())).contains("not in this build"));
        }
        assert!(error("backend = \"gpu\"").contains("line 1"));
    }

    #[test]
    fn unusable_values_name_their_key() {
        for (text, key) in [
            ("device = \"a/b\"", "device"),
            ("[mqtt]\nurl = \"tcp://a\"", "mqtt.url"),
            ("[mqtt]\ntopic_prefix = \"a/#\"", "mqtt.topic_prefix"),
            ("[mqtt]\nmax_packet_bytes = 10", "mqtt.max_packet_bytes"),
            ("[mqtt]\npassword_file = \"x\"", "mqtt.password_file"),
            ("[mqtt]\nprotocol = \"4\"", "protocol"),
            ("[mqtt.topics]\nreport = \"a/#\"", "mqtt.topics.report"),
            ("[mqtt.topics]\nstatus = \"all/status\"", "mqtt.topics.status"),
            ("[home_assistant]\ndiscovery_prefix = \"a/+\"", "home_assistant.discovery_prefix"),
            ("[outbox]\nmax_age_days = 0", "outbox.max_age_days"),
            ("[outbox]\nmax_reports = 1", "outbox.max_reports"),
            ("[outbox]\nmax_bytes = 1", "outbox.max_bytes"),
            ("[source.folder]\nincoming = \"/\"", "source.folder.incoming"),
            ("[source.folder]\nsettle_ms = 1", "source.folder.settle_ms"),
            ("[source.folder]\nkeep_done_days = 40000", "source.folder.keep_done_days"),
            ("[source.dicom]", "source.dicom.allowed_peers"),
            ("[source.dicom]\nallowed_peers = [\"CR@host\"]", "source.dicom.allowed_peers"),
            ("[source.dicom]\nallowed_peers = [\"*\"]\nlisten = \"11112\"", "source.dicom.listen"),
            ("[source.dicom]\nallowed_peers = [\"*\"]\nae_title = \"\"", "source.dicom.ae_title"),
            ("[source.dicom]\nallowed_peers = [\"*\"]\nmax_pdu_bytes = 10", "source.dicom.max_pdu_bytes"),
            ("[source.dicom]\nallowed_peers = [\"*\"]\nkeep_rejected_days = 40000", "source.dicom.keep_rejected_days"),
            ("[source.dicom]\nallowed_peers = [\"*\"]\ntls_certificate = \"/a\"", "source.dicom.tls_key"),
            ("[source.dicom]\nallowed_peers = [\"*\"]\ntls_client_ca = \"/a\"", "source.dicom.tls_client_ca"),
            ("[engine]\nthreads = 1000", "engine.threads"),
            ("[engine]\nkernel = \"mmx\"", "engine.kernel"),
            ("[engine]\nmemory = \"huge\"", "memory"),
            ("[engine]\nmemroy = \"small\"", "memroy"),
            ("[accelerator]\ndelegate = \"a/b.so\"", "accelerator.delegate"),
            ("[accelerator]\ntimeout_ms = 1", "accelerator.timeout_ms"),
            ("[accelerator]\nretry_seconds = 0", "accelerator.retry_seconds"),
            ("[bundles]\ntrusted_keys = []", "bundles.trusted_keys"),
            ("[telemetry]\ninterval_s = 1", "telemetry.interval_s"),
            ("[commands]\nallow = [\"reboot\"]", "reboot"),
            ("[dicom_results]\ncalled_ae_title = \"PACS\"", "address"),
            ("[dicom_results]\naddress = \"pacs\"\ncalled_ae_title = \"PACS\"", "dicom_results.address"),
            ("[dicom_results]\naddress = \"pacs:104\"\ncalled_ae_title = \"PACS\"\nsend = [\"pdf\"]", "pdf"),
            ("[web]\nlisten = \"8080\"", "web.listen"),
            ("[web]\nlisten = \"0.0.0.0:8080\"", "allow_remote"),
            ("[web]\ntoken = \"a\"", "web.token"),
            ("[limits]\nmax_file_bytes = 0", "limits.max_file_bytes"),
            ("[limits]\nmax_pixels = 0", "limits.max_pixels"),
            ("[limits]\nmax_decoded_bytes = 0", "limits.max_decoded_bytes"),
            ("[limits]\nmax_elements = 0", "limits.max_elements"),
            ("[limits]\nmax_nesting = 0", "limits.max_nesting"),
            ("[limits]\ndecode_seconds = 0", "limits.decode_seconds"),
            ("[limits]\ndecode_memory_bytes = 1000", "limits.decode_memory_bytes"),
        ] {
            assert!(error(text).contains(key), "{text}");
        }
    }
}
