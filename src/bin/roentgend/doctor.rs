//! `roentgend doctor`: one line a check, with what to do. Changes nothing: it makes no folder, key or database.

use crate::backends;
use crate::logging;
use crate::model::{self, Active, Choice};
use crate::status;
use roentgen::bundle::{Fallback, SelfTest, Signer};
use roentgen::config::{self, Backend, Config};
use roentgen::outbox;
use roentgen::pseudonym::Key;
use roentgen::sink::{dicom_sr, mqtt};
use roentgen::source::decoder::Decoder;
use roentgen::source::dicom_scp;
use roentgen::source::process::Program;
use roentgen::web::Token;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The configuration to check.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// What a check found.
enum Finding {
    Ok(String),
    Warn(String),
    Fail(String),
}

/// The worst of all findings so far, as an exit code.
struct Checks {
    exit_code: u8,
}

impl Checks {
    fn line(&mut self, what: &str, finding: Finding, exit_code: u8) {
        let (verdict, text) = match finding {
            Finding::Ok(text) => ("ok  ", text),
            Finding::Warn(text) => ("warn", text),
            Finding::Fail(text) => {
                self.exit_code = self.exit_code.max(exit_code);
                ("FAIL", text)
            }
        };
        say!("{verdict}  {what:<14} {}", text.replace('\n', "\n      "));
    }
}

/// Checks everything; 0 when the daemon can work, 78 for configuration or bundle, 1 for the rest.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut checks = Checks { exit_code: 0 };
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            checks.line("configuration", Finding::Fail(error.to_string()), crate::BAD_CONFIGURATION);
            return Ok(ExitCode::from(checks.exit_code));
        }
    };
    checks.line("user", user(), 1);
    checks.line("configuration", Finding::Ok(arguments.config.display().to_string()), crate::BAD_CONFIGURATION);
    checks.line("bundle", bundle(&config), crate::BAD_CONFIGURATION);
    checks.line("backends", Finding::Ok(backends()), 1);
    if cfg!(feature = "edgetpu") {
        checks.line("accelerator", accelerator(&config), 1);
    }
    checks.line("decoder", decoder(&config), 1);
    let folder = &config.source.folder;
    for (name, path) in
        [("incoming", folder.incoming.clone()), ("done", folder.done()), ("rejected", folder.rejected())]
    {
        checks.line(name, writable(&path), 1);
    }
    checks.line("moving", moving(&[folder.incoming.clone(), folder.done(), folder.rejected()]), 1);
    if let Some(dicom) = &config.source.dicom {
        checks.line("dicom", modalities(&config, dicom), crate::BAD_CONFIGURATION);
    }
    checks.line("state_dir", writable(&config.state_dir), 1);
    checks.line("outbox", outbox(&config), 1);
    #[cfg(feature = "camera")]
    if let Some(settings) = &config.source.camera {
        checks.line("camera", camera(settings, &config.state_dir), 1);
    }
    checks.line("key", key(&config), crate::BAD_CONFIGURATION);
    checks.line("broker", broker(&config), 1);
    if config.web.listen.is_some() {
        checks.line("web", dashboard(&config.web), 1);
    }
    if let Some(results) = &config.dicom_results {
        checks.line("PACS", dicom_sr::probe(results).map_or_else(Finding::Fail, Finding::Ok), 1);
    }
    Ok(ExitCode::from(checks.exit_code))
}

/// Who may see the dashboard.
fn dashboard(web: &config::Web) -> Finding {
    let is_local = web.address().ok().flatten().is_some_and(|address| address.ip().is_loopback());
    let listen = web.listen.as_deref().unwrap_or_default();
    match web.token.as_deref().map(Token::read) {
        Some(Err(error)) => Finding::Fail(error.to_string()),
        Some(Ok(_)) => Finding::Ok(format!("{listen}, for who knows the token")),
        None if is_local => Finding::Ok(format!("{listen}, for everybody on this machine")),
        None => {
            Finding::Warn(format!("{listen} shows /metrics and /healthz, and no dashboard: set web.token for that"))
        }
    }
}

