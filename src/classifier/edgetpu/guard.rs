//! An accelerator and the processor beside it: every image is judged, by the accelerator where it works and else by the
//! processor, in the same turn. One that failed is started again after a pause, behind the images' back.

use super::accelerator::{Accelerator, Settings, Trouble};
use crate::bundle::Fallback;
use crate::classifier::loaded::Loaded;
use crate::classifier::{Classifier, ClassifyError, Evidence, Running};
use crate::tensor::Tensor;
use std::time::{Duration, Instant};

/// The longest pause before it is tried again.
const LONGEST: Duration = Duration::from_secs(600);

/// One that has worked for so long makes the next pause short again.
const STABLE: Duration = Duration::from_secs(600);

/// How long one look at a starting process waits.
const LOOK: Duration = Duration::from_millis(100);

/// The accelerator, and what judges where it does not.
pub struct Guarded {
    settings: Settings,
    cpu: Loaded,
    state: State,
    /// The next pause.
    pause: Duration,
    /// Why the accelerator does not judge.
    fallback: Option<Fallback>,
    /// What made the last evidence.
    made_by: &'static str,
}

enum State {
    /// It loads.
    Starting(Accelerator),
    /// It judges.
    Ready(Accelerator),
    /// It has failed; when it is tried again.
    Away(Instant),
}

impl Guarded {
    /// With an accelerator that is started at the first turn: for one that is to take the place of another, which has the
    /// device until then.
    pub fn later(settings: Settings, cpu: Loaded) -> Self {
        let (pause, made_by) = (settings.config.retry(), settings.config.name());
        Self { settings, cpu, state: State::Away(Instant::now()), pause, fallback: None, made_by }
    }

    /// Starts the accelerator and waits until it is ready or has failed, which is no error: `cpu` judges then. `beat` is
    /// called while it waits.
    pub fn start(settings: Settings, cpu: Loaded, beat: &mut dyn FnMut()) -> Self {
        let mut guarded = Self::later(settings, cpu);
        guarded.begin();
        while let State::Starting(_) = guarded.state {
            beat();
            guarded.look(Instant::now() + LOOK);
        }
        guarded
    }

    /// What judges where the accelerator does not.
    pub fn cpu(&mut self) -> &mut Loaded {
        &mut self.cpu
    }

    /// What made the last evidence; before the first, what should make it.
    pub fn made_by(&self) -> &'static str {
        self.made_by
    }

    /// What runs the network now.
    pub fn now(&mut self) -> Running {
        let fallback = self.fallback.clone();
        match &self.state {
            State::Ready(accelerator) => Running {
                backend: self.settings.config.name().into(),
                kernel: accelerator.ready().map(|ready| ready.kernel.clone()).unwrap_or_default(),
                threads: self.settings.threads,
                fallback,
            },
            _ => Running {
                backend: self.cpu.name().into(),
                kernel: self.cpu.kernel(),
                threads: self.cpu.threads(),
                fallback,
            },
        }
    }

    fn begin(&mut self) {
        match Accelerator::start(&self.settings) {
            Ok(accelerator) => self.state = State::Starting(accelerator),
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// Looks after it: whether a starting one is ready, a ready one alive, and one that failed is to be tried again.
    fn look(&mut self, until: Instant) {
        let checked = match &mut self.state {
            State::Starting(accelerator) => accelerator.poll(until),
            State::Ready(accelerator) => accelerator.check().map(|()| false),
            State::Away(again) => {
                if *again <= Instant::now() {
                    self.begin();
                }
                return;
            }
        };
        match checked {
            Ok(false) => {}
            Ok(true) => self.succeed(),
            Err(trouble) => self.fail(&trouble),
        }
    }

    /// It has become ready.
    fn succeed(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Away(Instant::now())) {
            State::Starting(accelerator) => {
                if let Some(ready) = accelerator.ready() {
                    log::info!(
                        "backend {} works: {}, golden outputs differ by up to {} steps",
                        self.settings.config.name(),
                        ready.kernel,
                        ready.largest_difference
                    );
                }
                self.fallback = None;
                State::Ready(accelerator)
            }
            other => other,
        };
    }

    /// It has failed: its process is ended, and the processor judges.
    fn fail(&mut self, trouble: &Trouble) {
        if matches!(&self.state, State::Ready(accelerator) if accelerator.uptime() >= STABLE) {
            self.pause = self.settings.config.retry();
        }
        let wanted = self.settings.config.name().to_owned();
        let fallback = Fallback { wanted, reason: trouble.to_string() };
        // The same reason again is no news.
        if self.fallback.as_ref() != Some(&fallback) {
            let (wanted, cpu) = (&fallback.wanted, self.cpu.name());
            log::warn!("backend {wanted}: {trouble}; backend {cpu} judges until it works again");
        }
        self.fallback = Some(fallback);
        // Dropping the old state ends the process.
        self.state = State::Away(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST);
    }
}

impl Classifier for Guarded {
    fn name(&self) -> &str {
        self.made_by
    }

    fn classify(&mut self, image: &Tensor<u8>) -> Result<Evidence, ClassifyError> {
        self.tend();
        if let State::Ready(accelerator) = &mut self.state {
            match accelerator.run(image) {
                Ok((evidence, features)) => {
                    self.made_by = self.settings.config.name();
                    return Evidence::from_quantized(evidence, features, self.settings.bundle.manifest());
                }
                Err(trouble) => self.fail(&trouble),
            }
        }
        let evidence = self.cpu.classify(image);
        self.made_by = self.cpu.backend();
        evidence
    }

    fn tend(&mut self) {
        self.look(Instant::now());
    }

    fn running(&mut self) -> Option<Running> {
        Some(self.now())
    }
}
