//! What one configuration makes: the parts along the line, put together, and changed by a reload. Not what may change.

use super::reload::{self, Change, Stamps};
use crate::model::{self, Active, Choice};
use crate::systemd;
use anyhow::Context;
use roentgen::assess::Assessor;
use roentgen::bundle::Bundle;
use roentgen::config::Config;
use roentgen::pseudonym::Key;
use roentgen::sink::mqtt::{MqttSink, Online};
use roentgen::source::folder::Folder;

/// The parts of the line, and the configuration that they were made by.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) model: Active,
    pub(super) assessor: Assessor,
    pub(super) source: Folder,
    pub(super) sink: MqttSink,
    /// The files that the connection to the broker is made with.
    pub(super) broker_files: Stamps,
}

impl Parts {
    /// Makes them all, in the order in which their failure is cheapest to see.
    pub(super) fn assemble(config: Config) -> anyhow::Result<Self> {
        let model = model::load_active(&config, &Choice::of_daemon(&config), systemd::extend_start)?;
        let assessor = assessor(&config, &model.bundle)?;
        let source = source(&config)?;
        let broker_files = reload::stamps(&config)?;
        let sink = MqttSink::start(&config.mqtt, &config.device, &online(&assessor, &model))?;
        Ok(Self { config, model, assessor, source, sink, broker_files })
    }

    /// Puts in what a reload made. Only the system can fail here (no thread to be had), not the configuration.
    pub(super) fn take(&mut self, change: Change) -> anyhow::Result<()> {
        let Change { config, model, assessor, source, reconnect, .. } = change;
        let new_model = model.is_some();
        self.config = config;
        if let Some(model) = model {
            self.model = model;
        }
        if let Some(assessor) = assessor {
            self.assessor = assessor;
        }
        if let Some(source) = source {
            self.source = source;
        }
        let online = online(&self.assessor, &self.model);
        if reconnect {
            // The old one says goodbye first: two of one name would throw each other out.
            self.sink.close();
            self.broker_files = reload::stamps(&self.config)?;
            self.sink = MqttSink::start(&self.config.mqtt, &self.config.device, &online)
                .context("cannot go on with the new configuration")?;
        } else if new_model {
            self.sink.announce(&online);
        }
        Ok(())
    }
}

/// What makes evidence a report.
pub(super) fn assessor(config: &Config, bundle: &Bundle) -> anyhow::Result<Assessor> {
    Ok(Assessor::new(bundle, &config.device, config.report.clone())?)
}

/// The doors into the box.
pub(super) fn source(config: &Config) -> anyhow::Result<Folder> {
    let key = Key::load_or_create(&config.key())?;
    Ok(Folder::open(&config.source.folder, config.limits.clone(), key)?)
}

fn online(assessor: &Assessor, model: &Active) -> Online {
    Online { model: Some(assessor.model().clone()), bundle_fallback: model.fallback.clone() }
}
