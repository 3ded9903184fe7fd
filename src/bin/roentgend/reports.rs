//! `roentgend reports`: what this box reported, from the outbox's history, beside the running daemon. Changes nothing and
//! judges nothing.

use anyhow::bail;
use chrono::{DateTime, NaiveDate, SecondsFormat, TimeDelta, Utc};
use roentgen::config::Config;
use roentgen::outbox::history::{Entry, Filter, History, Status};
use roentgen::report::{Decision, Label, NOTICE, Report};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// How many reports a person is shown who does not say how many.
const SHOWN: u64 = 50;

/// Arguments of `reports`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The daemon's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only images received since then: a time (2026-11-23T06:00:00Z, 2026-11-23) or how long ago (90m, 2h, 7d).
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Only images received before then; the same forms.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// Only reports with this label: covid, lung_opacity, normal or viral_pneumonia.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Option<Label>,
    /// Only reports with a label (reported), or only abstentions (abstained).
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<Status>,
    /// Only reports that the broker has not acknowledged.
    #[arg(long)]
    unsent: bool,
    /// Only the last so many; 50 unless --json is given.
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// A line of JSON each: {"sequence", "sent_at", "undeliverable", "report"}.
    #[arg(long)]
    json: bool,
}

/// Prints the reports, newest last.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let path = config.outbox();
    if !path.exists() {
        bail!("{} does not exist yet: the daemon makes it at its first start", path.display());
    }
    let history = History::open(&path)?;
    let rfc3339 = |time: &DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    let filter = Filter {
        since: arguments.since.as_ref().map(rfc3339),
        until: arguments.until.as_ref().map(rfc3339),
        label: arguments.label,
        status: arguments.status,
        unsent: arguments.unsent,
        limit: arguments.limit.or((!arguments.json).then_some(SHOWN)),
        ..Filter::default()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match print(&history, &filter, arguments, &mut out) {
        Ok(0) => Ok(ExitCode::SUCCESS),
        Ok(damaged) => {
            log::warn!("{}: {damaged} reports are damaged on the disk and were left out", path.display());
            Ok(ExitCode::FAILURE)
        }
        // `reports | head` has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
    }
}

/// Prints; how many reports were damaged.
fn print(history: &History, filter: &Filter, arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<u64> {
    if !arguments.json {
        writeln!(
            out,
            "{:>10}  {:<20}  {:<16} {:>5}  {:<20}  report",
            "sequence", "received", "decision", "prob.", "sent"
        )?;
    }
    let (mut shown, mut written) = (0, Ok(()));
    let damaged = history.visit(filter, &mut |entry| {
        shown += 1;
        written = if arguments.json { json_line(&entry, out) } else { table_line(&entry, out) };
        written.is_ok()
    })?;
    written?;
    if !arguments.json {
        if shown == 0 {
            writeln!(out, "{:>10}", "none")?;
        }
        if arguments.limit.is_none() && shown == SHOWN {
            writeln!(out, "\nOnly the last {SHOWN} are shown; --limit N shows more.")?;
        }
        writeln!(out, "\n{NOTICE}")?;
    }
    out.flush()?;
    Ok(damaged)
}

/// The report's JSON goes out as it lies in the outbox.
fn json_line(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let (sent_at, undeliverable) = (serde_json::json!(entry.sent_at), serde_json::json!(entry.undeliverable));
    let (sequence, report) = (entry.sequence, &entry.json);
    writeln!(
        out,
        "{{\"sequence\":{sequence},\"sent_at\":{sent_at},\"undeliverable\":{undeliverable},\"report\":{report}}}"
    )
}

fn table_line(entry: &Entry, out: &mut dyn Write) -> io::Result<()> {
    let sequence = entry.sequence;
    let report: Report = match serde_json::from_str(&entry.json) {
        Ok(report) => report,
        // Of another version of this program; --json prints it.
        Err(error) => return writeln!(out, "{sequence:>10}  cannot be shown ({error}); --json prints it"),
    };
    let (decision, why) = match &report.decision {
        Decision::Reported { label } => (label.name(), String::new()),
        Decision::Abstained { reasons } => {
            let codes = reasons.iter().map(|reason| serde_json::json!(reason.code));
            let codes: Vec<_> = codes.map(|code| code.as_str().unwrap_or_default().to_owned()).collect();
            ("abstained", format!(" ({})", codes.join(", ")))
        }
    };
    // Of an abstention there is no probability to rely on.
    let probability = match &report.decision {
        Decision::Reported { label } => report.findings.iter().find(|finding| finding.label == *label),
        Decision::Abstained { .. } => None,
    };
    let probability = probability.map_or_else(|| "-".to_owned(), |finding| format!("{:.2}", finding.probability));
    let sent = match (&entry.sent_at, &entry.undeliverable) {
        (_, Some(_)) => "cannot be delivered",
        (Some(at), None) => seconds(at),
        (None, None) => "waits",
    };
    let (received, id) = (seconds(&report.received_at), &report.report_id);
    writeln!(out, "{sequence:>10}  {received:<20}  {decision:<16} {probability:>5}  {sent:<20}  {id}{why}")
}

/// A time without its fraction of a second.
fn seconds(time: &str) -> &str {
    time.split('.').next().unwrap_or(time)
}

/// A moment, or how long ago it was.
fn time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Some(midnight) = text.parse::<NaiveDate>().ok().and_then(|date| date.and_hms_opt(0, 0, 0)) {
        return Ok(midnight.and_utc());
    }
    let wrong = || "write a time such as 2026-11-23T06:00:00Z or 2026-11-23, or how long ago: 90m, 2h, 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let count: u32 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let ago = TimeDelta::try_seconds(i64::from(count) * seconds).ok_or_else(wrong)?;
    Utc::now().checked_sub_signed(ago).ok_or_else(wrong)
}

fn label(name: &str) -> Result<Label, String> {
    let names = Label::ALL.map(Label::name).join(", ");
    Label::ALL.into_iter().find(|label| label.name() == name).ok_or_else(|| format!("write one of {names}"))
}

fn status(name: &str) -> Result<Status, String> {
    match name {
        "reported" => Ok(Status::Reported),
        "abstained" => Ok(Status::Abstained),
        _ => Err("write reported or abstained".into()),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_how_long_ago() {
        let exact = time("2026-11-23T07:00:00+01:00").unwrap();
        assert_eq!(exact.to_rfc3339_opts(SecondsFormat::Millis, true), "2026-11-23T06:00:00.000Z");
        assert_eq!(time("2026-11-23").unwrap(), time("2026-11-23T00:00:00Z").unwrap());
        for (text, seconds) in [("90m", 5400), ("2h", 7200), ("7d", 604_800), ("1w", 604_800), ("30s", 30)] {
            let ago = Utc::now() - time(text).unwrap();
            assert!((ago.num_seconds() - seconds).abs() <= 5, "{text}: {ago}");
        }
        for wrong in ["", "h", "2", "2y", "-2h", "2.5h", "yesterday", "9999999999999d", "4294967295w", "2µ"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
