//! Reading the configuration again while the daemon runs: which keys may change, and what has to be made anew for them.
//! All of that is made, and so checked, while the old configuration still works; whatever fails, the old one goes on.

use super::parts;
use crate::logging;
use crate::model::{self, Active, Choice};
use crate::systemd;
use anyhow::{Context, bail};
use roentgen::assess::Assessor;
use roentgen::bundle::{Bundle, Store, sha256_hex};
use roentgen::config::Config;
use roentgen::reload::{Outcome, Reload, Ticket, Wish};
use roentgen::sink::dicom_sr::Results;
use roentgen::sink::mqtt::{MqttSink, Prepared};
use roentgen::source::Doors;
use roentgen::source::dicom_scp::{Provider, Watch};
use roentgen::source::process::Program;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Keys that only a restart changes: the outbox in `state_dir` is open and locked, and the reports in it carry the name of
/// the device, on whose topics they are sent.
const FIXED: [&str; 2] = ["state_dir", "device"];

/// The keys whose change asks for another classifier, or the same one loaded otherwise.
const OF_MODEL: [&str; 4] = ["bundle", "bundles", "backend", "engine"];

/// The keys that the doors into the box are made from.
const OF_SOURCE: [&str; 4] = ["source", "limits", "reserve", "dicom_results"];

/// The keys that the provider of the DICOM network is made from.
const OF_DICOM: [&str; 3] = ["source.dicom", "limits.max_file_bytes", "reserve"];

/// What runs at the moment.
pub(super) struct Running<'a> {
    pub(super) config: &'a Config,
    /// Where it stands.
    pub(super) path: &'a Path,
    pub(super) bundle: &'a Bundle,
    /// Whether that is another bundle than the one that should run.
    pub(super) is_fallback: bool,
    /// What the connection to the broker was made with.
    pub(super) broker_files: &'a Stamps,
    /// What the DICOM network's TLS was made with.
    pub(super) dicom_files: &'a Stamps,
    /// What was seen of that network.
    pub(super) dicom_watch: &'a Watch,
}

/// A change that can be made: all that it needs is there.
pub(super) struct Change {
    pub(super) ticket: Ticket,
    pub(super) config: Config,
    pub(super) model: Option<Active>,
    pub(super) assessor: Option<Assessor>,
    pub(super) source: Option<Doors>,
    /// What sends results to the PACS from now on, where that changes; it has not begun to.
    pub(super) results: Option<Option<Results>>,
    /// Who judges suspects by this configuration.
    pub(super) trial: Program,
    /// The connection to the broker, where it is to be made anew: the files that it needs are read, and never again for it.
    pub(super) broker: Option<(Prepared, Stamps)>,
    /// What serves modalities from then on, where that changes; nobody, where the door is closed.
    pub(super) dicom: Option<(Option<Provider>, Stamps)>,
    /// What changes, in words.
    pub(super) told: String,
}

/// Looks whether a reload is asked for, and prepares it. `None`: it is not, or it was refused or changes nothing, and is
/// answered. `beat` is called between things that take long.
pub(super) fn on_wish(reload: &Reload, running: &Running, beat: &mut dyn FnMut()) -> Option<Change> {
    let wish = reload.take()?;
    systemd::reloading();
    match prepared(wish, running, beat) {
        Ok(Some(change)) => return Some(change),
        Ok(None) => done(reload, wish.ticket, Ok("nothing has changed".into())),
        Err(error) => done(reload, wish.ticket, Err(logging::chain(&error))),
    }
    None
}

/// Says what became of a reload to whoever wants to know.
pub(super) fn done(reload: &Reload, ticket: Ticket, outcome: Outcome) {
    match &outcome {
        Ok(told) => {
            log::info!("read the configuration again: {told}");
            systemd::status("");
        }
        Err(reason) => {
            log::error!("not taking the new configuration, the old one goes on: {reason}");
            systemd::status(&format!("The configuration file is not the one in use: {reason}"));
        }
    }
    systemd::ready();
    reload.answer(ticket, outcome);
}

fn prepared(wish: Wish, running: &Running, beat: &mut dyn FnMut()) -> anyhow::Result<Option<Change>> {
    if !wish.configuration {
        return prepare(wish.ticket, running.config.clone(), running, beat);
    }
    let prepared = Config::load(running.path)
        .map_err(anyhow::Error::from)
        .and_then(|config| prepare(wish.ticket, config, running, beat));
    match prepared {
        // The bundle was asked for by itself, and a bad file is no reason to withhold it.
        Err(error) if wish.bundle => {
            log::error!("not taking the new configuration, the old one goes on: {}", logging::chain(&error));
            prepare(wish.ticket, running.config.clone(), running, beat)
        }
        prepared => prepared,
    }
}

