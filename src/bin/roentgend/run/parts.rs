//! What one configuration makes: the parts along the line, put together, and changed by a reload. Not what may change.

use super::patience::Patience;
use super::reload::{self, Change, Stamps};
use crate::model::{self, Active, Choice};
use crate::systemd;
use anyhow::Context;
use roentgen::assess::{self, Assessor};
use roentgen::bundle::Bundle;
use roentgen::classifier::loaded::Loaded;
use roentgen::classifier::{Classifier, Running};
use roentgen::config::Config;
use roentgen::gallery::{self, Bounds, Gallery};
use roentgen::outbox::SetAside;
use roentgen::pseudonym::Key;
use roentgen::sink::dicom_sr::{self, Results};
use roentgen::sink::mqtt::{MqttSink, Online, OutboxSetAside};
use roentgen::source::Doors;
use roentgen::source::camera;
use roentgen::source::decoder::Decoder;
use roentgen::source::dicom_scp::{Provider, Scp, Watch};
use roentgen::source::folder::{Folder, trial::CONFIG};
use roentgen::source::process::{self, Program};
use roentgen::source::spool::{Door, Keep, Spool};
use roentgen::status::Setup;
use std::io;
use std::path::absolute;
use std::time::Duration;

/// The parts of the line, and the configuration that they were made by.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) model: Active,
    pub(super) assessor: Assessor,
    pub(super) source: Doors,
    /// What modalities send to; `None` where the configuration has none.
    dicom: Option<Scp>,
    /// What it has seen, whichever it was.
    pub(super) dicom_watch: Watch,
    /// The files that its TLS was made with.
    pub(super) dicom_files: Stamps,
    /// What fills the camera's spool.
    camera: Option<camera::Door>,
    pub(super) sink: MqttSink,
    /// What goes back to the PACS, where anything does.
    pub(super) results: Option<Results>,
    /// What keeps copies of radiographs for the dashboard, where that is wanted.
    pub(super) gallery: Option<Gallery>,
    /// The files that the connection to the broker is made with.
    pub(super) broker_files: Stamps,
    /// What the status says of a broken outbox as long as this process lives.
    outbox_set_aside: Option<OutboxSetAside>,
}

impl Parts {
    /// Makes them all, in the order in which their failure is cheapest to see; `None`: asked to stop meanwhile.
    pub(super) fn assemble(
        config: Config,
        set_aside: Option<&SetAside>,
        patience: &Patience<'_>,
    ) -> anyhow::Result<Option<Self>> {
        let mut model = model::load_active(&config, &Choice::of_daemon(&config), systemd::extend_start)?;
        let assessor = assessor(&config, &model.bundle)?;
        let Some(source) = patience.until(|| source(&config))? else { return Ok(None) };
        let Some(camera) = patience.until(|| camera(&config))? else { return Ok(None) };
        let mut results = results(&config)?;
        if let Some(results) = &mut results {
            results.begin()?;
        }
        let gallery = gallery(&config);
        let broker_files = reload::stamps(&config, &["mqtt", "dicom_results"])?;
        let (dicom_files, dicom_watch) = (reload::stamps(&config, &["source.dicom"])?, Watch::default());
        let Some(dicom) = patience.until(|| dicom(&config, &dicom_watch))? else { return Ok(None) };
        let outbox_set_aside = set_aside.map(|aside| OutboxSetAside {
            file: aside.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            reason: aside.reason.clone(),
            requeued: aside.requeued,
            complete: aside.complete,
        });
        let online = online(&assessor, &mut model, outbox_set_aside.clone());
        let sink = MqttSink::start(&config.mqtt, &config.device, &online)?;
        // Last: nobody is asked in before all else works.
        let dicom = dicom.map(listen).transpose()?;
        Ok(Some(Self {
            config,
            model,
            assessor,
            source,
            dicom,
            dicom_watch,
            dicom_files,
            camera,
            sink,
            results,
            gallery,
            broker_files,
            outbox_set_aside,
        }))
    }

    /// What the box says of itself.
    pub(super) fn setup(&mut self) -> Setup {
        let Self { config, model, assessor, .. } = self;
        let running = running(&mut model.classifier);
        Setup {
            device: config.device.clone(),
            model: assessor.model().clone(),
            bundle: model.bundle.dir().to_owned(),
            fallback: model.fallback.clone(),
            backend: running.backend,
            kernel: running.kernel,
            threads: running.threads,
            backend_fallback: running.fallback,
            state_dir: config.state_dir.clone(),
            incoming: config.source.folder.incoming.clone(),
        }
    }

