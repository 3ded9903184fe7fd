//! The accelerator's process as the daemon sees it: started with its job, asked, timed, ended. One that hangs is killed, and
//! the kernel takes the device from it. Not what runs the network meanwhile: see [`super::guard`].

use super::config::Config;
use super::wire::{self, Answer, Job, MAX_TEXT};
use super::worker::length;
use crate::bundle::{Bundle, BundleError};
use crate::process::{self, Bounds, Program, Running};
use crate::tensor::Tensor;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a process that has closed its socket may take to end, to say how it did.
const ENDING: Duration = Duration::from_millis(300);

/// How long a killed process is waited for. One that the kernel holds is left to it.
const KILLING: Duration = Duration::from_millis(300);

/// What an accelerator is started with, again and again.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program that calls [`super::serve`].
    pub program: Program,
    /// The bundle whose network it runs.
    pub bundle: Arc<Bundle>,
    /// The section of the configuration.
    pub config: Config,
    /// Threads of what the delegate leaves to the processor.
    pub threads: usize,
}

/// Why an accelerator does not work.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A library is not there.
    #[error("{0}; install it, or name it in [accelerator]")]
    Missing(String),
    /// The bundle has no model for it.
    #[error(
        "the bundle has no {0}; its maker makes it with edgetpu_compiler and adds it with `roentgen-host pack --edgetpu`"
    )]
    NoModel(&'static str),
    /// The bundle's model cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The system gives no process.
    #[error("its process cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It has said so itself.
    #[error("{0}")]
    Failed(String),
    /// Its process has ended.
    #[error("its process ended by itself with {0}")]
    Ended(String),
    /// It has not answered.
    #[error("{what} took longer than {seconds} s")]
    Timeout {
        /// What it was doing.
        what: &'static str,
        /// The limit.
        seconds: f64,
    },
    /// It does not keep to the protocol.
    #[error("its process answers nonsense")]
    Nonsense,
}

/// A process with libraries, device and model. Dropping it ends the process.
pub struct Accelerator {
    child: Running,
    stream: UnixStream,
    heard: Vec<u8>,
    /// Why the job could not be handed over.
    unsent: Arc<Mutex<Option<BundleError>>>,
    settings: Settings,
    /// Until when it must be ready.
    until: Instant,
    ready: Option<Ready>,
}

/// What is known of one that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Delegate and TFLite's version.
    pub kernel: String,
    /// The greatest difference from the golden outputs, in quantization steps.
    pub largest_difference: u8,
    /// When it was.
    since: Instant,
}

impl Accelerator {
    /// Starts it. It loads while the caller does something else: [`Accelerator::poll`]. To be called by a thread that lives
    /// as long as the process is to, since it ends with that.
    pub fn start(settings: &Settings) -> Result<Self, Trouble> {
        let Settings { program, bundle, config, threads } = settings;
        let libraries = config.find().map_err(Trouble::Missing)?;
        let manifest = bundle.manifest();
        if !manifest.files.contains_key(config.model()) {
            return Err(Trouble::NoModel(config.model()));
        }
        let job = Job {
            library: libraries.library,
            delegate: libraries.delegate,
            options: config.options.clone(),
            threads: *threads,
            tolerance: config.tolerance,
            size: manifest.input.rows,
            outputs: manifest.outputs.clone(),
            golden: 0,
        };
        let (stream, theirs) = UnixStream::pair()?;
        // A process that reads no more is not waited for longer than it has.
        stream.set_write_timeout(Some(config.start()))?;
        let child = program.start(Stdio::from(OwnedFd::from(theirs)), Stdio::null(), Bounds::NONE)?;
        let child = child.reaped_within(KILLING);
        let unsent = Arc::default();
        let until = Instant::now() + config.start();
        let made = Self {
            child,
            stream,
            heard: Vec::new(),
            unsent: Arc::clone(&unsent),
            settings: settings.clone(),
            until,
            ready: None,
        };
        let mut sender = made.stream.try_clone()?;
        let bundle = Arc::clone(bundle);
        let model = config.model();
        // Megabytes, which the process reads when it has started: nobody waits for that.
        std::thread::Builder::new().name("accelerator".into()).spawn(move || {
            if let Err(error) = hand_over(&mut sender, &bundle, model, job) {
                *unsent.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // Both ends see that no more comes.
                let _ = sender.shutdown(Shutdown::Both);
            }
        })?;
        Ok(made)
    }