/// Makes what the new configuration needs; `None` where that is nothing.
fn prepare(ticket: Ticket, new: Config, running: &Running, beat: &mut dyn FnMut()) -> anyhow::Result<Option<Change>> {
    let mut changed = changed_keys(running.config, &new)?;
    let touches = |sections: &[&str]| changed.iter().any(|key| sections.iter().any(|section| is_under(key, section)));
    for key in FIXED {
        if touches(&[key]) {
            bail!("{key} cannot change while roentgend runs: set it back, or restart roentgend");
        }
    }
    // Looked at before they are read: what is replaced in between is noticed the next time.
    let (files, dicom_files) = (stamps(&new, &["mqtt", "dicom_results"])?, stamps(&new, &["source.dicom"])?);
    let reconnect = touches(&["mqtt"]) || files != *running.broker_files;
    let broker = if reconnect { Some((MqttSink::prepare(&new.mqtt, &new.device)?, files.clone())) } else { None };
    let model = if touches(&OF_MODEL) || running.is_fallback || !is_active(running.bundle, &new) {
        let active = model::load_active(&new, &Choice::of_daemon(&new), &mut *beat)?;
        match &active.fallback {
            // It would be a change for the worse.
            Some(fallback) if !running.is_fallback => bail!("bundle {}: {}", fallback.wanted, fallback.reason),
            _ => Some(active),
        }
    } else {
        None
    };
    let assessor = match &model {
        Some(model) => Some(parts::assessor(&new, &model.bundle)?),
        None if touches(&["report"]) => Some(parts::assessor(&new, running.bundle)?),
        None => None,
    };
    let source = if touches(&OF_SOURCE) { Some(parts::source(&new)?) } else { None };
    let results =
        if touches(&["dicom_results"]) || files != *running.broker_files { Some(parts::results(&new)?) } else { None };
    let dicom = if touches(&OF_DICOM) || dicom_files != *running.dicom_files {
        Some((parts::dicom(&new, running.dicom_watch)?, dicom_files))
    } else {
        None
    };
    if let Some(model) = &model {
        let manifest = model.bundle.manifest();
        changed.push(format!("now {} {}", manifest.name, manifest.version));
    }
    if changed.is_empty() {
        let of_files =
            [("sections [mqtt] and [dicom_results]", broker.is_some()), ("section [source.dicom]", dicom.is_some())];
        let renewed = of_files.into_iter().filter(|(_, is_renewed)| *is_renewed);
        changed.extend(renewed.map(|(sections, _)| format!("files of the {sections}")));
    }
    let told = changed.join(", ");
    let trial = parts::trial(&new)?;
    let change = Change { ticket, config: new, model, assessor, source, results, trial, broker, dicom, told };
    Ok((!change.told.is_empty()).then_some(change))
}

/// Whether a start would take the bundle that runs: its manifest, which names every other file's hash, still lies there.
fn is_active(bundle: &Bundle, config: &Config) -> bool {
    let installed = Store::new(&config.state_dir).candidates().unwrap_or_default();
    let first = installed.first().unwrap_or(&config.bundle);
    let manifest = std::fs::read(first.join("bundle.toml"));
    first == bundle.dir() && manifest.is_ok_and(|bytes| sha256_hex(&bytes) == bundle.sha256())
}

/// The names of the keys whose values differ.
fn changed_keys(old: &Config, new: &Config) -> anyhow::Result<Vec<String>> {
    let (old, new) = (keys(old)?, keys(new)?);
    let mut names: Vec<_> = old.keys().chain(new.keys()).filter(|key| old.get(*key) != new.get(*key)).collect();
    names.sort();
    names.dedup();
    Ok(names.into_iter().cloned().collect())
}

/// Every key with its value, named as `section.key`.
fn keys(config: &Config) -> anyhow::Result<BTreeMap<String, toml::Value>> {
    fn walk(prefix: &str, table: toml::Table, found: &mut BTreeMap<String, toml::Value>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => walk(&format!("{prefix}{key}."), inner, found),
                value => drop(found.insert(format!("{prefix}{key}"), value)),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", toml::Table::try_from(config).context("cannot compare the configurations")?, &mut found);
    Ok(found)
}

fn is_under(key: &str, section: &str) -> bool {
    key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The files that sections name (certificates, keys, a password), each with what tells that it was replaced.
pub(super) type Stamps = BTreeMap<String, Option<(u64, i64, i64, u64)>>;

/// How they lie there now.
pub(super) fn stamps(config: &Config, sections: &[&str]) -> anyhow::Result<Stamps> {
    let stamp = |path: &str| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    let is_theirs = |key: &str| sections.iter().any(|section| is_under(key, section));
    let values = keys(config)?.into_iter().filter(|(key, _)| is_theirs(key)).map(|(_, value)| value);
    let paths = values.filter_map(|value| value.as_str().filter(|text| text.starts_with('/')).map(str::to_owned));
    Ok(paths.map(|path| (path.clone(), stamp(&path))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("roentgend.toml")).unwrap()
    }

    #[test]
    fn what_changed_is_named_by_its_key_and_never_by_its_value() {
        let old = config("[mqtt]\nusername = \"a\"\n");
        let new = config("backend = \"native\"\n[mqtt]\nurl = \"mqtt://b\"\n[limits]\nmax_pixels = 9\n");
        let changed = changed_keys(&old, &new).unwrap();
        assert_eq!(changed, ["backend", "limits.max_pixels", "mqtt.url", "mqtt.username"]);
        assert!(changed_keys(&old, &old).unwrap().is_empty());
    }

    #[test]
    fn a_section_is_not_another_that_begins_alike() {
        assert!(is_under("bundle", "bundle") && is_under("bundles.trusted_keys", "bundles"));
        assert!(!is_under("bundles.trusted_keys", "bundle") && !is_under("devices", "device"));
    }

    #[test]
    fn a_replaced_password_is_noticed_and_an_untouched_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let config = config(&format!("[mqtt]\nusername = \"a\"\npassword_file = {path:?}\n"));
        std::fs::write(&path, "one").unwrap();
        let first = stamps(&config, &["mqtt"]).unwrap();
        assert_eq!(first.len(), 1);
        assert_eq!(stamps(&config, &["mqtt"]).unwrap(), first);
        std::fs::write(folder.path().join("new"), "two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(stamps(&config, &["mqtt"]).unwrap(), first);
    }
}
