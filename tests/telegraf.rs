//! The promise: what Telegraf is configured to take from the boxes' messages is in them, PostgreSQL takes it, and every panel
//! of the Grafana dashboard gets its figures from there. Real daemon, real PostgreSQL. Telegraf itself is in no package archive
//! that these tests install from: its mapping of JSON to rows is read from `telegraf.conf` and done here, so that a wrong path
//! is found and a fault of Telegraf's own is not.

mod common;
#[path = "support/dashboards.rs"]
mod dashboards;
mod support;

use common::dicom::{EXPLICIT, PIXELS, chest};
use dashboards::{NO_DASHBOARDS, example, grafana, missing, queries};
use roentgen::radiograph::phantom;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::daemon::{Place, Received};
use support::{Process, png, wait_for};

/// A PostgreSQL of the test's own: no port, only a socket in its folder.
struct Postgres {
    bin: PathBuf,
    folder: tempfile::TempDir,
    _server: Process,
}

/// A command as a user that PostgreSQL accepts, which root is not.
fn as_user(program: &Path) -> Command {
    if support::user() != "root" {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program);
    command
}

impl Postgres {
    /// `None`, said plainly, where it is missing, which CI does not forgive.
    fn start() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let bin = versions.map(|version| version.path().join("bin")).find(|bin| bin.join("initdb").is_file());
        let Some(bin) = bin else {
            missing("PostgreSQL", "tests/dashboards/install", NO_DASHBOARDS);
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if support::user() == "root" {
            let owned = Command::new("chown").arg("postgres").arg(folder.path()).status().expect("chown");
            assert!(owned.success());
        }
        let data = folder.path().join("data");
        let mut command = as_user(&bin.join("initdb"));
        command
            .args(["--no-sync", "--auth=trust", "--username=clinic", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data);
        let made = command.current_dir("/").stdin(Stdio::null()).output().expect("initdb");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut command = as_user(&bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(folder.path()).args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        let server =
            Process::spawn(command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        let postgres = Self { bin, folder, _server: server };
        wait_for("PostgreSQL", || postgres.try_run("SELECT 1").is_ok());
        Some(postgres)
    }

    /// Runs SQL; rows as text, fields parted by `|`.
    fn try_run(&self, sql: &str) -> Result<Vec<String>, String> {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "clinic", "-d", "postgres", "-h"]);
        command.arg(self.folder.path()).args(["-f", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql");
        // psql may have ended already where there is no server yet.
        let _ = child.stdin.take().expect("piped").write_all(sql.as_bytes());
        let output = child.wait_with_output().expect("psql ends");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect())
    }

    fn run(&self, sql: &str) -> Vec<String> {
        self.try_run(sql).unwrap_or_else(|error| panic!("{sql}\n{error}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children end with it only if it is asked.
        let mut command = as_user(&self.bin.join("pg_ctl"));
        let data = self.folder.path().join("data");
        let _ =
            command.args(["stop", "-m", "immediate", "-D"]).arg(data).current_dir("/").stdout(Stdio::null()).status();
    }
}

/// The value at a path of Telegraf's (GJSON): names, numbers of items, and `#(name=="text")` for the item of that name.
fn at<'a>(json: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(json, |value, step| {
        if let Some(condition) = step.strip_prefix("#(").and_then(|rest| rest.strip_suffix("\")")) {
            let (name, text) = condition.split_once("==\"").expect("a condition");
            return value.as_array()?.iter().find(|item| item[name] == text);
        }
        step.parse::<usize>().map_or_else(|_| value.get(step), |index| value.get(index))
    })
}

/// The value as SQL, if it is of the type that the configuration says.
fn sql(value: &Value, kind: &str) -> Option<String> {
    match kind {
        "string" => value.as_str().map(|text| format!("'{}'", text.replace('\'', "''"))),
        "int" => value.as_i64().map(|number| number.to_string()),
        "float" => value.as_f64().map(|number| number.to_string()),
        "bool" => value.as_bool().map(|flag| flag.to_string()),
        _ => None,
    }
}

/// The row that one input of the configuration makes of one message.
fn insert(input: &toml::Value, message: &Value) -> String {
    let parser = &input["json_v2"][0];
    let text = |value: &toml::Value| value.as_str().expect("text").to_owned();
    let mut columns = vec!["time".to_owned(), "device".to_owned()];
    let time =
        parser.get("timestamp_path").map(|path| at(message, &text(path)).and_then(Value::as_str).expect("a time"));
    let device = at(message, &text(&parser["tag"][0]["path"])).expect("the box's name");
    let mut values =
        vec![time.map_or("now()".into(), |time| format!("'{time}'")), sql(device, "string").expect("text")];
    for field in parser["field"].as_array().expect("fields") {
        let (path, kind) = (text(&field["path"]), text(&field["type"]));
        let optional = field.get("optional").is_some_and(|optional| optional.as_bool() == Some(true));
        match at(message, &path) {
            Some(value) => {
                columns.push(text(&field["rename"]));
                values.push(sql(value, &kind).unwrap_or_else(|| panic!("{path} is no {kind}: {value}")));
            }
            None => assert!(optional, "{path} is missing in {message}"),
        }
    }
    let table = text(&parser["measurement_name"]);
    format!("INSERT INTO {table} ({}) VALUES ({});\n", columns.join(", "), values.join(", "))
}

#[test]
fn what_telegraf_takes_is_there_and_every_panel_gets_its_figures() {
    let Some(place) = Place::new() else { return };
    let Some(postgres) = Postgres::start() else { return };
    let schema = example("telegraf/schema.sql");
    postgres.run(&schema);
    postgres.run(&schema);

    place.configure_more("[telemetry]\ninterval_s = 5\n");
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut daemon = place.daemon();
    received.wait_for_status("online");
    place.drop_file("a.png", &png(1));
    let lateral = chest(200, 200, 8, 8).text((0x0018, 0x5101), "CS", "LL");
    place.drop_file("b.dcm", &lateral.bytes(PIXELS, "OB", &phantom::phantom(9, 200)).file(EXPLICIT));
    wait_for("both reports, and telemetry about them", || {
        received.count() == 2 && received.on("telemetry").iter().any(|(_, said)| said["counts"]["published"] == 2)
    });
    daemon.0.kill().unwrap();
    daemon.wait();
    received.wait_for_status("offline");

    let config: toml::Value = toml::from_str(&example("telegraf/telegraf.conf")).unwrap();
    let inputs = config["inputs"]["mqtt_consumer"].as_array().unwrap();
    let mut rows = String::new();
    let mut optional = Vec::new();
    for input in inputs {
        let topic = input["topics"][0].as_str().unwrap();
        let leaf = topic.strip_prefix("roentgen/+/").unwrap_or_else(|| panic!("{topic}"));
        let messages = received.on(leaf);
        assert!(!messages.is_empty(), "nothing came on {leaf}");
        for (_, message) in &messages {
            rows += &insert(input, message);
        }
        let fields = input["json_v2"][0]["field"].as_array().unwrap().iter();
        let seen = |path: &str| messages.iter().any(|(_, message)| at(message, path).is_some());
        optional
            .extend(fields.filter_map(|field| field["path"].as_str()).filter(|path| !seen(path)).map(str::to_owned));
    }
    // Nothing was wrong, and no board tells its temperature here.
    optional.retain(|path| !["health.problems.0.message", "heat.zones.0.celsius"].contains(&path.as_str()));
    assert_eq!(optional, [""; 0], "paths that no message had");
    // At least once: the same again.
    postgres.run(&rows);
    let report = rows.lines().find(|row| row.contains("roentgen_report ")).unwrap();
    postgres.run(report);
    assert_eq!(postgres.run("SELECT count(*) FROM roentgen_report; SELECT count(*) FROM roentgen_reports"), ["3", "2"]);

    let dashboard = grafana("sql.json");
    let device = dashboard["templating"]["list"][1]["query"].as_str().unwrap();
    assert_eq!(postgres.run(device), ["box-t"]);
    for (title, kind, query) in queries(&dashboard, "rawSql") {
        // As Grafana expands its macros.
        let query = query
            .replace("$__timeFilter(time)", "time BETWEEN now() - interval '7 days' AND now() + interval '1 day'")
            .replace("$__timeGroupAlias(time, '1h')", "date_bin('1 hour', time, timestamp '2000-01-01') AS \"time\"")
            .replace("$__timeGroupAlias(time, '5m')", "date_bin('5 minutes', time, timestamp '2000-01-01') AS \"time\"")
            .replace("${device:sqlstring}", "'box-t','box-u'");
        assert!(!query.contains('$'), "{title}: a variable that is not known here: {query}");
        let found = postgres.run(&query);
        assert!(!found.is_empty() && found.iter().all(|row| !row.is_empty()), "{title}: nothing for {query}");
        assert!(kind != "timeseries" || found.iter().all(|row| row.split('|').count() == 3), "{title}: {found:?}");
        match title.as_str() {
            "Reports in this span" => assert_eq!(found, ["2"]),
            "Not judged" => assert!(found[0].starts_with("0.5"), "{found:?}"),
            "Boxes offline" => assert_eq!(found, ["1"]),
            "Why images were not judged" => assert!(found[0].contains("lateral_view"), "{found:?}"),
            "Last reports" => {
                assert!(found.len() == 2 && found.iter().any(|row| row.contains("not judged")), "{found:?}")
            }
            _ => {}
        }
    }
}
