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

/// A folder of Node packages; `None`, said plainly, where it is missing, which CI does not forgive.
fn packages(variable: &str, folder: &str, script: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).map_or_else(|| root().join(folder), PathBuf::from);
    if found.join("node_modules").is_dir() {
        return Some(found);
    }
    let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| env::var_os(name).is_some());
    assert!(!required, "{} is missing: {script} makes it", found.display());
    eprintln!("SKIPPED: {} is missing; {script} makes it", found.display());
    None
}

/// What `tests/dashboards/install` has installed.
pub(crate) fn dashboards() -> Option<PathBuf> {
    packages("ROENTGEN_DASHBOARDS", ".cache/dashboards", "tests/dashboards/install")
}

/// What `tests/browser/install` has installed.
pub(crate) fn browser() -> Option<PathBuf> {
    packages("ROENTGEN_BROWSER", ".cache/browser", "tests/browser/install")
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
