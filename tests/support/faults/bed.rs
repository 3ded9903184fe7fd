//! The bed on which a scenario plays: a folder with bundle, configuration and drop folder, a broker that keeps its sessions,
//! the line to it, the witness, the clinic and the box. Decides no fault itself; at the end it asks for the verdict.

use super::clinic::Clinic;
use super::mount::Mount;
use super::proxy::{Line, Proxy};
use super::verdict::{self, Model};
use super::witness::{Heard, Witness};
use super::{mixed, seed};
use crate::common::Random;
use crate::support::{
    PATIENCE, Process, free_port, mosquitto, names, output, roentgend, start_mosquitto, stdout, tiny_bundle, user,
    wait_for,
};
use roentgen::bundle::sha256_hex;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What the daemon says goes into this file of the bed's folder.
const DAEMON_LOG: &str = "daemon.log";

/// How long nothing may move before it counts as lost: longer than the box waits before it tries the broker again.
const STANDSTILL: Duration = Duration::from_secs(60);

/// The bed. Its parts end in the order in which they stand here.
pub(crate) struct Bed {
    name: &'static str,
    seed: u64,
    /// The scenario's dice.
    pub(crate) random: Random,
    daemon: Option<Process>,
    broker: Option<Process>,
    clinic: Option<Clinic>,
    /// The line from the box to the broker.
    pub(crate) proxy: Proxy,
    witness: Witness,
    mosquitto: PathBuf,
    broker_port: u16,
    model: Model,
    environment: Vec<(&'static str, String)>,
    mounts: Vec<Mount>,
    began: Instant,
    /// How often the daemon was started and killed.
    starts: usize,
    kills: usize,
    root: tempfile::TempDir,
}

impl Bed {
    /// Everything but the box is running; `None` where mosquitto is missing.
    pub(crate) fn new(name: &'static str) -> Option<Self> {
        let mosquitto = mosquitto()?;
        let seed = seed();
        let mut random = Random::new(mixed(seed, name));
        let root = tempfile::tempdir().unwrap();
        let bundle = tiny_bundle(root.path());
        let bundle_sha256 = sha256_hex(&fs::read(bundle.join("bundle.toml")).unwrap());
        for folder in ["broker", "state", "incoming", "done", "rejected"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let broker_port = free_port();
        // No bound on what is under way, so that the broker writes a report to the witness's socket before it acknowledges
        // it to the box: then a kill of the broker loses nothing that it has acknowledged.
        let broker = format!(
            "listener {broker_port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {}/\n\
             user {}\nmax_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n",
            root.path().join("broker").display(),
            user()
        );
        fs::write(root.path().join("mosquitto.conf"), broker).unwrap();
        let running = start_mosquitto(&mosquitto, &root.path().join("mosquitto.conf"), broker_port);
        let witness = Witness::listen(broker_port, "roentgen/box-t/report");
        // Now the session is on the disk, subscription and all, and outlives the broker however that ends.
        running.signal("USR1");
        wait_for("mosquitto to save its sessions", || root.path().join("broker/mosquitto.db").is_file());
        let proxy = Proxy::to(broker_port, Line::Through, Random::new(random.next()));
        let config = format!(
            "device = \"box-t\"\nbundle = {bundle:?}\nstate_dir = {:?}\n[engine]\nthreads = 1\n\
             [bundles]\nallow_unsigned = true\n[reserve]\nmin_free_bytes = 0\n\
             [source.folder]\nincoming = {:?}\nsettle_ms = 400\npoll_ms = 100\n\
             [mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nkeep_alive_s = 5\n",
            root.path().join("state"),
            root.path().join("incoming"),
            proxy.port
        );
        fs::write(root.path().join("roentgend.toml"), config).unwrap();
        Some(Self {
            name,
            seed,
            random,
            daemon: None,
            broker: Some(running),
            clinic: None,
            proxy,
            witness,
            mosquitto,
            broker_port,
            model: Model { bundle_sha256, preprocessing: "preprocess/1", forgets: false },
            environment: Vec::new(),
            mounts: Vec::new(),
            began: Instant::now(),
            starts: 0,
            kills: 0,
            root,
        })
    }

    /// A path in the bed's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What the daemon said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path(DAEMON_LOG)).unwrap_or_default()
    }

    /// The box may forget that it has sent a report, and judge its image again.
    pub(crate) fn forget_what_was_sent(&mut self) {
        self.model.forgets = true;
    }

    // The clinic.

    /// Opens the clinic, which drops files into this folder, up to `pause` milliseconds apart.
    pub(crate) fn open_clinic(&mut self, folder: &str, is_careful: bool, pause: usize) {
        let dice = Random::new(self.random.next());
        self.clinic = Some(Clinic::open(self.path(folder), is_careful, pause, dice));
    }

