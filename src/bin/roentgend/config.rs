//! `roentgend config`: prints the documented default configuration. Reads nothing.

use roentgen::config::DEFAULT_TOML;
use std::io::Write;
use std::process::ExitCode;

/// Prints it.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(DEFAULT_TOML.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
