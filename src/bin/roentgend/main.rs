//! `roentgend`: the daemon and its tools on the command line. One file per subcommand; here is only the way to them.

/// `println!` for what a person or a pipe reads: one that reads no more is no reason to panic.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod bench;
mod bundle;
mod classify;
mod config;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod heatmap;
mod logging;
mod model;
mod run;
mod signals;
mod systemd;

use clap::{Parser, Subcommand};
use roentgen::bundle::{BundleError, StoreError};
use roentgen::classifier::onnx::LoadError;
use roentgen::config::ConfigError;
use roentgen::pseudonym::KeyError;
use roentgen::sink::mqtt::MqttError;
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
    /// Judges files or folders and prints the results.
    Classify(classify::Arguments),
    /// Measures inference time, cold start and memory.
    Bench(bench::Arguments),
    /// Checks configuration, bundle, folders and broker, and says what to do.
    Doctor(doctor::Arguments),
    /// Checks, installs and lists model bundles, and goes back to the one before.
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Prints the documented default configuration.
    Config,
}

fn main() -> ExitCode {
    let started = Instant::now();
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
        Command::Classify(arguments) => classify::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments, started),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Bundle(command) => bundle::run(&command),
        Command::Config => config::run(),
    };
    done.unwrap_or_else(|error| {
        logging::failure(&error);
        ExitCode::from(exit_code(&error))
    })
}

/// 78 where a restart cannot help, 1 for anything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    let is_configuration = error.chain().any(|cause| {
        cause.is::<ConfigError>()
            || cause.is::<StoreError>()
            || cause.is::<BundleError>()
            || cause.is::<LoadError>()
            || cause.is::<MqttError>()
            || cause.is::<KeyError>()
            || cause.is::<model::NoBundle>()
    });
    if is_configuration { BAD_CONFIGURATION } else { 1 }
}