    /// Waits until the clinic has dropped so many more files, or drops no more since the box takes none.
    pub(crate) fn wait_for_files(&self, more: usize) {
        let clinic = self.clinic.as_ref().expect("an open clinic");
        let enough = clinic.dropped() + more;
        wait_for("the clinic", || clinic.dropped() >= enough || clinic.is_crowded());
    }

    /// Waits until so many more reports have come.
    pub(crate) fn wait_for_reports(&self, more: usize) {
        let enough = self.witness.different() + more;
        wait_for("reports", || self.witness.different() >= enough);
    }

    /// How many different reports have come.
    pub(crate) fn reports(&self) -> usize {
        self.witness.different()
    }

    /// Lets time pass, up to so many milliseconds.
    pub(crate) fn pass(&mut self, most: usize) {
        thread::sleep(Duration::from_millis(self.random.below(most + 1) as u64));
    }

    // The box.

    /// Sets a variable of the daemon's environment.
    pub(crate) fn set_environment(&mut self, name: &'static str, value: &str) {
        self.environment.push((name, value.to_owned()));
    }

    /// Starts the daemon, and does not wait until it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "one box, one daemon");
        let log = File::options().create(true).append(true).open(self.path(DAEMON_LOG)).unwrap();
        let mut command = roentgend();
        if let Some(program) = env::var_os("ROENTGEN_FAULTS_PROGRAM") {
            command = Command::new(program);
            command.stdin(Stdio::null()).env_remove("JOURNAL_STREAM").env_remove("NOTIFY_SOCKET");
        }
        command.args(["run", "--config"]).arg(self.path("roentgend.toml")).stderr(log);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.daemon = Some(Process::spawn(&mut command));
        self.starts += 1;
    }

    /// The daemon's process, which has not ended by itself.
    pub(crate) fn daemon(&mut self) -> &mut Process {
        let daemon = self.daemon.as_mut().expect("a started daemon");
        let ended = daemon.0.try_wait().expect("a child of ours");
        assert_eq!(ended, None, "the daemon has stopped by itself");
        daemon
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.daemon().signal("KILL");
        let mut daemon = self.daemon.take().expect("running");
        daemon.wait();
        self.kills += 1;
        // What libfaketime takes away itself from a process that ends otherwise.
        for kind in ["faketime_shm", "sem.faketime_sem"] {
            let _ = fs::remove_file(format!("/dev/shm/{kind}_{}", daemon.0.id()));
        }
    }

    /// What `roentgend status` says.
    pub(crate) fn status(&self) -> String {
        stdout(&output(roentgend().args(["status", "--config"]).arg(self.path("roentgend.toml"))))
    }

    /// SIGTERM, and a graceful end.
    pub(crate) fn stop(&mut self) {
        self.daemon().signal("TERM");
        assert_eq!(self.daemon.take().expect("running").wait().code(), Some(0), "a graceful end");
    }

    // The broker.

    /// Whether it runs.
    pub(crate) fn has_broker(&self) -> bool {
        self.broker.is_some()
    }

    /// Sends it a signal, such as STOP.
    pub(crate) fn signal_broker(&self, name: &str) {
        self.broker.as_ref().expect("a running broker").signal(name);
    }

    /// Ends it by a signal.
    pub(crate) fn end_broker(&mut self, signal: &str) {
        self.signal_broker(signal);
        self.broker.take().expect("running").wait();
        self.proxy.set(Line::Down);
    }

    /// Starts it again. The witness is back before the box: what a broker has for somebody who is away, it loses in a kill.
    pub(crate) fn restart_broker(&mut self) {
        let before = self.witness.subscriptions();
        self.broker = Some(start_mosquitto(&self.mosquitto, &self.path("mosquitto.conf"), self.broker_port));
        self.witness.wait_for_subscription(before);
        self.proxy.set(Line::Through);
    }

    // File systems.

    /// Mounts a small file system in memory there; false, said plainly, where that is not allowed.
    pub(crate) fn mount_memory(&mut self, folder: &str, mebibytes: usize) -> bool {
        let mount = Mount::memory(&self.path(folder), mebibytes);
        let is_mounted = mount.is_some();
        self.mounts.extend(mount);
        is_mounted
    }

    /// Mounts a folder over another one; false, said plainly, where that is not allowed.
    pub(crate) fn mount_folder(&mut self, behind: &str, folder: &str) -> bool {
        let mount = Mount::of_folder(&self.path(behind), &self.path(folder));
        let is_mounted = mount.is_some();
        self.mounts.extend(mount);
        is_mounted
    }

    /// Gives a folder a disk of its own, which can fail; false, said plainly, where that is not allowed.
    pub(crate) fn mount_disk(&mut self, folder: &str, mebibytes: u64) -> bool {
        // What shows while it is unplugged: no place to write to either.
        let behind = format!("{folder}-behind");
        fs::create_dir(self.path(&behind)).unwrap();
        if !self.mount_folder(&behind, folder) {
            return false;
        }
        self.set_read_only(folder, true);
        let mount = Mount::disk(&self.path(&format!("{folder}.img")), &self.path(folder), mebibytes);
        let is_mounted = mount.is_some();
        self.mounts.extend(mount);
        is_mounted
    }

