//! `roentgend simulate-fleet`: many boxes that are none, so that a broker and what listens to it can be sized. Each has a
//! connection of its own, as a box has, publishes made-up reports at QoS 1, and waits for every acknowledgement; one
//! subscriber counts what arrives. Not for a box, and no model judges anything here.

mod boxes;
mod ear;
mod sample;

use anyhow::{Context, bail};
use boxes::{Fleet, Plan};
use ear::Ear;
use roentgen::sink::mqtt::{self, Version};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Open files that the program needs beside a connection for each box.
const OTHER_FILES: u64 = 32;

/// How long to wait for what has not arrived when the time is up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `simulate-fleet`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The broker.
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    url: String,
    /// How many boxes there are; each has a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    boxes: u32,
    /// Reports a second and box.
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    rate: f64,
    /// For how long.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What topics begin with.
    #[arg(long, value_name = "LEVELS", default_value = "roentgen")]
    prefix: String,
    /// User at the broker.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The file whose first line is that user's password.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Leave the retained status and telemetry of the boxes at the broker, to look at.
    #[arg(long)]
    keep: bool,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// Publishes for a while, and says what became of it: 0 where every report that the broker acknowledged arrived.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !(0.001..=1000.0).contains(&arguments.rate) {
        bail!("--rate: write reports a second and box, from 0.001 to 1000");
    }
    let config = mqtt::Config {
        url: arguments.url.clone(),
        topic_prefix: arguments.prefix.clone(),
        username: arguments.username.clone(),
        password_file: arguments.password_file.clone(),
        protocol: mqtt::Protocol::Three,
        ..mqtt::Config::default()
    };
    // Says what is wrong with address, user and password before a thousand connections do.
    let version = mqtt::probe(&config, "simulated")?;
    debug_assert_eq!(version, Version::Three);
    let address = config.address()?;
    if address.tls {
        bail!("the boxes are simulated without TLS: write mqtt://");
    }
    enough_files(u64::from(arguments.boxes) + OTHER_FILES)?;
    let password = match &arguments.password_file {
        Some(path) => std::fs::read_to_string(path).with_context(|| path.display().to_string())?,
        None => String::new(),
    };
    let plan = Plan {
        host: address.host,
        port: address.port,
        prefix: arguments.prefix.clone(),
        credentials: arguments
            .username
            .clone()
            .map(|user| (user, password.lines().next().unwrap_or_default().to_owned())),
        boxes: arguments.boxes,
        every: Duration::from_secs_f64(1.0 / arguments.rate),
        lasting: Duration::from_secs(arguments.seconds),
        keep: arguments.keep,
    };
    let ear = Ear::listen(&plan)?;
    if !arguments.json {
        say!("{} boxes, {} reports a second each, for {} s, MQTT 3.1.1", plan.boxes, arguments.rate, arguments.seconds);
    }
    let fleet = boxes::run(&plan)?;
    let heard = ear.wait_for(fleet.acknowledged, PATIENCE);
    let lost = fleet.acknowledged.saturating_sub(heard.reports);
    tell(arguments, &fleet, &heard, lost);
    let all = lost == 0 && fleet.unacknowledged == 0;
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(arguments: &Arguments, fleet: &Fleet, heard: &ear::Heard, lost: u64) {
    let a_second = fleet.acknowledged as f64 / fleet.took.as_secs_f64();
    let [p50, p90, p99, max] = boxes::quantiles(&fleet.latencies);
    let [arrived_p50, _, arrived_p99, arrived_max] = boxes::quantiles(&heard.latencies);
    if arguments.json {
        let line = json!({
            "boxes": arguments.boxes,
            "rate": arguments.rate,
            "seconds": arguments.seconds,
            "payload_bytes": fleet.payload_bytes,
            "published": fleet.published,
            "acknowledged": fleet.acknowledged,
            "unacknowledged": fleet.unacknowledged,
            "arrived": heard.reports,
            "repeated": heard.repeated,
            "lost": lost,
            "reconnections": fleet.reconnections,
            "a_second": a_second,
            "acknowledged_ms": { "p50": p50, "p90": p90, "p99": p99, "max": max },
            "arrived_ms": { "p50": arrived_p50, "p99": arrived_p99, "max": arrived_max },
        });
        return say!("{line}");
    }
    say!("published      {} of {} bytes", fleet.published, fleet.payload_bytes);
    say!("acknowledged   {}, {a_second:.0} a second; {} not", fleet.acknowledged, fleet.unacknowledged);
    say!("               after {p50:.2} ms (half), {p90:.2} (9 in 10), {p99:.2} (99 in 100), {max:.1} (all)");
    say!("arrived        {}, {} of them again", heard.reports + heard.repeated, heard.repeated);
    say!("               after {arrived_p50:.2} ms (half), {arrived_p99:.2} (99 in 100), {arrived_max:.1} (all)");
    say!("lost           {lost}; {} reconnections", fleet.reconnections);
}

/// Refuses where the system allows fewer open files.
fn enough_files(wanted: u64) -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits").context("/proc/self/limits")?;
    let allowed = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    // "unlimited" is no number, and no limit.
    match allowed.and_then(|allowed| allowed.parse::<u64>().ok()) {
        Some(allowed) if allowed < wanted => {
            bail!("this shell allows {allowed} open files, and {wanted} are needed: type `ulimit -n {wanted}` before")
        }
        _ => Ok(()),
    }
}
