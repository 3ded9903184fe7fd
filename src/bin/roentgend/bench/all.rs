//! `roentgend bench --all`: every backend of this build on this box, and which of them `backend = "auto"` takes. Remembers nothing.

use super::Arguments;
use crate::backends::{self, Measured};
use crate::model;
use roentgen::config::{Backend, Config};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Measures and prints; exit code 1 where none works.
pub(super) fn run(arguments: &Arguments, config: &Config) -> anyhow::Result<ExitCode> {
    let bundle = model::open(arguments.bundle.as_deref(), &config.bundles)?;
    let candidates: Vec<Backend> = Backend::ALL.into_iter().filter(|backend| backend.is_built()).collect();
    let lines = backends::measured(&bundle, config, &candidates, None, &[], &mut || ());
    let chosen = backends::best(&lines);
    let manifest = bundle.manifest();
    if arguments.json {
        let rows: Vec<Value> = lines
            .iter()
            .map(|(backend, line)| match line {
                Ok(measured) => json!(measured),
                Err(reason) => json!({ "backend": backend, "failed": reason }),
            })
            .collect();
        let bundle = json!({ "name": manifest.name, "version": manifest.version, "sha256": bundle.sha256() });
        say!("{}", json!({ "bundle": bundle, "backends": rows, "chosen": chosen.map(|one| one.backend) }));
    } else {
        say!("{} {}, golden vectors on this box", manifest.name, manifest.version);
        say!(
            "{:<10}{:>10}{:>10}{:>10}{:>9}{:>8}{:>9}  kernel",
            "backend",
            "least ms",
            "median ms",
            "load ms",
            "threads",
            "MB",
            "off by"
        );
        for (backend, line) in &lines {
            let name = backend.name();
            match line {
                Ok(Measured {
                    min_ms, median_ms, load_ms, threads, peak_rss_mb, largest_difference, kernel, ..
                }) => say!(
                    "{name:<10}{min_ms:>10.1}{median_ms:>10.1}{load_ms:>10.1}{threads:>9}{peak_rss_mb:>8.1}{largest_difference:>9}  {kernel}"
                ),
                Err(reason) => say!("{name:<10}  not here: {reason}"),
            }
        }
        say!("auto takes {}", chosen.map_or("none: nothing runs this bundle", |one| one.backend.name()));
    }
    Ok(ExitCode::from(u8::from(chosen.is_none())))
}
