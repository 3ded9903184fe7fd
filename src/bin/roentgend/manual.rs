//! `roentgend manual`: writes the manual pages and the shells' completions of this very program, for whoever packs it.
//! Hidden: on a box they lie where the package has put them.

use anyhow::Context;
use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `manual`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to write: man1/ for `man`, completions/ for the shells.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes them all.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pages = folder(&arguments.folder, "man1")?;
    clap_mangen::generate_to(crate::Arguments::command(), &pages)
        .with_context(|| format!("cannot write manual pages to {}", pages.display()))?;
    let completions = folder(&arguments.folder, "completions")?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut crate::Arguments::command(), "roentgend", &completions)
            .with_context(|| format!("cannot write completions to {}", completions.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A folder in `parent`, made unless it is there.
fn folder(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = parent.join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
