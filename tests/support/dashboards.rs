//! What tests of the ready-made dashboards share: where their software lies, a browser that is steered line by line, and
//! plain HTTP. Not a test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use crate::support::Process;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

/// The root of the working tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of the files that come with Roentgen, by its path below `systemd/examples`.
pub(crate) fn example(path: &str) -> String {
    let path = root().join("systemd/examples").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Says that a test is skipped for want of what a script installs; panics where that is not forgiven: in CI and in the test
/// command, unless the script could not download it at the time.
pub(crate) fn missing(what: &str, script: &str, unless: &str) {
    let is_set = |name: &str| env::var_os(name).is_some();
    let required = (is_set("CI") || is_set("ROENTGEN_REQUIRE_PEERS")) && !is_set(unless);
    assert!(!required, "{what} is missing: {script} installs it");
    eprintln!("SKIPPED: {what} is missing; {script} installs it");
}

/// A folder of Node packages, if it is there.
fn packages(variable: &str, folder: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).filter(|value| !value.is_empty());
    let folder = named.map_or_else(|| root().join(folder), PathBuf::from);
    folder.join("node_modules").is_dir().then_some(folder)
}

/// A program by its name, if it is there.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Set where `tests/dashboards/install` could not download something.
pub(crate) const NO_DASHBOARDS: &str = "ROENTGEN_NO_DASHBOARDS";

/// The Node packages that `tests/dashboards/install` has installed.
pub(crate) fn dashboards() -> Option<PathBuf> {
    let found = packages("ROENTGEN_DASHBOARDS", ".cache/dashboards");
    if found.is_none() {
        missing(".cache/dashboards", "tests/dashboards/install", NO_DASHBOARDS);
    }
    found
}

/// What `tests/browser/install` has installed.
pub(crate) fn browser() -> Option<PathBuf> {
    let found = packages("ROENTGEN_BROWSER", ".cache/browser");
    if found.is_none() {
        missing(".cache/browser", "tests/browser/install", "ROENTGEN_NO_BROWSER");
    }
    found
}

/// Where pictures of pages go.
pub(crate) fn screens() -> PathBuf {
    let folder = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("screens");
    fs::create_dir_all(&folder).expect("writable");
    folder
}

/// A page in a real browser.
pub(crate) struct Page {
    _process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Page {
    pub(crate) fn open(browser: &Path, url: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(root().join("tests/dashboards/page.cjs")).env("ROENTGEN_BROWSER", browser);
        let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let orders = process.0.stdin.take().expect("piped");
        let answers = BufReader::new(process.0.stdout.take().expect("piped"));
        let mut page = Self { _process: process, orders, answers };
        page.ask(&serde_json::json!(["open", url]));
        page
    }

    fn ask(&mut self, order: &serde_json::Value) -> String {
        writeln!(self.orders, "{order}").expect("the browser's script runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("text");
        match answer.trim_end().strip_prefix("ok") {
            Some(rest) => rest.trim().to_owned(),
            None => panic!("{}", answer.replace("\\n", "\n")),
        }
    }

    /// Waits until the page shows the text.
    pub(crate) fn see(&mut self, text: &str) {
        self.ask(&serde_json::json!(["see", text]));
    }

    /// Waits until it shows the text no longer.
    pub(crate) fn gone(&mut self, text: &str) {
        self.ask(&serde_json::json!(["gone", text]));
    }

    /// How often the text stands there.
    pub(crate) fn count(&mut self, text: &str) -> usize {
        self.ask(&serde_json::json!(["count", text])).parse().expect("a number")
    }

    /// Writes a picture of it into [`screens`].
    pub(crate) fn shot(&mut self, name: &str, width: u32, height: u32) {
        self.ask(&serde_json::json!(["shot", screens().join(name), width, height]));
    }

    /// Which other machines the page has asked for anything.
    pub(crate) fn elsewhere(&mut self) -> String {
        self.ask(&serde_json::json!(["elsewhere"]))
    }
}

/// Asks a server on this machine; status line and body, empty where it does not answer.
pub(crate) fn http(port: u16, method: &str, path: &str, body: &str) -> (String, String) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return Default::default() };
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = Vec::new();
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// A Grafana dashboard that comes with Roentgen.
pub(crate) fn grafana(name: &str) -> serde_json::Value {
    serde_json::from_str(&example(&format!("grafana/{name}"))).expect("JSON")
}

/// What each panel asks for: the panel's title, its kind and the query under `key`.
pub(crate) fn queries(dashboard: &serde_json::Value, key: &str) -> Vec<(String, String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let found: Vec<_> = panels
        .flat_map(|panel| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let targets = panel["targets"].as_array().into_iter().flatten();
            targets.map(move |target| (text(&panel["title"]), text(&panel["type"]), text(&target[key])))
        })
        .collect();
    assert!(!found.is_empty() && found.iter().all(|(.., query)| !query.is_empty()), "{found:?}");
    found
}
