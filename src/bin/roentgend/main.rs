//! `roentgend`: the daemon and its tools on the command line. One file per subcommand; here is only the way to them.

/// `println!` for what a person or a pipe reads: one that reads no more is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod backends;
mod bench;
mod bundle;
#[cfg(feature = "camera")]
mod camera;
mod classify;
mod config;
mod decode;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
#[cfg(feature = "demo")]
mod fleet;
mod gently;
mod health;
mod heatmap;
mod logging;
mod manual;
mod measure;
mod memory;
mod model;
mod reports;
mod run;
mod signals;
mod status;
mod systemd;
mod tag;

use clap::{Parser, Subcommand};
use roentgen::bundle::{BundleError, StoreError};
use roentgen::classifier::LoadError;
use roentgen::config::ConfigError;
use roentgen::outbox::OutboxError;
use roentgen::pseudonym::KeyError;
use roentgen::sink::dicom_sr::StartError;
use roentgen::sink::mqtt::MqttError;
use roentgen::source::dicom_scp::ScpError;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

/// EX_CONFIG of sysexits.h: bad configuration or bundle; the unit does not restart on it.
const BAD_CONFIGURATION: u8 = 78;

/// Chest-radiograph screening on an edge box. It screens; it never diagnoses.
#[derive(Parser)]
#[command(name = "roentgend", version, about)]
struct Arguments {
    /// Say more in the log.
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The daemon: takes images from the drop folder, publishes reports over MQTT.
    Run(run::Arguments),
    /// Shows the whole way on this machine: a broker, a drop folder, synthetic phantoms, and reports as they come.
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
    /// Publishes as many boxes would, so that a broker and what listens to it can be sized.
    #[cfg(feature = "demo")]
    SimulateFleet(fleet::Arguments),
    /// Says whether the daemon runs and does its work, and if not, what to do. Ends with 0 where all is well, else with 1.
    Status(status::Arguments),
    /// Judges files or folders and prints the results.
    Classify(classify::Arguments),
    /// Measures inference time, cold start and memory.
    Bench(bench::Arguments),
    /// Checks configuration, bundle, folders and broker, and says what to do.
    Doctor(doctor::Arguments),
    /// Shows what was reported, and what still waits for the broker.
    Reports(reports::Arguments),
    /// Checks, installs and lists model bundles, and goes back to the one before.
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Shows what cameras there are and what one sees, and keeps the picture of the empty light box.
    #[cfg(feature = "camera")]
    #[command(subcommand)]
    Camera(camera::Command),
    /// Prints the tags by which the log calls files, whose names may be patients'.
    Tag(tag::Arguments),
    /// Prints the documented default configuration.
    Config,
    /// Decodes for the daemon, which starts it.
    #[command(hide = true)]
    DecodeWorker,
    /// Runs an accelerator for the daemon, which starts it.
    #[cfg(feature = "edgetpu")]
    #[command(hide = true)]
    AcceleratorWorker,
    /// Measures one backend for the daemon, which starts it.
    #[command(hide = true)]
    Measure(measure::Arguments),
    /// Judges a suspect image for the daemon, which starts it.
    #[command(hide = true)]
    Trial,
    /// Writes manual pages and shell completions, for packages.
    #[command(hide = true)]
    Manual(manual::Arguments),
}

fn main() -> ExitCode {
    let started = Instant::now();
    memory::give_back_large_pieces();
    // Not `parse`: it ends with 2, which nobody was promised.
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Fails only where nobody reads it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    logging::start(arguments.verbose, matches!(arguments.command, Command::Run(_)));
    let done = match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => demo::run(&arguments),
        #[cfg(feature = "demo")]
        Command::SimulateFleet(arguments) => fleet::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments, started),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Reports(arguments) => reports::run(&arguments),
        Command::Bundle(command) => bundle::run(&command),
        #[cfg(feature = "camera")]
        Command::Camera(command) => camera::run(&command),
        Command::Tag(arguments) => tag::run(&arguments),
        Command::Config => config::run(),
        Command::DecodeWorker => decode::work(),
        #[cfg(feature = "edgetpu")]
        Command::AcceleratorWorker => decode::accelerate(),
        Command::Measure(arguments) => measure::run(&arguments),
        Command::Trial => decode::try_out(),
        Command::Manual(arguments) => manual::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        logging::failure(&error);
        ExitCode::from(exit_code(&error))
    })
}

