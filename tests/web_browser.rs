//! The promise: the dashboard can be read, by everybody, in a real browser: what tests/browser/dashboard.cjs looks at, in
//! headless Chromium, with the real bundle, a real broker and ten thousand reports. Its screenshots lie in target/screens.

#[path = "common/queue.rs"]
mod queue;
mod support;
#[path = "support/web.rs"]
mod web;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::daemon::Place;
use support::{Process, png, wait_for};
use web::{fill, get, place};

const TOKEN: &str = "correct-horse-battery";

/// Chromium and the folder of the Node packages; `None` where anything is missing, which CI does not forgive.
fn browser() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let packages = std::env::var_os("ROENTGEN_BROWSER").map_or_else(|| root.join(".cache/browser"), PathBuf::from);
    let on_path = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
    };
    let chromium = on_path("chromium").or_else(|| on_path("google-chrome"));
    let is_there = on_path("node").is_some() && packages.join("node_modules/playwright-core").is_dir();
    if let (Some(chromium), true) = (chromium, is_there) {
        return Some((chromium, packages));
    }
    let has = |name: &str| std::env::var_os(name).is_some();
    // tests/run says so where one cannot be downloaded at the moment.
    let required = (has("CI") || has("ROENTGEN_REQUIRE_PEERS")) && !has("ROENTGEN_NO_BROWSER");
    assert!(!required, "a browser is missing: run tests/browser/install");
    eprintln!("SKIPPED: no browser here; run tests/browser/install to look at the dashboard");
    None
}

/// A real radiograph, where there are any.
fn real() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shared = std::env::var_os("ROENTGEN_SHARED").map_or_else(|| root.join("../shared"), PathBuf::from);
    let folder = shared.join("radiographs/test/covid");
    let mut files: Vec<_> = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    files.into_iter().next()
}

/// The box, and what the browser asks to be done to it.
struct Bed {
    place: Place,
    broker: Option<Process>,
    daemon: Option<Process>,
    dropped: u64,
}

impl Bed {
    fn please(&mut self, what: &str) {
        match what {
            "drop phantom" => {
                self.dropped += 1;
                self.place.drop_file(&format!("{}.png", self.dropped), &png(1000 + self.dropped));
            }
            "drop real" => {
                let file = real().expect("asked for only where there is one");
                self.place.drop_file("real.png", &fs::read(file).unwrap());
            }
            "broker stop" => end(&mut self.broker),
            "broker start" => self.broker = Some(self.place.broker()),
            "daemon stop" => end(&mut self.daemon),
            "daemon start" => self.daemon = Some(self.place.daemon()),
            other => panic!("the browser asked for {other:?}"),
        }
    }
}

fn end(process: &mut Option<Process>) {
    let mut process = process.take().expect("it runs");
    process.signal("TERM");
    process.wait();
}

/// Runs the script against a box with ten thousand reports.
fn run(arguments: &[&str]) {
    let Some((chromium, packages)) = browser() else { return };
    let Some((place, port)) = place("images = true\nupload = true") else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = place.path("roentgend.toml");
    let text = fs::read_to_string(&path).unwrap();
    let tiny = format!("bundle = {:?}", place.path("tiny"));
    let real_bundle = format!("bundle = {:?}\nbackend = \"native\"", root.join("models/cxr-vgg16"));
    assert!(text.contains(&tiny), "{text}");
    fs::write(&path, text.replace(&tiny, &real_bundle).replace("allow_unsigned = true", "")).unwrap();
    fill(&place.path("state"), 10_000, 10_000);
    let files = place.path("files");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("upload.png"), png(7)).unwrap();
    fs::write(files.join("letter.txt"), "Dear colleague,").unwrap();
    let Some((locked, locked_port)) = self::place(&format!("token = {:?}", place.path("token"))) else { return };
    fs::write(place.path("token"), TOKEN).unwrap();
    fs::set_permissions(place.path("token"), Permissions::from_mode(0o600)).unwrap();
    let _locked = locked.daemon();
    let mut bed = Bed { broker: Some(place.broker()), daemon: Some(place.daemon()), place, dropped: 0 };
    for port in [port, locked_port] {
        wait_for("the pages", || get(port, "/metrics").status == 200);
    }
    wait_for("a box that is well", || get(port, "/healthz").status == 200);

    let mut command = Command::new("node");
    command
        .arg(root.join("tests/browser/dashboard.cjs"))
        .args(arguments)
        .env("ROENTGEN_BROWSER", packages)
        .env("CHROMIUM", chromium)
        .env("BOX", format!("http://127.0.0.1:{port}"))
        .env("LOCKED", format!("http://127.0.0.1:{locked_port}"))
        .env("TOKEN", TOKEN)
        .env("FILES", files)
        .env("REAL", real().map_or("", |_| "1"))
        .env("SCREENS", root.join("target/screens"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut node = Process::spawn(&mut command);
    let mut stdin = node.0.stdin.take().unwrap();
    for line in BufReader::new(node.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.strip_prefix('@') {
            Some(what) => {
                bed.please(what);
                writeln!(stdin, "done").unwrap();
            }
            None => println!("{line}"),
        }
    }
    assert!(node.wait().success(), "see above\n{}", bed.place.log());
}

#[test]
fn the_dashboard_is_read_in_a_browser() {
    run(&[]);
}

#[test]
#[ignore = "a measurement: tests/bench/web runs it alone on a quiet machine"]
fn it_is_painted_at_once_and_reports_are_on_it_at_once() {
    run(&["bars"]);
}
