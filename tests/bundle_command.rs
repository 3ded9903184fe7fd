//! The promise: what `roentgend bundle` does on the command line, and that a box whose bundle goes bad reports on with the
//! one before and says so. The rules of installing themselves: see tests/install.rs.

mod support;

use roentgen::bundle::{BundleWriter, sha256_hex};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::daemon::{Place, Received};
use support::gated::gated_bundle;
use support::{Maker, Process, names, output, png, roentgend, stderr, stdout, wait_for};

/// A box that trusts a maker, with no bundle installed and none configured.
struct Site {
    root: tempfile::TempDir,
    maker: Maker,
}

impl Site {
    fn new() -> Self {
        let site = Self { root: tempfile::tempdir().unwrap(), maker: Maker::new() };
        let config = format!(
            "bundle = {:?}\nstate_dir = {:?}\nbundles.trusted_keys = [{:?}]\n",
            site.path("configured"),
            site.path("state"),
            site.maker.key()
        );
        fs::write(site.path("roentgen.toml"), config).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn bundle(&self, version: &str) -> PathBuf {
        self.maker.bundle(&self.path("made"), version)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = roentgend();
        command.arg("bundle").args(arguments).arg("--config").arg(self.path("roentgen.toml"));
        command
    }

    /// Runs one that must succeed, and reads its JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let done = output(self.command(arguments).arg("--json"));
        assert_eq!(done.status.code(), Some(0), "{arguments:?}: {}", stderr(&done));
        serde_json::from_str(&stdout(&done)).unwrap()
    }

    /// Runs one that must be refused as bad configuration or bundle; its words.
    fn refused(&self, arguments: &[&str]) -> String {
        let done = output(&mut self.command(arguments));
        assert_eq!((done.status.code(), stdout(&done).as_str()), (Some(78), ""), "{arguments:?}: {}", stderr(&done));
        stderr(&done)
    }

