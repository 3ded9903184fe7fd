//! Where log lines go: to the journal, with their fields, when systemd started us; else to stderr for people.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Starts logging. The daemon tells what it does; the other commands only what is wrong, unless `verbose`.
pub(crate) fn start(verbose: bool, daemon: bool) {
    let own = match (verbose, daemon) {
        (true, _) => LevelFilter::Debug,
        (false, true) => LevelFilter::Info,
        (false, false) => LevelFilter::Warn,
    };
    log::set_max_level(own);
    let journal = if connected_to_journal() { JournalLog::new().ok() } else { None };
    let output: Box<dyn Log> = match journal {
        Some(journal) => Box::new(journal),
        None => Box::new(Stderr),
    };
    // Fails only when a logger is set already, and this is the first line of the program.
    let _ = log::set_boxed_logger(Box::new(Filtered { own, output }));
}

/// Tells why the program ends, where its log goes.
pub(crate) fn failure(error: &anyhow::Error) {
    log::error!("{}", chain(error));
}

/// The chain of causes as one line, leaving out causes that the line above already quotes.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

/// Our own lines at the wanted level, other crates' from warnings on, the embedded broker's only where much is wanted.
struct Filtered {
    own: LevelFilter,
    output: Box<dyn Log>,
}

impl Log for Filtered {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_own = metadata.target().starts_with("roentgen");
        // The MQTT libraries report what the sink reports in better words.
        let is_echo = metadata.target().starts_with("rumqtt") && metadata.level() > Level::Error;
        // The demo's broker marks the course of every connection as an error: its own lines, and its spans, which the
        // `tracing` crate logs under these names. Nothing else in this program has spans.
        let target = metadata.target();
        let is_broker = target.starts_with("rumqttd") || target.starts_with("tracing::span");
        if is_broker && self.own < LevelFilter::Debug {
            return false;
        }
        metadata.level() <= if is_own { self.own } else { LevelFilter::Warn.min(self.own) } && !is_echo
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.output.log(record);
        }
    }

    fn flush(&self) {
        self.output.flush();
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info => "",
            Level::Debug | Level::Trace => "debug: ",
        };
        // Not `eprintln!`: it panics where nobody reads any more.
        let _ = writeln!(std::io::stderr(), "{level}{}", record.args());
    }

    fn flush(&self) {}
}