    /// The disk of a folder fails, and can only be read from now on. The daemon is halted for the moment of it: an fsync that
    /// falls into ext4's own abort succeeds and keeps nothing, against which no program can do anything, and which a disk
    /// that fails does not do.
    pub(crate) fn fail_disk(&mut self, folder: &str) {
        let path = self.path(folder);
        let daemon = self.daemon();
        let tasks = format!("/proc/{}/task", daemon.0.id());
        daemon.signal("STOP");
        wait_for("every thread of the daemon to halt", || {
            let threads = fs::read_dir(&tasks).expect("a running daemon").flatten();
            threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok()).all(|stat| {
                // The state follows the name, which is in brackets.
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            })
        });
        self.mounts.iter().find(|mount| mount.folder() == path).expect("mounted").fail();
        self.daemon().signal("CONT");
    }

    /// A technician mends the disk of a folder, which nobody uses, and plugs it in again.
    pub(crate) fn mend_disk(&mut self, folder: &str) {
        let path = self.path(folder);
        // The last that was mounted there.
        drop(self.mounts.iter().rposition(|mount| mount.folder() == path).map(|at| self.mounts.remove(at)));
        let mount = Mount::again(&self.path(&format!("{folder}.img")), &self.path(folder));
        self.mounts.extend(Some(mount.expect("it was mounted before")));
    }

    /// Unmounts it, whoever is using it.
    pub(crate) fn unmount(&mut self, folder: &str) {
        let path = self.path(folder);
        self.mounts.retain(|mount| mount.folder() != path);
    }

    /// Makes a mount read-only, or writable again.
    pub(crate) fn set_read_only(&self, folder: &str, read_only: bool) {
        let path = self.path(folder);
        self.mounts.iter().find(|mount| mount.folder() == path).expect("mounted").set_read_only(read_only);
    }

    /// Fills the file system of a folder to the last byte; deleting the file makes room again.
    pub(crate) fn fill(&self, folder: &str) -> PathBuf {
        let ballast = self.path(folder).join(".ballast");
        let filled = fs::write(&ballast, vec![0; 64 << 20]);
        assert!(filled.is_err(), "64 MiB fit in there");
        ballast
    }

    // The end.

    /// All is well again: waits until everything that was dropped is settled and reported, stops the daemon, and asks for
    /// the verdict. Gives what the witness heard.
    pub(crate) fn finish(mut self) -> Vec<Heard> {
        let dropped = self.clinic.take().map(Clinic::close).unwrap_or_default();
        if !self.has_broker() {
            self.restart_broker();
        }
        self.proxy.set(Line::Through);
        if self.daemon.is_none() {
            self.start();
        }
        let expected = self.model.expected(&dropped).len();
        self.wait_until_still(expected);
        self.stop();
        let heard = self.witness.heard();
        let (counts, wrong) = verdict::examine(self.root.path(), &dropped, &heard, &self.model);
        let line = format!(
            "{}: {} files, {} reports, {} repeats of them, {} rejected, {} starts, {} kills -9, {:.1} s",
            self.name,
            dropped.len(),
            counts.reports,
            counts.repeats,
            counts.rejected,
            self.starts,
            self.kills,
            self.began.elapsed().as_secs_f64()
        );
        println!("{line}");
        assert!(!dropped.is_empty(), "the clinic dropped nothing");
        assert!(wrong.is_empty(), "{line}\n{}", wrong.join("\n"));
        assert!(!self.log().contains("panicked"), "a thread of the daemon panicked");
        heard
    }

    /// Waits until `incoming/` is empty and so many different reports came, or nothing has moved for long.
    fn wait_until_still(&mut self, reports: usize) {
        let mut last = (usize::MAX, 0);
        let mut since = Instant::now();
        loop {
            let now = (names(&self.path("incoming")).len(), self.witness.different());
            if now.0 == 0 && now.1 >= reports || since.elapsed() > STANDSTILL.max(PATIENCE) {
                return;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            self.daemon();
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        // It does not outlive its drop folder.
        if let Some(clinic) = &self.clinic {
            clinic.abandon();
        }
        let Self { name, seed, .. } = self;
        eprintln!("{name}: ROENTGEN_FAULTS_SEED={seed} throws the same dice again");
        for folder in ["incoming", "done", "rejected", "state"] {
            let names = names(&self.path(folder));
            eprintln!("{folder}/: {} entries, the first: {:?}", names.len(), &names[..names.len().min(5)]);
        }
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        eprintln!("the end of the daemon's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        if env::var_os("ROENTGEN_FAULTS_KEEP").is_some() {
            self.root.disable_cleanup(true);
            eprintln!("kept: {}", Path::new(self.root.path()).display());
        }
    }
}
