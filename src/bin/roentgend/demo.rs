//! `roentgend demo`: the whole way on one machine with nothing installed: an embedded broker, a temporary drop folder,
//! images to start with, and every report as it comes back from the broker. Not a way to run a box.

use crate::classify::files;
use crate::model::{self, Choice};
use crate::signals::Stop;
use anyhow::{Context, bail};
use broker::Subscriber;
use roentgen::assess::{self, Assessor};
use roentgen::bundle::{self, sha256_hex};
use roentgen::classifier::Classifier;
use roentgen::config::Config;
use roentgen::outbox::{self, Outbox};
use roentgen::pipeline::{self, Line};
use roentgen::plain_file;
use roentgen::pseudonym::Key;
use roentgen::radiograph::{Limits, phantom};
use roentgen::report::{Decision, NOTICE, Report};
use roentgen::sink::mqtt::{self, MqttSink, Online};
use roentgen::source::decoder::Decoder;
use roentgen::source::folder::{self, Folder};
use roentgen::source::process::Program;
use roentgen::status::Status;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

mod broker;

/// The device's name in the demo's topics.
const DEVICE: &str = "demo";

/// How many phantoms are dropped, and their size in pixels.
const PHANTOMS: u64 = 2;
const PHANTOM_SIZE: u32 = 512;

/// Arguments of `demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A radiograph or a folder of them to start with, instead of the synthetic phantoms.
    #[arg(long, value_name = "PATH")]
    images: Option<PathBuf>,
    /// The model bundle, signed or not; where absent, the one of this checkout or system if Roentgen's own key signed it.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The loopback port of the embedded broker; a free one where absent.
    #[arg(long, value_name = "N")]
    mqtt_port: Option<u16>,
    /// End after the images to start with: 0 when each was reported, 1 when one was rejected.
    #[arg(long)]
    once: bool,
}

/// Runs until Ctrl-C, or until the first images are through.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let plain = Config::default();
    let choice = Choice::plain(&plain);
    let (bundle, mut classifier) = model::load(arguments.bundle.as_deref(), &bundle::Config::default(), choice)?;
    let root = tempfile::Builder::new().prefix("roentgen-demo-").tempdir().context("cannot make a temporary folder")?;
    let port = broker::start(arguments.mqtt_port)?;
    // The embedded broker keeps another port for MQTT 5.
    let (url, protocol) = (format!("mqtt://127.0.0.1:{port}"), mqtt::Protocol::Three);
    let mqtt = mqtt::Config { url, protocol, ..mqtt::Config::default() };
    let reports = Subscriber::start(port, &format!("{}/{DEVICE}/report", mqtt.topic_prefix))?;
    let drop_folder = folder::Config { incoming: root.path().join("incoming"), ..folder::Config::default() };
    let key = Key::load_or_create(&root.path().join("pseudonym.key"))?;
    let outbox = Outbox::open(&root.path().join("outbox.sqlite3"), &outbox::Config::default())?;
    let decoder = Decoder::in_child(Program::this(["decode-worker"]), Limits::default(), key);
    let mut source = Folder::open(&drop_folder, decoder)?;
    let mut sink = MqttSink::start(&mqtt, DEVICE, &Online::default())?;
    let manifest = bundle.manifest();
    let (backend, threads) = (classifier.name().to_owned(), classifier.threads());
    say!("Roentgen demo: {} {}, backend {backend}, {threads} threads", manifest.name, manifest.version);
    say!("  broker     {}", mqtt.url);
    say!("  subscribe  mosquitto_sub -h 127.0.0.1 -p {port} -t '{}/{DEVICE}/#' -v", mqtt.topic_prefix);
    say!("  drop       cp RADIOGRAPH {}/", drop_folder.incoming.display());
    let mut watch = Watch::default();
    match &arguments.images {
        Some(path) => watch.drop_images(path, &drop_folder.incoming)?,
        None => {
            watch.drop_phantoms(&drop_folder.incoming)?;
            if manifest.gates.is_some() {
                say!("             they are no radiographs, so the box should abstain; --images PATH judges yours");
            }
        }
    }
    if !arguments.once {
        say!("Ctrl-C ends it.");
    }
    say!("");
    let assessor = Assessor::new(&bundle, DEVICE, assess::Config::default())?;
    let (done, rejected) = (drop_folder.done(), drop_folder.rejected());
    let status = Status::default();
    let line = Line {
        source: &mut source,
        classifier: &mut classifier,
        sink: &mut sink,
        assessor: &assessor,
        results: None,
        gallery: None,
        status: &status,
    };
    let ended = pipeline::run(line, &Mutex::new(outbox), &mut || {
        for report in reports.received() {
            watch.show(&report);
        }
        watch.look_at_done(&done);
        watch.look_at_rejected(&rejected);
        !(stop.is_asked() || arguments.once && watch.is_through())
    });
    sink.close();
    ended?;
    let failed = arguments.once && watch.some_rejected();
    Ok(ExitCode::from(u8::from(failed)))
}