    /// Whether it is ready by now, or will be until then. An error is its end.
    pub fn poll(&mut self, until: Instant) -> Result<bool, Trouble> {
        if self.ready.is_some() {
            return Ok(true);
        }
        match self.answer(until.min(self.until))? {
            Some(Answer::Ready { version, largest_difference }) => {
                let kernel = format!("{}, TFLite {version}", self.settings.config.file_name());
                self.stream.set_write_timeout(Some(self.settings.config.timeout()))?;
                self.ready = Some(Ready { kernel, largest_difference, since: Instant::now() });
                Ok(true)
            }
            Some(Answer::Failed(reason)) => Err(Trouble::Failed(reason)),
            Some(Answer::Done) => Err(Trouble::Nonsense),
            None if Instant::now() >= self.until => {
                Err(Trouble::Timeout { what: "its start", seconds: self.settings.config.start().as_secs_f64() })
            }
            None => Ok(false),
        }
    }

    /// What is known of it, once it is ready.
    pub fn ready(&self) -> Option<&Ready> {
        self.ready.as_ref()
    }

    /// For how long it has been ready.
    pub fn uptime(&self) -> Duration {
        self.ready.as_ref().map_or(Duration::ZERO, |ready| ready.since.elapsed())
    }

    /// Whether its process has ended, which it never does unasked.
    pub fn check(&mut self) -> Result<(), Trouble> {
        match self.child.ended()? {
            Some(status) => Err(Trouble::Ended(process::described(Some(status)))),
            None => Ok(()),
        }
    }

    /// Runs the network on one image of the bundle's size: the quantized evidence map and features, NHWC. An error is its
    /// end. Takes no longer than the configuration says.
    pub fn run(&mut self, image: &Tensor<u8>) -> Result<(Tensor<u8>, Tensor<u8>), Trouble> {
        let timeout = self.settings.config.timeout();
        let until = Instant::now() + timeout;
        if let Err(error) = wire::send(&mut self.stream, image.data()) {
            let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            return Err(if timed_out { overdue(timeout) } else { self.gone() });
        }
        match self.answer(until)? {
            Some(Answer::Done) => {}
            Some(Answer::Failed(reason)) => return Err(Trouble::Failed(reason)),
            Some(Answer::Ready { .. }) => return Err(Trouble::Nonsense),
            None => return Err(overdue(timeout)),
        }
        let outputs = self.settings.bundle.manifest().outputs.clone();
        let mut output = |output: &crate::bundle::Output| {
            let bytes = self.frame(until, length(output))?.ok_or_else(|| overdue(timeout))?;
            Tensor::new([1, output.rows, output.columns, output.channels], bytes).ok_or(Trouble::Nonsense)
        };
        Ok((output(&outputs.evidence)?, output(&outputs.features)?))
    }

    fn answer(&mut self, until: Instant) -> Result<Option<Answer>, Trouble> {
        let Some(frame) = self.frame(until, MAX_TEXT)? else { return Ok(None) };
        serde_json::from_slice(&frame).map(Some).map_err(|_| Trouble::Nonsense)
    }

    /// The next frame; `None` where it is not there until then.
    fn frame(&mut self, until: Instant, most: usize) -> Result<Option<Vec<u8>>, Trouble> {
        let mut chunk = [0; 16 << 10];
        let mut has_looked = false;
        loop {
            if let Some(frame) = wire::take(&mut self.heard, most).map_err(|()| Trouble::Nonsense)? {
                return Ok(Some(frame));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && has_looked {
                return Ok(None);
            }
            has_looked = true;
            // A time limit of zero would be none.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.gone()),
                Ok(count) => self.heard.extend(&chunk[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(self.gone()),
            }
        }
    }

    /// Why the connection is closed.
    fn gone(&mut self) -> Trouble {
        if let Some(error) = self.unsent.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return error.into();
        }
        Trouble::Ended(process::described(self.child.wait(Instant::now() + ENDING)))
    }
}

fn overdue(timeout: Duration) -> Trouble {
    Trouble::Timeout { what: "an inference", seconds: timeout.as_secs_f64() }
}

/// Sends the job. That it cannot be sent is seen at the other end of the socket; an error is the bundle's.
fn hand_over(stream: &mut UnixStream, bundle: &Bundle, model: &str, job: Job) -> Result<(), BundleError> {
    let (model, golden) = (bundle.read(model)?, bundle.golden()?);
    let send = || -> io::Result<()> {
        wire::say(stream, &Job { golden: golden.len(), ..job })?;
        wire::send(stream, &model)?;
        for vector in &golden {
            for tensor in [&vector.image, &vector.evidence, &vector.features] {
                wire::send(stream, tensor.data())?;
            }
        }
        Ok(())
    };
    // Killed meanwhile, or ended: who waits for it has been told.
    let _ = send();
    Ok(())
}