fn bundle(config: &Config) -> Finding {
    match model::load_active(config, &Choice::of(config), || ()) {
        Ok(Active { bundle, self_test: SelfTest { vectors, largest_difference }, fallback, .. }) => {
            let manifest = bundle.manifest();
            let steps = format!("{vectors} golden vectors, largest difference {largest_difference}");
            let (directory, signer) = (bundle.dir().display(), bundle.signer());
            let found = format!("{} {} in {directory}; {signer}; {steps}", manifest.name, manifest.version);
            let found = match backends::recalled(&bundle, config) {
                Some(measured) => format!("{found}\nmeasured here: {measured}"),
                None => found,
            };
            match fallback {
                Some(Fallback { wanted, reason }) => Finding::Warn(format!(
                    "not {wanted}: {reason}\ninstead {found}\ninstall a good bundle, or go back to this one for good \
                     with `roentgend bundle rollback`"
                )),
                None if manifest.gates.is_none() => Finding::Warn(format!("{found}; {}", model::NO_GATES)),
                None if *signer == Signer::Nobody => {
                    Finding::Warn(format!("{found}; set bundles.allow_unsigned = false once it is signed"))
                }
                None => Finding::Ok(found),
            }
        }
        Err(error) => {
            let error = logging::chain(&error);
            let advice = "install a good bundle, or set `bundle` to the directory of one";
            Finding::Fail(format!("{}; {advice}", error.trim_end_matches('.')))
        }
    }
}

/// What this build has.
fn backends() -> String {
    let kernels: Vec<&str> = roentgen::kernels::available().map(|kernels| kernels.name).collect();
    let described = |backend: &Backend| match backend {
        Backend::Native => format!("native ({})", kernels.join(", ")),
        Backend::Onnx => "onnx (tract)".into(),
        backend => backend.name().into(),
    };
    let (built, missing): (Vec<Backend>, _) = Backend::ALL.into_iter().partition(|backend| backend.is_built());
    let built: Vec<String> = built.iter().map(described).collect();
    let missing: Vec<&str> = missing.into_iter().map(Backend::name).collect();
    let missing =
        if missing.is_empty() { String::new() } else { format!("; not in this build: {}", missing.join(", ")) };
    format!("{}{missing}", built.join(", "))
}

/// Whether the accelerator's libraries are there. It is not started: it serves one process, which is the daemon.
fn accelerator(config: &Config) -> Finding {
    match config.accelerator.find() {
        Ok(found) => Finding::Ok(format!(
            "{} and {}; `roentgend bench --backend edgetpu --config FILE` tries it out while the daemon is stopped",
            found.delegate.display(),
            found.library.display()
        )),
        Err(missing) if config.backend == Backend::Edgetpu => Finding::Warn(format!(
            "{missing}: the processor judges instead; install it, name it in [accelerator], or write backend = \"auto\""
        )),
        Err(_) => Finding::Ok("none".into()),
    }
}

/// Whether the process that decodes images can be started and works.
fn decoder(config: &Config) -> Finding {
    let limits = config.limits.clone();
    let (seconds, memory) = (limits.decode_seconds, limits.decode_memory() >> 20);
    // No pseudonym comes of this: any key will do.
    let mut decoder = Decoder::in_child(Program::this(["decode-worker"]), limits, Key::from_bytes([0; 32]));
    match decoder.check() {
        Ok(()) => Finding::Ok(format!("a process of its own; {seconds} s and {memory} MiB a file at most")),
        Err(error) => Finding::Fail(format!(
            "the process that decodes images does not work: {error}; raise limits.decode_memory_bytes if it was set"
        )),
    }
}

/// Whether the camera is there and takes pictures.
#[cfg(feature = "camera")]
fn camera(settings: &roentgen::source::camera::Config, state_dir: &Path) -> Finding {
    use roentgen::source::camera::kept::{Kept, TakenBy};
    use roentgen::source::camera::{device::Camera, names::Roots};
    match Camera::open(settings, &Roots::default()) {
        Ok(camera) => {
            let by = TakenBy::eye(&camera);
            let said = |reference: &str| format!("{}: {by}; {reference}", settings.device);
            match Kept::new(state_dir).reference(&by) {
                Ok(Some(_)) => Finding::Ok(said("with a picture of the empty light box")),
                Ok(None) => {
                    Finding::Ok(said("no picture of the empty light box yet: `roentgend camera reference` takes it"))
                }
                Err(unfit) => Finding::Warn(said(&unfit)),
            }
        }
        // The daemon goes on without, and may be who has it.
        Err(away) => Finding::Warn(format!("{}: {away}; a daemon that runs is such a program", settings.device)),
    }
}

/// The checks below speak for the user who runs them.
fn user() -> Finding {
    // The owner of a process's entry in /proc is its effective user.
    match std::fs::metadata("/proc/self").map(|metadata| metadata.uid()) {
        Ok(0) => Finding::Warn(
            "root may read and write everywhere, so the checks of folders and files say nothing about the daemon's \
             user; ask as that one: sudo -u roentgen roentgend doctor --config FILE"
                .into(),
        ),
        Ok(id) => Finding::Ok(format!("user {id}; the checks hold for this one")),
        Err(error) => Finding::Warn(format!("/proc/self: {error}; the checks hold for the user who runs them")),
    }
}

