//! [`Telemetry`] as Prometheus reads it: the text format, version 0.0.4. Not the gathering.
//!
//! Names begin with `roentgen_` and end with their unit; seconds and bytes, never their multiples.

use crate::status::{Quantiles, Telemetry};
use std::fmt::Write;

/// What the text is, for HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The text, one metric after the other.
struct Text(String);

/// A metric's labels.
type Labels<'a> = &'a [(&'a str, &'a str)];

impl Text {
    /// Begins a metric. `kind` is `counter`, `gauge` or `summary`.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP roentgen_{name} {help}\n# TYPE roentgen_{name} {kind}");
    }

    /// A value of a metric.
    fn value(&mut self, name: &str, labels: Labels<'_>, value: f64) {
        let _ = write!(self.0, "roentgen_{name}");
        for (i, (key, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{key}=\"{escaped}\"", if i == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A metric of one value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    /// The same where the value is known.
    fn known(&mut self, name: &str, kind: &str, help: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.single(name, kind, help, value as f64);
        }
    }

    /// A counter with a value for each of the names.
    fn by<'a>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (&'a String, &'a u64)>) {
        self.metric(name, "counter", help);
        for (text, value) in values {
            self.value(name, &[(label, text)], *value as f64);
        }
    }
}

/// The whole text.
pub fn render(telemetry: &Telemetry) -> String {
    let mut text = Text(String::new());
    identity(&mut text, telemetry);
    work(&mut text, telemetry);
    queues(&mut text, telemetry);
    dicom(&mut text, telemetry);
    board(&mut text, telemetry);
    text.0
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn identity(text: &mut Text, telemetry: &Telemetry) {
    text.metric("build_info", "gauge", "Always 1; the labels say which program runs on which box.");
    text.value("build_info", &[("version", &telemetry.version), ("device", &telemetry.device)], 1.0);
    text.single("uptime_seconds", "gauge", "Time since the program started.", telemetry.uptime_s as f64);
    text.single("healthy", "gauge", "Whether the box does its work, as /healthz says.", flag(telemetry.health.healthy));
    text.metric("problem", "gauge", "1 for each thing that is wrong, by its code and severity.");
    for problem in &telemetry.health.problems {
        let severity = format!("{:?}", problem.severity).to_lowercase();
        text.value("problem", &[("code", &problem.code), ("severity", &severity)], 1.0);
    }
    if let Some(engine) = &telemetry.engine {
        text.metric("model_info", "gauge", "Always 1; the labels say which model judges.");
        let model = &engine.model;
        let labels = [("name", &*model.name), ("version", &*model.version), ("sha256", &*model.sha256)];
        text.value("model_info", &labels, 1.0);
        text.metric("engine_info", "gauge", "Always 1; the labels say what runs the model.");
        text.value("engine_info", &[("backend", &engine.backend), ("kernel", &engine.kernel)], 1.0);
        text.single("engine_threads", "gauge", "In how many threads the model runs.", engine.threads as f64);
        let help = "Whether the box runs another model than the one that it should.";
        text.single("bundle_fallback", "gauge", help, flag(engine.bundle_fallback.is_some()));
    }
    let synchronised = telemetry.clock == crate::report::Clock::Synchronised;
    text.single("clock_synchronised", "gauge", "Whether systemd-timesyncd has set the clock.", flag(synchronised));
}

fn work(text: &mut Text, telemetry: &Telemetry) {
    let counts = &telemetry.counts;
    text.by("reports_total", "Reports with a label, by label.", "label", &counts.reported);
    text.single("abstentions_total", "counter", "Reports in which the box does not judge.", counts.abstained as f64);
    let help = "Reasons of abstentions, by code; one abstention may have several.";
    text.by("abstention_reasons_total", help, "reason", &counts.reasons);
    text.by("rejected_files_total", "Files that were refused, by code.", "code", &counts.rejected);
    let singles = [
        ("repeated_images_total", "Images that had their report already.", counts.repeated),
        ("published_reports_total", "Reports that the broker acknowledged.", counts.published),
        ("dropped_reports_total", "Reports that were dropped unsent, for the bounds of the outbox.", counts.dropped),
        ("undeliverable_reports_total", "Reports that can never be sent.", counts.undeliverable),
        ("decoder_restarts_total", "How often the decoder was started anew.", counts.decoder_restarts),
        ("reloads_total", "How often the configuration was read again.", counts.reloads),
    ];
    for (name, help, value) in singles {
        text.single(name, "counter", help, value as f64);
    }
    let Some(latency) = &telemetry.latency_ms else { return };
    let name = "image_duration_seconds";
    text.metric(name, "summary", "How long images take, by step; quantiles over the last 256, sums since the start.");
    let steps = [
        ("decode", &latency.decode),
        ("preprocess", &latency.preprocess),
        ("infer", &latency.infer),
        ("total", &latency.total),
    ];
    for (step, Quantiles { p50, p90, p99, sum, .. }) in steps {
        for (quantile, value) in [("0.5", p50), ("0.9", p90), ("0.99", p99)] {
            text.value(name, &[("step", step), ("quantile", quantile)], value / 1000.0);
        }
        text.value(&format!("{name}_sum"), &[("step", step)], sum / 1000.0);
        text.value(&format!("{name}_count"), &[("step", step)], latency.count as f64);
    }
}

fn queues(text: &mut Text, telemetry: &Telemetry) {
    let queue = &telemetry.queue;
    text.known("incoming_files", "gauge", "Files in the drop folder.", queue.incoming);
    text.known("unsent_reports", "gauge", "Reports that the broker has not acknowledged.", queue.unsent);
    text.known("outbox_bytes", "gauge", "What the outbox takes on disk.", queue.outbox_bytes);
    text.single("intake_open", "gauge", "Whether new images are taken.", flag(telemetry.intake.open));
    if let Some(results) = &telemetry.results {
        let help = "Results that wait for the PACS.";
        text.single("waiting_results", "gauge", help, results.waiting as f64);
        text.single("refused_results", "gauge", "Results that the PACS does not take.", results.refused as f64);
        text.single("results_bytes", "gauge", "What these take on disk.", results.bytes as f64);
        text.single("sent_results_total", "counter", "Results that the PACS has acknowledged.", results.sent as f64);
        text.single("dropped_results_total", "counter", "Results that were dropped unsent.", results.dropped as f64);
    }
    let broker = &telemetry.broker;
    text.single("broker_connected", "gauge", "Whether a connection to the broker stands.", flag(broker.connected));
    let help = "Connections to the broker since the start.";
    text.single("broker_connections_total", "counter", help, broker.connections as f64);
    if let Some(camera) = &telemetry.camera {
        text.single("camera_connected", "gauge", "Whether the camera sends pictures.", flag(camera.connected));
        text.single("camera_films_total", "counter", "Films that the camera has taken.", camera.films as f64);
        text.single("camera_losses_total", "counter", "How often the camera went away.", camera.losses as f64);
    }
}

fn dicom(text: &mut Text, telemetry: &Telemetry) {
    let Some(dicom) = &telemetry.dicom else { return };
    text.single("dicom_listening", "gauge", "Whether modalities can send.", flag(dicom.listening.is_some()));
    text.single("dicom_associations", "gauge", "Associations at this moment.", dicom.associations as f64);
    let accepted = dicom.accepted as f64;
    text.single("dicom_accepted_associations_total", "counter", "Associations that were accepted.", accepted);
    let rejected = "Associations that were rejected, by reason.";
    text.by("dicom_rejected_associations_total", rejected, "reason", &dicom.rejected);
    let broken = "Connections that were broken off, by reason.";
    text.by("dicom_broken_connections_total", broken, "reason", &dicom.broken);
    text.single("dicom_stored_instances_total", "counter", "Instances that were stored.", dicom.stored as f64);
    let refused = "Instances that were refused, by reason.";
    text.by("dicom_refused_instances_total", refused, "reason", &dicom.refused);
}

fn board(text: &mut Text, telemetry: &Telemetry) {
    let heat = &telemetry.heat;
    if !heat.zones.is_empty() {
        text.metric("temperature_celsius", "gauge", "Temperatures, by the board's own names and numbers.");
        for (i, zone) in heat.zones.iter().enumerate() {
            // Two zones may have one name.
            text.value("temperature_celsius", &[("zone", &zone.name), ("number", &i.to_string())], zone.celsius);
        }
    }
    if let Some(throttled) = heat.throttled {
        text.single("throttled", "gauge", "Whether the processor is slowed down.", flag(throttled));
    }
    if !telemetry.processors.is_empty() {
        text.metric("processor_frequency_hertz", "gauge", "How fast the processors run, by what shares a frequency.");
        for processor in &telemetry.processors {
            text.value("processor_frequency_hertz", &[("policy", &processor.policy)], processor.mhz as f64 * 1e6);
        }
    }
    for (name, help, total) in [
        ("disk_free_bytes", "Room on the disk of state_dir and of the drop folder.", false),
        ("disk_size_bytes", "Size of the disk of state_dir and of the drop folder.", true),
    ] {
        text.metric(name, "gauge", help);
        for (place, disk) in &telemetry.disks {
            text.value(name, &[("place", place)], if total { disk.total_bytes } else { disk.free_bytes } as f64);
        }
    }
    let memory = &telemetry.memory;
    text.known("resident_memory_bytes", "gauge", "What the program has in memory.", memory.resident_bytes);
    text.known("resident_memory_peak_bytes", "gauge", "The most it ever had.", memory.resident_peak_bytes);
    text.known("available_memory_bytes", "gauge", "What the machine could still give.", memory.available_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Roots, Status};
    use std::collections::BTreeSet;

    #[test]
    fn every_value_follows_its_help_and_type_and_labels_are_escaped() {
        let status = Status::default();
        status.outbox_set_aside("a \"quoted\" path\\ and\na line");
        let mut telemetry = status.telemetry(&Roots::default());
        telemetry.device = "a\"b\\c\nd".into();
        telemetry.latency_ms = Some(Default::default());
        telemetry.results = Some(Default::default());
        let text = render(&telemetry);
        assert!(text.contains(r#"device="a\"b\\c\nd""#), "{text}");
        let mut typed = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(typed.insert(rest.split(' ').next().unwrap().to_owned()), "{line} stands twice");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = name.strip_suffix("_sum").or(name.strip_suffix("_count")).unwrap_or(name);
                assert!(typed.contains(name) || typed.contains(base), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(typed.len() > 20, "{typed:?}");
    }
}