/// What was dropped at the start and what has become of it.
#[derive(Default)]
struct Watch {
    /// SHA-256 of each dropped file, by its name in the drop folder.
    dropped: HashMap<String, String>,
    /// SHA-256 of every image that was reported.
    reported: HashSet<String>,
    /// Names in `done/` that were seen.
    done: HashSet<String>,
    /// The first name in `done/` of each SHA-256.
    first: HashMap<String, String>,
    /// Names in `rejected/` that were shown.
    rejected: HashSet<String>,
}

impl Watch {
    fn drop_phantoms(&mut self, incoming: &Path) -> anyhow::Result<()> {
        for seed in 1..=PHANTOMS {
            let grey = phantom::phantom(seed, PHANTOM_SIZE);
            let image =
                image::GrayImage::from_raw(PHANTOM_SIZE, PHANTOM_SIZE, grey).context("phantom of another size")?;
            let mut png = Vec::new();
            image.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).context("cannot encode a phantom")?;
            self.drop_file(&format!("phantom-{seed}.png"), &png, incoming)?;
        }
        say!("  dropped    {PHANTOMS} synthetic phantoms, drawn by this program: their results mean nothing");
        Ok(())
    }

    fn drop_images(&mut self, path: &Path, incoming: &Path) -> anyhow::Result<()> {
        let (found, unfinished): (Vec<_>, Vec<_>) =
            files(&[path.to_owned()]).into_iter().partition(|file| folder::may_be_taken(file));
        for file in unfinished {
            log::warn!("{}: left out, its name is that of an unfinished file", file.display());
        }
        if found.is_empty() {
            bail!("{} holds no file to judge; give a radiograph or a folder of them with --images", path.display());
        }
        for (number, file) in found.iter().enumerate() {
            let mut bytes = Vec::new();
            plain_file::open(file)
                .and_then(|(mut opened, _)| opened.read_to_end(&mut bytes))
                .with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            // Numbered, since files of several folders may have one name.
            self.drop_file(&format!("{:04}-{name}", number + 1), &bytes, incoming)?;
        }
        say!("  dropped    {} from {}", found.len(), path.display());
        Ok(())
    }

    /// As a well-behaved sender does: under another name first, then renamed.
    fn drop_file(&mut self, name: &str, bytes: &[u8], incoming: &Path) -> anyhow::Result<()> {
        let unfinished = incoming.join(format!("{name}.part"));
        let path = incoming.join(name);
        fs::write(&unfinished, bytes)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot drop {}", path.display()))?;
        self.dropped.insert(name.to_owned(), sha256_hex(bytes));
        Ok(())
    }

    /// Prints a report as it came from the broker.
    fn show(&mut self, report: &Report) {
        let hash = &report.origin.content_sha256;
        let mut names: Vec<_> =
            self.dropped.iter().filter(|(_, dropped)| *dropped == hash).map(|(name, _)| name).collect();
        names.sort();
        let name = names.first().map_or("an image dropped meanwhile", |name| name.as_str());
        say!("report {}: {name}  ({:.0} ms)", report.sequence, report.timing_ms.total);
        for finding in &report.findings {
            let bar = "█".repeat((finding.probability * 30.0).round() as usize);
            say!("  {:<16} {:>6.1} %  {bar}", finding.label.title(), finding.probability * 100.0);
        }
        match &report.decision {
            Decision::Reported { label } => say!("  reported: {}", label.title()),
            Decision::Abstained { reasons } => {
                let reasons: Vec<_> = reasons.iter().map(|reason| reason.message.as_str()).collect();
                say!("  abstained: {}", reasons.join("; "));
            }
        }
        say!("  {NOTICE}\n");
        self.reported.insert(hash.clone());
    }

    /// Says of which images there is no second report.
    fn look_at_done(&mut self, done: &Path) {
        for name in names(done) {
            if self.done.contains(&name) {
                continue;
            }
            let Ok(bytes) = fs::read(done.join(&name)) else { continue };
            let hash = sha256_hex(&bytes);
            match self.first.get(&hash) {
                Some(first) => say!("repeated: {name}: the same image as {first}; it is not reported a second time\n"),
                None => {
                    self.first.insert(hash, name.clone());
                }
            }
            self.done.insert(name);
        }
    }

    /// Prints what was rejected since the last look.
    fn look_at_rejected(&mut self, rejected: &Path) {
        for name in names(rejected) {
            if name.ends_with(".reason.json") || self.rejected.contains(&name) {
                continue;
            }
            let reason = fs::read(rejected.join(format!("{name}.reason.json"))).unwrap_or_default();
            let reason: serde_json::Value = serde_json::from_slice(&reason).unwrap_or_default();
            say!("rejected: {name}: {}\n", reason["message"].as_str().unwrap_or("its reason lies beside it"));
            self.rejected.insert(name);
        }
    }

    fn is_through(&self) -> bool {
        // Counted, since a settled file may have got another name; so that a repeated image is seen as well.
        self.done.len() + self.rejected.len() >= self.dropped.len()
            && self.dropped.iter().all(|(name, hash)| self.reported.contains(hash) || self.rejected.contains(name))
    }

    fn some_rejected(&self) -> bool {
        self.dropped.keys().any(|name| self.rejected.contains(name))
    }
}

/// The names in a folder in order, unfinished files left out.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let all = entries.filter_map(Result::ok).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = all.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}
