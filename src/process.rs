//! Child processes of this program: how they are started, ended, and what they may not do. Not what they are for.

#![allow(unsafe_code)] // Calls into the C library: prlimit, prctl and waitpid.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// This very program, even where a package has meanwhile put another one in its place.
const THIS: &str = "/proc/self/exe";

/// How long a killed child may take to be gone. One that the kernel holds (a network folder that does not answer) takes
/// longer; it is left to the system then.
const REAPING: Duration = Duration::from_secs(2);

/// Children that were killed and were not gone by then. Nobody else waits for them: their numbers are nobody else's.
static LINGERING: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

/// A program and its arguments.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

impl Program {
    /// This very program with other arguments.
    pub fn this<I: Into<OsString>>(arguments: impl IntoIterator<Item = I>) -> Self {
        Self::new(Path::new(THIS), arguments)
    }

    /// Any program.
    pub fn new<I: Into<OsString>>(path: &Path, arguments: impl IntoIterator<Item = I>) -> Self {
        Self {
            path: path.to_owned(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }

    /// With a variable in its environment, which is for its own user to see; arguments are for all.
    pub fn with_variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Starts it with its bounds in force, no environment but its own, and nowhere to complain to: what a library says
    /// when it panics may quote the file, and so a patient's name.
    pub fn start(&self, input: Stdio, output: Stdio, bounds: Bounds) -> io::Result<Running> {
        reap();
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().cloned()).current_dir("/");
        let child = Running(command.stdin(input).stdout(output).stderr(Stdio::null()).spawn()?, REAPING);
        // Where this fails the child is ended, being dropped.
        child.bound(bounds)?;
        Ok(child)
    }
}

/// What a child may take, whatever it runs, held to from outside. In no case may it leave a core file, which would hold
/// the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of any file that it writes.
    pub file: u64,
}

impl Bounds {
    /// As much as the service may have.
    pub const NONE: Self = Self { memory: libc::RLIM_INFINITY, file: libc::RLIM_INFINITY };
}

/// A child that was started. Dropping it ends it: one that the kernel does not let go at once is left to it, and waited for
/// later, since what is left of it counts as one of the processes that the service may have.
#[derive(Debug)]
pub struct Running(Child, Duration);

impl Running {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// What it prints, where it was started with a pipe for that; once.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits no longer than this for it to be gone, once it is dropped.
    pub fn reaped_within(self, patience: Duration) -> Self {
        let mut running = self;
        running.1 = patience;
        running
    }

    /// How it ended, if it has by now.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// How it ended; `None` when it has not until then.
    pub fn wait(&mut self, until: Instant) -> Option<ExitStatus> {
        loop {
            match self.ended() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    fn bound(&self, Bounds { memory, file }: Bounds) -> io::Result<()> {
        let id = libc::pid_t::try_from(self.id()).map_err(io::Error::other)?;
        let bounds = [(libc::RLIMIT_AS, memory), (libc::RLIMIT_FSIZE, file), (libc::RLIMIT_CORE, 0)];
        // Without a bound of its own it keeps the service's, which it may not raise.
        for (resource, bound) in bounds.into_iter().filter(|(_, bound)| *bound != libc::RLIM_INFINITY) {
            let bound = libc::rlimit { rlim_cur: bound, rlim_max: bound };
            // SAFETY: `bound` outlives the call, which only reads it; a null pointer asks for no old value. `id` is a child
            // that was not waited for, so that it is nobody else.
            if unsafe { libc::prlimit(id, resource, &bound, std::ptr::null_mut()) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// Has this process leave no image of its memory on the disk should it crash: one names patients where it sends results.
pub fn leave_no_core() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `none` outlives the call, which only reads it; a null pointer asks for no old value; 0 is this process.
    let done = unsafe { libc::prlimit(0, libc::RLIMIT_CORE, &none, std::ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Drop for Running {
    fn drop(&mut self) {
        reap();
        // Fails only where it has ended already.
        let _ = self.0.kill();
        self.wait(Instant::now() + self.1);
        if matches!(self.ended(), Ok(None))
            && let Ok(id) = libc::pid_t::try_from(self.id())
        {
            LINGERING.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }
}

/// What a child asks of the system for itself, first of all: to end with its parent, to gain no rights, to outlive the
/// signals that ask the whole service to stop (it ends when its parent has no more use for it), and to be the one whom
/// the kernel ends where memory is short.
pub fn subordinate() -> io::Result<()> {
    for (option, value) in [(libc::PR_SET_PDEATHSIG, libc::SIGKILL), (libc::PR_SET_NO_NEW_PRIVS, 1)] {
        // SAFETY: both options take numbers, the rest of them 0; no memory is touched.
        let done = unsafe {
            libc::prctl(option, value as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong)
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        // A flag that nobody looks at: the signal does nothing.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    // Best effort: without it the kernel chooses by size.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Waits for the killed children that are gone by now.
fn reap() {
    LINGERING.lock().unwrap_or_else(PoisonError::into_inner).retain(|&id| {
        // SAFETY: a null pointer asks for no status; `id` is a child of this process that was not waited for.
        let gone = unsafe { libc::waitpid(id, std::ptr::null_mut(), libc::WNOHANG) };
        gone == 0
    });
}

/// How a child ended, in words.
pub fn described(status: Option<ExitStatus>) -> String {
    match status {
        Some(status) => match (status.signal(), status.code()) {
            (Some(signal), _) => format!("signal {signal}{}", name_of(signal)),
            (None, code) => format!("exit code {}", code.unwrap_or_default()),
        },
        None => "being killed, since it had not ended by itself".into(),
    }
}

fn name_of(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => " (aborted; often: more memory than it may take)",
        libc::SIGSEGV => " (memory fault)",
        libc::SIGBUS => " (bus error)",
        libc::SIGILL => " (illegal instruction)",
        libc::SIGSYS => " (forbidden system call)",
        libc::SIGKILL => " (killed)",
        libc::SIGXFSZ => " (wrote more than it may)",
        _ => "",
    }
}

/// Whether an end by a signal says nothing about what the child was doing: somebody else sent it.
pub fn is_by_another(status: Option<ExitStatus>) -> bool {
    let signal = status.and_then(|status| status.signal());
    signal.is_some_and(|signal| [libc::SIGKILL, SIGTERM, SIGINT, SIGHUP].contains(&signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &Program) -> io::Result<Running> {
        program.start(Stdio::null(), Stdio::null(), Bounds::NONE)
    }

    #[test]
    fn a_child_that_outlived_its_killing_is_waited_for_later() {
        let child = Command::new("/bin/sleep").arg("1").spawn().unwrap();
        let id = libc::pid_t::try_from(child.id()).unwrap();
        LINGERING.lock().unwrap().push(id);
        drop(child);
        reap();
        assert!(LINGERING.lock().unwrap().contains(&id), "it lives");
        let deadline = Instant::now() + Duration::from_secs(60);
        while Path::new(&format!("/proc/{id}")).exists() {
            assert!(Instant::now() < deadline, "it is still listed");
            std::thread::sleep(Duration::from_millis(20));
            // As the start of any other child does.
            start(&Program::new(Path::new("/bin/true"), [""; 0])).unwrap();
        }
        assert!(!LINGERING.lock().unwrap().contains(&id));
    }
}
