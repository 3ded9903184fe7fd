//! What the tests of the real program share: a tiny model bundle, phantoms as PNG, a child process that never outlives its
//! test, a daemon with its broker. Not a test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

pub(crate) mod authority;
pub(crate) mod daemon;
pub(crate) mod gated;
pub(crate) mod payloads;
pub(crate) mod store;
pub(crate) mod tiny;

#[allow(unused_imports, reason = "every test file uses its own part of this")]
pub(crate) use tiny::{png, tiny_bundle, tiny_writer};

use roentgen::bundle::{Bundle, BundleWriter, add_signature};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

/// How long anything may take on a loaded machine; a test that passes does not wait for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody who makes bundles and signs them.
pub(crate) struct Maker(minisign::KeyPair);

impl Maker {
    pub(crate) fn new() -> Self {
        Self(minisign::KeyPair::generate_unencrypted_keypair().expect("randomness"))
    }

    /// The public key as configurations name it.
    pub(crate) fn key(&self) -> String {
        self.0.pk.to_base64()
    }

    /// The tiny bundle in this version, signed, in a folder of that name.
    pub(crate) fn bundle(&self, folder: &Path, version: &str) -> PathBuf {
        let directory = folder.join(version);
        self.write(tiny_writer(version), &directory);
        directory
    }

    /// Writes a bundle and signs it.
    pub(crate) fn write(&self, writer: BundleWriter, directory: &Path) {
        writer.write(directory).expect("a bundle");
        self.sign(directory);
    }

    /// Signs a bundle in its place.
    pub(crate) fn sign(&self, directory: &Path) {
        let bundle = Bundle::open(directory).expect("a bundle");
        let signature = minisign::sign(None, &self.0.sk, bundle.signed_bytes(), None, None).expect("a key");
        add_signature(&bundle, &signature.into_string(), directory).expect("writable");
    }
}

/// The real program.
pub(crate) fn roentgend() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roentgend"));
    command.stdin(Stdio::null()).env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
    command
}

/// Runs it to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command.output().expect("roentgend runs")
}

/// Its standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Its standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A child process that is killed when the test is over.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().expect("kill");
        assert!(sent.success(), "kill -{name} {id}");
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the process to end", || {
            status = self.0.try_wait().expect("a child of ours");
            status.is_some()
        });
        status.expect("waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until the answer is yes.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The names in a folder, sorted; none where there is no folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("listed").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A loopback port that was free a moment ago, and that nobody else here was given.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    let bound = || std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let port = bound().expect("loopback").port();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

/// mosquitto's program; `None` where it is missing, which CI does not forgive.
pub(crate) fn mosquitto() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join("mosquitto"))
        .find(|program| program.is_file());
    if found.is_none() {
        let required = ["CI", "ROENTGEN_REQUIRE_PEERS"].iter().any(|name| env::var_os(name).is_some());
        assert!(!required, "mosquitto is missing: install the package mosquitto");
        eprintln!("SKIPPED: mosquitto is missing; install the package mosquitto to run this test");
    }
    found
}

/// Starts mosquitto on a configuration that listens on `port`, and waits until it does.
pub(crate) fn start_mosquitto(program: &Path, config: &Path, port: u16) -> Process {
    let mut command = Command::new(program);
    command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
    let broker = Process::spawn(&mut command);
    wait_for("mosquitto to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    broker
}

/// The name of the user who runs the tests: mosquitto, started by root, would become another one.
pub(crate) fn user() -> String {
    let id = Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(id.stdout).expect("UTF-8").trim().to_owned()
}