/// 78 where a restart cannot help, 1 for anything else: a disk that fails or is full is not the configuration's fault.
fn exit_code(error: &anyhow::Error) -> u8 {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let is_passing = causes.any(is_passing)
        || error.chain().any(|cause| matches!(cause.downcast_ref::<StoreError>(), Some(StoreError::Busy { .. })));
    let is_configuration = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<StoreError>()
            || cause.is::<BundleError>()
            || cause.is::<LoadError>()
            || cause.is::<MqttError>()
            || matches!(cause.downcast_ref::<StartError>(), Some(StartError::File(_)))
            || cause.is::<ScpError>()
            || cause.is::<KeyError>()
            || cause.is::<model::NoBundle>()
            || matches!(cause.downcast_ref::<OutboxError>(), Some(OutboxError::Schema { .. }))
    });
    if is_configuration && !is_passing { BAD_CONFIGURATION } else { 1 }
}

/// Whether the reason is not in the path, its permissions, or what lies there, and so may be gone the next time.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidFilename, InvalidInput, IsADirectory};
    use io::ErrorKind::{NotADirectory, NotFound, Other, PermissionDenied, UnexpectedEof};
    let of_the_path = [NotFound, PermissionDenied, NotADirectory, IsADirectory, InvalidFilename];
    // What programs say of contents, not the system of a disk.
    let of_contents = [InvalidInput, InvalidData, UnexpectedEof, Other];
    !of_the_path.contains(&error.kind()) && !of_contents.contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn code(error: impl Into<anyhow::Error>) -> u8 {
        exit_code(&error.into().context("on the way"))
    }

    #[test]
    fn what_a_restart_may_cure_does_not_end_with_78() {
        let reading = |code| BundleError::Io {
            what: "reading",
            path: "model.onnx".into(),
            error: io::Error::from_raw_os_error(code),
        };
        let writing = |code| StoreError::Io {
            what: "writing",
            path: "installed.json".into(),
            error: io::Error::from_raw_os_error(code),
        };
        for passing in [libc::EIO, libc::EMFILE, libc::ENOSPC] {
            assert_eq!(code(reading(passing)), 1);
            assert_eq!(code(writing(passing)), 1);
            assert_eq!(code(StoreError::Bundle(reading(passing))), 1);
            assert_eq!(code(LoadError::Bundle(reading(passing))), 1);
            assert_eq!(code(LoadError::Threads(io::Error::from_raw_os_error(libc::EAGAIN))), 1);
            let config = ConfigError::Read { path: PathBuf::new(), error: io::Error::from_raw_os_error(passing) };
            assert_eq!(code(config), 1);
        }
        for short_of in [libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::ENOMEM] {
            assert_eq!(code(MqttError::Start(io::Error::from_raw_os_error(short_of))), 1);
        }
        assert_eq!(code(MqttError::Start(io::Error::other("TLS"))), BAD_CONFIGURATION);
        assert_eq!(code(StoreError::Busy { path: PathBuf::new() }), 1);
        for lasting in [libc::ENOENT, libc::EACCES, libc::ENOTDIR, libc::EISDIR] {
            assert_eq!(code(reading(lasting)), BAD_CONFIGURATION);
            assert_eq!(code(StoreError::Bundle(reading(lasting))), BAD_CONFIGURATION);
        }
        assert_eq!(code(StoreError::NothingActive { path: PathBuf::new() }), BAD_CONFIGURATION);
        assert_eq!(code(OutboxError::Schema { path: PathBuf::new(), found: 99 }), BAD_CONFIGURATION);
        assert_eq!(
            code(OutboxError::Unsound { path: PathBuf::new(), reason: String::new() }),
            1,
            "the next start mends it"
        );
        // Not the system's word but our own: the path names a pipe.
        let pipe = io::Error::new(io::ErrorKind::InvalidInput, roentgen::plain_file::NotPlain);
        assert_eq!(code(ConfigError::Read { path: PathBuf::new(), error: pipe }), BAD_CONFIGURATION);
        assert_eq!(code(io::Error::from_raw_os_error(libc::ENOENT)), 1, "of something else than the configuration");
    }
}