fn writable(folder: &Path) -> Finding {
    let shown = folder.display();
    match std::fs::metadata(folder) {
        Ok(metadata) if !metadata.is_dir() => Finding::Fail(format!("{shown} is no folder; move it away")),
        Ok(_) => match tempfile::Builder::new().prefix(".roentgen-doctor-").tempfile_in(folder) {
            Ok(_) => Finding::Ok(shown.to_string()),
            Err(error) => Finding::Fail(format!("{shown}: {error}; let the daemon's user write into it")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Finding::Warn(format!("{shown} does not exist yet; the daemon makes it if it may"))
        }
        Err(error) => Finding::Fail(format!("{shown}: {error}; let the daemon's user reach it")),
    }
}

/// Files are renamed from one to the other, or copied where a border between file systems forbids that.
fn moving(folders: &[PathBuf]) -> Finding {
    let mut devices = Vec::new();
    for folder in folders {
        match std::fs::metadata(folder) {
            Ok(metadata) => devices.push(metadata.dev()),
            Err(error) => {
                return Finding::Warn(format!("not checked: {}: {error}", folder.display()));
            }
        }
    }
    if devices.windows(2).all(|pair| pair[0] == pair[1]) {
        Finding::Ok("incoming, done and rejected are on one file system".into())
    } else {
        Finding::Warn(
            "incoming, done and rejected are on different file systems: files are copied, which takes longer and \
             needs room for both; put them on one if you can"
                .into(),
        )
    }
}

/// Whether modalities could send to the box.
fn modalities(config: &Config, dicom: &dicom_scp::Config) -> Finding {
    if let Err(error) = dicom.tls() {
        return Finding::Fail(error.to_string());
    }
    let (title, listen) = (&dicom.ae_title, &dicom.listen);
    let tls = if dicom.tls_certificate.is_some() { "with TLS" } else { "without TLS" };
    let found = format!("{title} on {listen} {tls}, for {}", dicom.allowed_peers.join(", "));
    match std::net::TcpListener::bind(listen) {
        // The daemon that runs has it, most of all.
        Err(error)
            if error.kind() == std::io::ErrorKind::AddrInUse
                && status::is_running(&config.state_dir).is_ok_and(|runs| runs) => {}
        Err(error) => {
            return Finding::Warn(format!("{found}\ncannot listen there now: {error}; the daemon goes on trying"));
        }
        Ok(_) => {}
    }
    if dicom.is_open_to_all() {
        return Finding::Warn(format!(
            "{found}\nanybody who reaches the box may send to it: name titles and addresses in allowed_peers, or ask for \
             certificates (tls_client_ca)"
        ));
    }
    Finding::Ok(found)
}

fn outbox(config: &Config) -> Finding {
    let path = config.outbox();
    let shown = path.display();
    let found = match outbox::waiting(&path) {
        _ if !path.exists() => Finding::Ok(format!("{shown} is made at the first start")),
        Ok(0) => Finding::Ok(format!("{shown}: nothing waits")),
        Ok(waiting) => Finding::Warn(format!("{shown}: {waiting} reports wait for the broker")),
        Err(error) => Finding::Fail(error.to_string()),
    };
    let broken = outbox::integrity::broken_files(&path);
    match (broken.last(), found) {
        (Some(last), Finding::Ok(found) | Finding::Warn(found)) => Finding::Warn(format!(
            "{found}\nit was broken and set aside, last as {}; what could be read of that went on in the new one. Read the \
             log of that time, check the disk or card, and remove {shown}.broken-* when nobody needs them any more",
            last.display()
        )),
        (_, found) => found,
    }
}

fn key(config: &Config) -> Finding {
    let path = config.key();
    match Key::load(&path) {
        Ok(None) => Finding::Ok(format!("{} is made at the first start", path.display())),
        Ok(Some(_)) => Finding::Ok(path.display().to_string()),
        Err(error) => Finding::Fail(error.to_string()),
    }
}

fn broker(config: &Config) -> Finding {
    match mqtt::probe(&config.mqtt, &config.device) {
        Ok(version) => Finding::Ok(format!("{} accepts us (MQTT {})", config.mqtt.url, version.as_str())),
        Err(error) => Finding::Fail(error.to_string()),
    }
}
