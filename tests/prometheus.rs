//! The promise: Prometheus takes what the box says, the alerting rules in `systemd/examples` fire when they should and only
//! then, and every panel of the Grafana dashboard gets its figures. Real Prometheus and promtool, real daemon.

mod common;
#[path = "support/dashboards.rs"]
mod dashboards;
mod support;

use common::dicom::{EXPLICIT, PIXELS, chest};
use dashboards::{NO_DASHBOARDS, example, grafana, http, missing, program, queries, root};
use roentgen::radiograph::phantom;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use support::daemon::Place;
use support::{Process, free_port, png, wait_for};

/// What this machine cannot bring forth: a board that tells its temperature, the doors and the PACS that a box has by its
/// configuration.
const CONDITIONAL: [&str; 5] = ["temperature_celsius", "throttled", "dicom_", "camera_", "processor_frequency_hertz"];

/// Prometheus and promtool; `None`, said plainly, where they are missing.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let found = program("prometheus").zip(program("promtool"));
    if found.is_none() {
        missing("prometheus", "tests/dashboards/install", NO_DASHBOARDS);
    }
    found
}

fn promtool(program: &Path, arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("promtool reads");
    child.wait_with_output().expect("promtool ends")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Prometheus's answer to a question of its API.
fn ask(port: u16, path: &str) -> Value {
    let (_, body) = http(port, "GET", &format!("/api/v1/{path}"), "");
    serde_json::from_str(&body).unwrap_or_default()
}

/// A query's results.
fn query(port: u16, expression: &str) -> Vec<Value> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = ask(port, &format!("query?query={encoded}"));
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().cloned().unwrap_or_default()
}

/// The names of our metrics in an expression.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("roentgen_")).collect()
}