    /// State and version of all that is listed.
    fn list(&self) -> Vec<(String, String, bool)> {
        let lines = self.json(&["list"]);
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let line = |line: &Value| (text(line, "state"), text(line, "version"), line["active"] == true);
        lines.as_array().unwrap().iter().map(line).collect()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn line(state: &str, version: &str, active: bool) -> (String, String, bool) {
    (state.into(), version.into(), active)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn bundles_are_verified_installed_listed_and_rolled_back() {
    let site = Site::new();
    let (first, second) = (site.bundle("1.0.0"), site.bundle("1.1.0"));
    fs::rename(site.bundle("0.9.0"), site.path("configured")).unwrap();

    let verified = site.json(&["verify", text(&first)]);
    assert_eq!((&verified["version"], &verified["golden_vectors"]), (&"1.0.0".into(), &1.into()));
    assert_eq!((&verified["signed_by"], &verified["largest_difference"]), (&site.maker.key().into(), &0.into()));
    assert!(!site.path("state").exists(), "it only looks");
    assert_eq!(site.list(), [line("configured", "0.9.0", true)]);

    let done = output(&mut site.command(&["install", text(&first)]));
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(stdout(&done).contains("systemctl reload roentgend"), "{}", stdout(&done));
    assert!(stdout(&done).contains(text(&site.path("configured"))), "where a rollback goes: {}", stdout(&done));
    let installed = site.json(&["install", text(&second)]);
    assert!(installed["previous"].as_str().unwrap().starts_with("tiny-1.0.0-"), "{installed}");
    let configured = || line("configured", "0.9.0", false);
    assert_eq!(site.list(), [line("active", "1.1.0", true), line("previous", "1.0.0", false), configured()]);

    let said = site.refused(&["install", text(&first)]);
    assert!(said.contains("1.0.0 is older than 1.1.0"), "{said}");
    assert_eq!(site.json(&["rollback"])["version"], "1.0.0");
    assert_eq!(site.list(), [line("active", "1.0.0", true), line("kept", "1.1.0", false), configured()]);
    assert_eq!(site.json(&["rollback"])["version"], "0.9.0");
    assert!(site.list().last().unwrap().2, "the configured one again");
    assert!(site.refused(&["rollback"]).contains("nothing to roll back"));
    site.json(&["install", text(&first), "--allow-downgrade"]);
    assert_eq!(site.list()[0], line("active", "1.0.0", true));
}

#[test]
fn a_bad_bundle_ends_with_78_and_the_reason() {
    let site = Site::new();
    let source = site.bundle("1.0.0");
    flip(&source.join("model.onnx"));
    for verb in ["verify", "install"] {
        assert!(site.refused(&[verb, text(&source)]).contains("model.onnx"));
    }
    assert!(site.refused(&["verify", text(&site.path("nowhere"))]).contains("nowhere"));
    // Without the maker's key: with the configuration's keys, or with the one that was given.
    let good = site.bundle("1.1.0");
    let verify = |key: Option<&str>| -> Output {
        let mut command = roentgend();
        output(command.args(["bundle", "verify", text(&good)]).args(key.iter().flat_map(|key| ["--key", key])))
    };
    let stranger = verify(None);
    assert_eq!(stranger.status.code(), Some(78));
    assert!(stderr(&stranger).contains("bundles.trusted_keys does not list"), "{}", stderr(&stranger));
    assert_eq!(verify(Some(&site.maker.key())).status.code(), Some(0));
}

#[test]
fn whatever_the_umask_the_daemon_can_read_what_was_installed() {
    let site = Site::new();
    fs::create_dir(site.path("state")).unwrap();
    let bundles = site.path("state/bundles");
    let mut modes = BTreeMap::new();
    for (version, closed) in [("1.0.0", false), ("1.1.0", true)] {
        let source = site.bundle(version);
        let mut install = Command::new("sh");
        install.args(["-c", "umask 077 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_roentgend"), "bundle", "install"]);
        install.arg(source).arg("--config").arg(site.path("roentgen.toml"));
        if closed {
            // As an installation of before left it.
            fs::set_permissions(&bundles, fs::Permissions::from_mode(0o700)).unwrap();
            fs::set_permissions(bundles.join("installed.json"), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let done = output(&mut install);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        modes.clear();
        walk(&bundles, &mut modes);
        assert!(modes.len() > 8, "{modes:?}");
        for (path, mode) in &modes {
            let expected = if path.is_dir() { 0o755 } else { 0o644 };
            assert_eq!(mode & 0o777, expected, "{}: {mode:o}", path.display());
        }
    }
}

/// The mode of a folder and of all below it.
fn walk(path: &Path, modes: &mut BTreeMap<PathBuf, u32>) {
    modes.insert(path.to_owned(), fs::symlink_metadata(path).unwrap().permissions().mode());
    if path.is_dir() {
        names(path).iter().for_each(|name| walk(&path.join(name), modes));
    }
}

#[test]
fn a_bundle_without_gates_is_called_so_and_one_with_them_is_not() {
    let site = Site::new();
    let (without, with) = (site.bundle("1.0.0"), site.path("with"));
    let gated = gated_bundle(&site.path("made"));
    site.maker.write(BundleWriter::of(&gated).unwrap(), &with);
    let complains = |text: &str| text.contains("no gates of abstention");
    for (path, gates) in [(&without, false), (&with, true)] {
        let verified = output(&mut site.command(&["verify", text(path)]));
        assert_eq!((verified.status.code(), complains(&stderr(&verified))), (Some(0), !gates), "{}", stderr(&verified));
        assert!(stdout(&verified).contains("the signature says \""), "{}", stdout(&verified));
        let line = site.json(&["verify", text(path)]);
        assert!(line["gates"] == gates && line["signed_comment"].is_string(), "{line}");
    }
    // Unsigned to begin with, and of version 0.0.1.
    let installed = output(&mut site.command(&["install", text(&with)]));
    assert!(installed.status.success() && !complains(&stderr(&installed)), "{}", stderr(&installed));
    let installed = output(&mut site.command(&["install", text(&without)]));
    assert!(installed.status.success() && complains(&stderr(&installed)), "{}", stderr(&installed));
    let listed = stdout(&output(&mut site.command(&["list"])));
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].contains("1.0.0") && lines[0].contains("NO GATES") && !lines[1].contains("NO GATES"), "{listed}");
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_bundle_or_the_new_one() {
    let site = Site::new();
    let (old, new) = (site.bundle("1.0.0"), site.bundle("1.1.0"));
    site.json(&["install", text(&old)]);
    let (mut killed, mut finished) = (0, 0);
    // From no time at all to longer than it takes.
    let mut wait = Duration::from_micros(200);
    while finished < 3 && killed < 60 {
        let mut command = site.command(&["install", text(&new), "--allow-downgrade"]);
        let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        std::thread::sleep(wait);
        process.signal("KILL");
        match process.wait().code() {
            None => killed += 1,
            Some(code) => {
                assert_eq!(code, 0);
                finished += 1;
            }
        }
        wait = wait.mul_f64(1.25);
        let found = site.list();
        let (_, version, _) = found.iter().find(|(state, ..)| state == "active").expect("one is active");
        assert!(["1.0.0", "1.1.0"].contains(&version.as_str()), "{found:?}");
        if version == "1.1.0" {
            assert_eq!(site.json(&["rollback"])["version"], "1.0.0");
        }
    }
    assert!(killed > 0 && finished > 0, "{killed} killed, {finished} finished");
}

#[test]
fn a_box_whose_bundle_goes_bad_reports_on_with_the_one_before_and_says_so() {
    let Some(place) = Place::new() else { return };
    let maker = Maker::new();
    fs::rename(maker.bundle(&place.path("made"), "0.9.0"), place.path("configured")).unwrap();
    place.configure(&place.path("configured"), &format!("trusted_keys = [{:?}]", maker.key()));
    let bundle = |arguments: &[&str]| {
        let mut command = roentgend();
        output(command.arg("bundle").args(arguments).arg("--config").arg(place.path("roentgend.toml")))
    };
    for version in ["1.0.0", "1.1.0"] {
        let done = bundle(&["install", text(&maker.bundle(&place.path("made"), version))]);
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    }
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    let mut image = 0;
    // Starts the daemon, has it report one image, and returns its status and the version that the report names.
    let mut day = || {
        let mut daemon = place.daemon();
        received.wait_for_status("online");
        let status = received.last_status().unwrap();
        image += 1;
        place.drop_file(&format!("{image}.png"), &png(image));
        let hash = sha256_hex(&png(image));
        let report = || received.reports().into_iter().find(|report| report.origin.content_sha256 == hash);
        wait_for("the report", || report().is_some());
        daemon.signal("TERM");
        assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
        received.wait_for_status("offline");
        (status, report().unwrap().model.version)
    };
    let (status, version) = day();
    assert_eq!((version.as_str(), &status["model"]["version"]), ("1.1.0", &"1.1.0".into()));
    assert_eq!(status.get("bundle_fallback"), None);

    // What is refused changes nothing for the box.
    let bad = maker.bundle(&place.path("made"), "1.2.0");
    flip(&bad.join("model.onnx"));
    assert_eq!(bundle(&["install", text(&bad)]).status.code(), Some(78));
    assert_eq!(day().1, "1.1.0");

    // The active one goes bad; then the one before as well.
    let folders = |version: &str| {
        let name = names(&place.path("state/bundles")).into_iter().find(|name| name.contains(version)).unwrap();
        place.path("state/bundles").join(name)
    };
    let newest = folders("1.1.0");
    flip(&newest.join("model.onnx"));
    let (status, version) = day();
    assert_eq!((version.as_str(), &status["model"]["version"]), ("1.0.0", &"1.0.0".into()));
    assert_eq!(status["bundle_fallback"]["wanted"], newest.file_name().unwrap().to_str().unwrap());
    assert!(status["bundle_fallback"]["reason"].as_str().unwrap().contains("model.onnx"), "{status}");
    assert!(place.log().contains("falling back"), "{}", place.log());
    let doctor = output(roentgend().args(["doctor", "--config"]).arg(place.path("roentgend.toml")));
    let said = stdout(&doctor);
    let line = said.lines().find(|line| line[6..].starts_with("bundle")).unwrap();
    assert!(line.starts_with("warn") && said.contains("instead tiny 1.0.0"), "{said}");

    fs::remove_file(folders("1.0.0").join("bundle.sig")).unwrap();
    let (status, version) = day();
    assert_eq!(version, "0.9.0", "the configured one");
    assert_eq!(status["bundle_fallback"]["wanted"], newest.file_name().unwrap().to_str().unwrap());

    // Not even the record can be read: the configured one still can.
    fs::write(place.path("state/bundles/installed.json"), "{").unwrap();
    let (status, version) = day();
    assert_eq!(version, "0.9.0");
    assert!(status["bundle_fallback"]["reason"].as_str().unwrap().contains("installed.json"), "{status}");

    // And where nothing is good, the daemon does not start, and does not ask to be started again.
    fs::remove_dir_all(place.path("configured")).unwrap();
    assert_eq!(place.daemon().wait().code(), Some(78), "{}", place.log());
}
