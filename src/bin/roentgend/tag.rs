//! `roentgend tag`: which file a line of the log speaks of. The log calls files by keyed tags, since a file's name may be a
//! patient's; who has key and files can tell which is which. Opens no file.

use crate::classify;
use anyhow::Context;
use roentgen::config::Config;
use roentgen::pseudonym::Key;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `tag`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The daemon's configuration: its `state_dir` holds the key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Files, or folders that are gone through, e.g. `done/` and `rejected/`. A file that got a number in its name when it
    /// was moved (`NAME.1.dcm`) is looked up by the name it had before.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Prints a line a file.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let path = config.key();
    let key = Key::load(&path)?
        .with_context(|| format!("{} is not there yet: the daemon makes it at its first start", path.display()))?;
    for file in classify::files(&arguments.paths) {
        say!("{}  {}", key.tag(&file), file.display());
    }
    Ok(ExitCode::SUCCESS)
}
