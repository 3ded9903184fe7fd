//! `roentgend status`: whether the daemon runs and does its work, in its own words, which it keeps in a file. Asks nobody
//! over the network and changes nothing.

use crate::health::{FILE, STALE};
use roentgen::config::Config;
use roentgen::plain_file;
use roentgen::status::probe::{self, Roots};
use roentgen::status::{Health, Problem, Severity, Telemetry};
use serde_json::json;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The daemon's word is some kilobytes.
const MAX_BYTES: u64 = 1 << 20;

/// Arguments of `status`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One line of JSON: whether it runs, whether all is well, what is not, and its telemetry.
    #[arg(long)]
    json: bool,
}

/// Looks, and says what it found; 0 where all is well, else 1.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let (running, telemetry, health) = look(&config);
    if arguments.json {
        let Health { healthy, problems } = &health;
        say!("{}", json!({ "running": running, "healthy": healthy, "problems": problems, "telemetry": telemetry }));
    } else {
        print(&config, &health, telemetry.as_ref());
    }
    Ok(if health.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it runs, what it says of itself, and the judgement on both.
fn look(config: &Config) -> (bool, Option<Telemetry>, Health) {
    match is_running(&config.state_dir) {
        Ok(true) => {}
        Ok(false) => {
            let shown = config.state_dir.display();
            // Not by the file system's own account: one that has failed does not call itself read-only.
            let opened = File::options().write(true).open(config.state_dir.join("lock"));
            if opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem) {
                let message = format!("roentgend does not work: the disk of {shown} is read-only.");
                let advice = "Check that disk or card and make it writable; the service waits for that: journalctl -u roentgend -e";
                return (false, None, Health::from(vec![Problem::failing("read_only", message, advice)]));
            }
            let message = format!("roentgend does not run on {shown}.");
            let advice = "Start it: systemctl start roentgend. Why it stopped: journalctl -u roentgend -e";
            return (false, None, Health::from(vec![Problem::failing("not_running", message, advice)]));
        }
        Err(error) => return (false, None, Health::from(vec![unreadable(&config.state_dir.join("lock"), &error)])),
    }
    let path = config.state_dir.join(FILE);
    let telemetry = match read(&path) {
        Ok(telemetry) => telemetry,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = "roentgend runs and has not said yet how it is.";
            let problem = Problem::failing("silent", message, "It may be starting: ask again in a minute.");
            return (true, None, Health::from(vec![problem]));
        }
        Err(error) => return (true, None, Health::from(vec![unreadable(&path, &error)])),
    };
    let mut problems = telemetry.health.problems.clone();
    let age = age(&telemetry);
    if let Some(age) = age.filter(|age| *age > STALE.as_secs()) {
        let message = format!("roentgend runs and has said nothing of itself for {} min.", age / 60);
        let advice = "Its disk may be full, or it hangs: journalctl -u roentgend -e, systemctl restart roentgend";
        problems.push(Problem::failing("silent", message, advice));
    }
    (true, Some(telemetry), Health::from(problems))
}

/// How many seconds ago it was told. Another machine's, or one from before its last start, is as old as can be.
fn age(telemetry: &Telemetry) -> Option<u64> {
    let now = probe::uptime(&Roots::default())?.as_secs();
    telemetry.machine_uptime_s.map(|then| now.checked_sub(then).unwrap_or(u64::MAX))
}

/// Whether a daemon holds the lock of this `state_dir`.
pub(crate) fn is_running(state_dir: &Path) -> io::Result<bool> {
    let file = match File::open(state_dir.join("lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    // Shared, so that two who look do not take each other for the daemon; given back when the file is closed.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn read(path: &Path) -> io::Result<Telemetry> {
    let mut text = String::new();
    plain_file::open(path)?.0.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let message = format!("{}: {error}.", path.display());
    let advice = "Ask as root or as the daemon's user: sudo -u roentgen roentgend status --config FILE";
    Problem::failing("unreadable", message, advice)
}

fn print(config: &Config, health: &Health, telemetry: Option<&Telemetry>) {
    let verdict = match (health.healthy, health.problems.is_empty()) {
        (true, true) => "healthy",
        (true, false) => "healthy, with warnings",
        (false, _) => "NOT HEALTHY",
    };
    say!("{}: {verdict}", config.device);
    for Problem { severity, message, advice, .. } in &health.problems {
        let mark = if *severity == Severity::Failing { "FAIL" } else { "warn" };
        say!("{mark}  {message}\n      {advice}");
    }
    let Some(telemetry) = telemetry else { return };
    let line = |name: &str, text: String| say!("{name:<10}{text}");
    if let Some(age) = age(telemetry).filter(|age| (1..=STALE.as_secs()).contains(age)) {
        line("told", format!("{age} s ago"));
    }
    if let Some(engine) = &telemetry.engine {
        let model = format!("{} {}", engine.model.name, engine.model.version);
        let threads = engine.threads;
        line("model", format!("{model}; {} ({}), {threads} threads", engine.backend, engine.kernel));
    }
    let counts = &telemetry.counts;
    let judged: u64 = counts.reported.values().sum::<u64>() + counts.abstained;
    let rejected: u64 = counts.rejected.values().sum();
    let abstained = counts.abstained;
    line("reports", format!("{judged} since the start, {abstained} of them abstentions; {rejected} files rejected"));
    if let Some(at) = &telemetry.last_report_at {
        line("last", at.clone());
    }
    if let Some(latency) = &telemetry.latency_ms {
        let (total, infer) = (&latency.total, &latency.infer);
        let window = latency.window;
        line(
            "time",
            format!(
                "{:.0} ms an image (p50 of the last {window}), {:.0} ms of it inference; p99 {:.0} ms",
                total.p50, infer.p50, total.p99
            ),
        );
    }
    if let Some(dicom) = &telemetry.dicom {
        let place = dicom.listening.as_ref().map_or_else(|| "does not listen".into(), |at| format!("listens on {at}"));
        let (now, stored, refused) = (dicom.associations, dicom.stored, dicom.refused.values().sum::<u64>());
        let rejected: u64 = dicom.rejected.values().sum();
        line(
            "dicom",
            format!(
                "{place}; {now} associations, {stored} instances stored, {refused} refused; {rejected} callers rejected"
            ),
        );
    }
    let unsent = telemetry.queue.unsent.unwrap_or(0);
    let broker = if telemetry.broker.connected { "connected" } else { "away" };
    line("broker", format!("{broker}; {unsent} reports wait"));
    for (name, disk) in &telemetry.disks {
        line("disk", format!("{} of {} free ({name})", gigabytes(disk.free_bytes), gigabytes(disk.total_bytes)));
    }
    if let Some(resident) = telemetry.memory.resident_bytes {
        let available = telemetry.memory.available_bytes.map_or_else(|| "?".into(), megabytes);
        line("memory", format!("{} taken, {available} left on the box", megabytes(resident)));
    }
    if let Some(hottest) = telemetry.heat.zones.iter().max_by(|a, b| a.celsius.total_cmp(&b.celsius)) {
        let throttled = if telemetry.heat.throttled == Some(true) { ", the processor is slowed down" } else { "" };
        line("heat", format!("{:.0} °C ({}){throttled}", hottest.celsius, hottest.name));
    }
    if let Some(update) = &telemetry.update {
        line("update", format!("{}: {}: {} ({})", update.what, update.stage, update.message, update.at));
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