#[test]
fn the_alerting_rules_are_sound_and_fire_when_they_should() {
    let Some((_, promtool_program)) = programs() else { return };
    let checked = promtool(
        &promtool_program,
        &["check", "config", "prometheus.yml"],
        &root().join("systemd/examples/prometheus"),
        "",
    );
    assert!(checked.status.success(), "{}", said(&checked));
    let rules = example("prometheus/alerts.yml");
    let tested = fs::read_to_string(root().join("tests/dashboards/alerts.test.yml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert_eq!(tested.matches(&format!("alertname: {alert}")).count(), 2, "{alert}: silent once and loud once");
    }
    let run = promtool(&promtool_program, &["test", "rules", "alerts.test.yml"], &root().join("tests/dashboards"), "");
    assert!(run.status.success(), "{}", said(&run));
}

#[test]
fn prometheus_reads_a_box_and_every_panel_gets_its_figures() {
    let Some((prometheus, promtool_program)) = programs() else { return };
    let Some(place) = Place::new() else { return };
    let web = free_port();
    place.configure_more(&format!("[web]\nlisten = \"127.0.0.1:{web}\"\n"));
    let _broker = place.broker();
    let mut daemon = place.daemon();
    let metrics = || http(web, "GET", "/metrics", "").1;
    wait_for("the box's page", || !metrics().is_empty());

    let port = free_port();
    let folder = place.path("prometheus");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("alerts.yml"), example("prometheus/alerts.yml")).unwrap();
    let config = example("prometheus/prometheus.yml").replace("30s", "1s").replace(":8080", &format!(":{web}"));
    fs::write(folder.join("prometheus.yml"), config).unwrap();
    let log = File::create(folder.join("log")).unwrap();
    let mut command = Command::new(prometheus);
    command.arg("--config.file").arg(folder.join("prometheus.yml")).arg("--storage.tsdb.path").arg(folder.join("data"));
    command.args(["--log.level", "warn", "--web.listen-address", &format!("127.0.0.1:{port}")]);
    let _prometheus = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
    wait_for("Prometheus to read the box", || {
        http(port, "GET", "/-/ready", "").0.contains("200") && !query(port, "up == 1").is_empty()
    });

    // After the first look, so that what follows is an increase: a report, an abstention, a refused file, a problem.
    place.drop_file("a.png", &png(1));
    let lateral = chest(200, 200, 8, 8).text((0x0018, 0x5101), "CS", "LL");
    place.drop_file("b.dcm", &lateral.bytes(PIXELS, "OB", &phantom::phantom(9, 200)).file(EXPLICIT));
    place.drop_file("c.png", b"no image");
    let good = fs::read_to_string(place.path("roentgend.toml")).unwrap();
    fs::write(place.path("roentgend.toml"), good + "[nonsense]\n").unwrap();
    daemon.signal("HUP");
    for expected in
        ["abstentions_total 1", "code=\"unknown_format\"} 1", "code=\"reload_refused\"", "published_reports_total 2"]
    {
        wait_for(expected, || metrics().contains(expected));
    }
    let text = metrics();
    let checked = promtool(&promtool_program, &["check", "metrics"], &folder, &text);
    assert!(checked.status.success() && said(&checked).trim().is_empty(), "{}", said(&checked));
    wait_for("Prometheus to see the increase", || {
        query(port, "increase(roentgen_abstentions_total[1m]) > 0 and on () roentgen_problem").len() == 1
    });

    // Each metric that is named is there, or at least in the source.
    let source = fs::read_to_string(root().join("src/web/metrics.rs")).unwrap();
    let is_conditional = |text: &str| CONDITIONAL.iter().any(|name| text.contains(&format!("roentgen_{name}")));
    let dashboard = grafana("prometheus.json");
    let panels = queries(&dashboard, "expr");
    let expressions = panels.iter().map(|(.., expression)| expression.clone()).collect::<String>();
    for name in names(&expressions).union(&names(&example("prometheus/alerts.yml"))) {
        let known = text.contains(&format!("# TYPE {name} "))
            || is_conditional(name) && source.contains(&format!("\"{}\"", name.trim_start_matches("roentgen_")));
        assert!(known, "{name} is no metric of the box");
    }
    assert_eq!(ask(port, "label/device/values?match[]=roentgen_build_info")["data"], serde_json::json!(["box-t"]));
    for device in [".*", "box-t", "box-a|box-t"] {
        for (title, _, expression) in &panels {
            let replaced =
                expression.replace("$device", device).replace("$__rate_interval", "1m").replace("$__range", "1h");
            assert!(!replaced.contains('$'), "{title}: a variable that is not known here: {replaced}");
            // A counter that has just appeared needs a second look before it can increase.
            wait_for(&format!("figures for {title}: {replaced}"), || {
                !query(port, &replaced).is_empty() || is_conditional(&replaced)
            });
        }
    }
    let another = panels.iter().find(|(title, ..)| title == "Files in the drop folder").expect("a panel");
    assert!(query(port, &another.2.replace("$device", "box-u")).is_empty(), "another box is not shown");
    let stat = |title: &str| {
        let (.., expression) =
            panels.iter().find(|panel| panel.0 == title).unwrap_or_else(|| panic!("no panel {title}"));
        let found = query(port, &expression.replace("$device", ".*").replace("$__range", "1h"));
        found[0]["value"][1].as_str().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert_eq!(stat("Boxes that answer"), 1.0);
    assert_eq!(stat("Boxes that do not do their work"), 0.0);
    assert_eq!(stat("Reports waiting for the broker"), 0.0);
    assert!((stat("Not judged in this span") - 0.5).abs() < 0.01);

    let rules = ask(port, "rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() >= 10 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
    daemon.0.kill().unwrap();
    daemon.wait();
    wait_for("an alert about the box", || {
        let alerts = ask(port, "alerts");
        let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().any(|alert| alert["labels"]["alertname"] == "RoentgenBoxAway" && alert["state"] == "pending")
    });
    let log = fs::read_to_string(folder.join("log")).unwrap();
    assert!(!log.contains("level=error"), "{log}");
}