    /// What is seen of the DICOM network, where it is switched on.
    pub(super) fn dicom(&self) -> Option<Watch> {
        self.config.source.dicom.as_ref().map(|_| self.dicom_watch.clone())
    }

    /// Takes nothing more from the network.
    pub(super) fn close_doors(&mut self) {
        self.dicom = None;
    }

    /// A handle on the camera.
    pub(super) fn camera(&self) -> Option<camera::Remote> {
        self.camera.as_ref().map(camera::Door::remote)
    }

    /// Puts in what a reload made. Only the system can fail here (no thread to be had), not the configuration.
    pub(super) fn take(&mut self, change: Change) -> anyhow::Result<()> {
        let Change { config, model, assessor, source, trial, broker, results, dicom, .. } = change;
        let new_model = model.is_some();
        if self.config.web != config.web {
            // The old one writes what is queued first.
            self.gallery = None;
            self.gallery = gallery(&config);
        }
        self.config = config;
        if let Some(model) = model {
            self.model = model;
        }
        if let Some(assessor) = assessor {
            self.assessor = assessor;
        }
        if let Some(source) = source {
            self.source = source;
            // The old one lets go of the device before the new one opens it.
            self.camera = None;
            self.camera = camera(&self.config)?;
        }
        self.source.try_with(&trial);
        if let Some(mut results) = results {
            if let (Some(results), Some(before)) = (&mut results, &self.results) {
                results.succeed(before);
            }
            // The old one ends first: two would send the same.
            self.results = None;
            self.results = results;
        }
        if let Some(results) = &mut self.results {
            results.begin().context("cannot go on with the new configuration")?;
        }
        if let Some((provider, files)) = dicom {
            // The old one first: both may be for the same port.
            self.dicom = None;
            self.dicom_files = files;
            self.dicom = provider.map(listen).transpose()?;
        }
        let online = online(&self.assessor, &mut self.model, self.outbox_set_aside.clone());
        if let Some((prepared, files)) = broker {
            // The old one says goodbye first: two of one name would throw each other out.
            self.sink.close();
            self.broker_files = files;
            self.sink = prepared.start(&online).context("cannot go on with the new configuration")?;
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

/// What sends results back to the PACS; it has not begun to.
pub(super) fn results(config: &Config) -> anyhow::Result<Option<Results>> {
    let Some(results) = &config.dicom_results else {
        if dicom_sr::are_left(&config.state_dir) {
            let left = config.state_dir.join("results");
            let left = left.display();
            log::warn!(
                "{left} holds what was to go to a PACS, with patients' names, and no [dicom_results] sends it: remove it"
            );
        }
        return Ok(None);
    };
    if let Err(error) = process::leave_no_core() {
        log::warn!("a crash may write the memory of this process to the disk, with patients' names: {error}");
    }
    let key = Key::load_or_create(&config.key())?;
    Ok(Some(Results::new(results, &config.device, &key, &config.state_dir, assess::trusted_time)?))
}

/// What keeps copies of radiographs for the dashboard. Nobody must have them: what goes wrong is a warning.
fn gallery(config: &Config) -> Option<Gallery> {
    let web = &config.web;
    if !web.images || web.listen.is_none() {
        gallery::remove(&config.state_dir);
        return None;
    }
    let age = Duration::from_secs(web.max_image_age_days * 86_400);
    let bounds = Bounds { images: web.max_images, bytes: web.max_image_bytes, age };
    let started = Gallery::start(&config.state_dir, bounds);
    let shown = gallery::folder(&config.state_dir);
    started.map_err(|error| log::warn!("{}: the dashboard shows no radiographs: {error}", shown.display())).ok()
}

/// The doors into the box.
pub(super) fn source(config: &Config) -> anyhow::Result<Doors> {
    let key = Key::load_or_create(&config.key())?;
    // A process for each door.
    let decoder = || {
        Decoder::in_child(Program::this(["decode-worker"]), config.limits.clone(), key.clone())
            .with_filing(config.dicom_results.is_some())
    };
    let folder = Folder::open(&config.source.folder, decoder())?
        .with_reserve(&config.reserve, &config.state_dir)
        .with_retention(&config.source.folder, assess::trusted_time)
        .with_trials(trial(config)?, &config.state_dir);
    let mut doors = Doors::new(folder);
    // What was taken while a door was open is reported also when it is closed.
    let dicom = &config.source.dicom;
    if dicom.is_some() || Spool::has_any(&config.state_dir, Door::Dicom) {
        let spool = Spool::open(&config.state_dir, Door::Dicom, &config.reserve)?;
        let keep = dicom.as_ref().map_or_else(Keep::default, |dicom| dicom.keep());
        let watched = spool.watch(&keep, decoder(), trial(config)?)?;
        doors.add(watched.with_retention_of_rejected(keep.bounds, assess::trusted_time));
    }
    let camera = &config.source.camera;
    if camera.is_some() || Spool::has_any(&config.state_dir, Door::Camera) {
        let keep = camera.as_ref().map_or_else(Keep::default, |camera| camera.keep());
        let watched = camera_spool(config)?.watch(&keep, decoder(), trial(config)?)?;
        doors.add(watched.with_retention_of_rejected(keep.bounds, assess::trusted_time));
    }
    Ok(doors)
}

/// What is to serve modalities, if anything is; it does not listen yet.
pub(super) fn dicom(config: &Config, watch: &Watch) -> anyhow::Result<Option<Provider>> {
    let Some(dicom) = &config.source.dicom else { return Ok(None) };
    let spool = Spool::open(&config.state_dir, Door::Dicom, &config.reserve)?;
    Ok(Some(Provider::prepare(dicom, spool, config.limits.max_file_bytes, watch.clone())?))
}

fn listen(provider: Provider) -> anyhow::Result<Scp> {
    provider.start().context("cannot start the thread that listens to modalities")
}

fn camera_spool(config: &Config) -> anyhow::Result<Spool> {
    Ok(Spool::open(&config.state_dir, Door::Camera, &config.reserve)?)
}

/// What fills the camera's spool, where there is a camera. It finds out by itself whether it is plugged in.
#[cfg(feature = "camera")]
fn camera(config: &Config) -> anyhow::Result<Option<camera::Door>> {
    let Some(settings) = config.source.camera.clone() else { return Ok(None) };
    let spool = camera_spool(config)?;
    let store = move |name: &str, png: &[u8]| spool.store(name, png).map_err(|error| error.to_string());
    let roots = camera::names::Roots::default();
    let wanted = settings.clone();
    let open = move || -> Result<Box<dyn camera::Eye>, camera::Away> {
        Ok(Box::new(camera::device::Camera::open(&wanted, &roots)?))
    };
    let door = camera::Door::start(&settings, &config.state_dir, Box::new(open), Box::new(store));
    Ok(Some(door.context("cannot start the camera's thread")?))
}

/// None: the configuration was refused if it named one.
#[cfg(not(feature = "camera"))]
fn camera(_: &Config) -> anyhow::Result<Option<camera::Door>> {
    Ok(None)
}

/// Who judges a suspect image: this program, by the configuration in force, which need not be the one on disk.
pub(super) fn trial(config: &Config) -> anyhow::Result<Program> {
    let text = in_force(config).context("cannot write down the configuration")?;
    Ok(Program::this(["trial"]).with_variable(CONFIG, text))
}

/// The configuration in force, for a process that runs in another folder.
pub(crate) fn in_force(config: &Config) -> io::Result<String> {
    let mut config = config.clone();
    for path in [&mut config.state_dir, &mut config.bundle] {
        *path = absolute(&*path)?;
    }
    toml::to_string(&config).map_err(io::Error::other)
}

fn online(assessor: &Assessor, model: &mut Active, outbox_set_aside: Option<OutboxSetAside>) -> Online {
    Online {
        model: Some(assessor.model().clone()),
        bundle_fallback: model.fallback.clone(),
        backend_fallback: running(&mut model.classifier).fallback,
        outbox_set_aside,
    }
}

/// What runs the model at present.
fn running(classifier: &mut Loaded) -> Running {
    classifier.running().unwrap_or_else(|| Running {
        backend: classifier.name().to_owned(),
        kernel: classifier.kernel(),
        threads: classifier.threads(),
        fallback: None,
    })
}
