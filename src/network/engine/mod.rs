//! The forward pass: runs a [`Plan`] with its [`Weights`] on an image, on one thread or several. Everything it writes to is
//! allocated when it is made; nothing is while it infers. Not the choice of kernels: that is the plan's.
//!
//! Planes lie in two arenas in turn: step i reads what step i − 1 wrote, in the other one. The head reads the last feature
//! map, so that both outputs are there when it is done.

mod steps;

use super::int8::{Network, NetworkError};
use super::outline::Outline;
use super::plan::{Options, Plan, PlanError, Step, Work};
use super::weights::Weights;
use crate::kernels::plane::Plane;
use crate::kernels::{Aligned, Epilogue};
use crate::tensor::Tensor;
use crate::workers::Workers;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A network, ready to run.
pub struct Engine {
    plan: Plan,
    weights: Weights,
    /// Of every step, one a block of output channels.
    epilogues: Vec<Vec<Epilogue>>,
    workers: Workers,
    memory: Memory,
}

/// What the engine writes to.
struct Memory {
    /// What the first step reads.
    image: Aligned,
    /// Outputs of even steps, of odd ones.
    arenas: [Aligned; 2],
    shared_v: Aligned,
    /// One a thread. Only that thread locks its own, so that nobody ever waits.
    scratch: Vec<Mutex<Scratch>>,
}

/// A thread's working memory.
struct Scratch {
    v: Aligned,
    m: Aligned,
    u: Aligned,
    rows: Aligned,
}

/// Why an engine could not be made, or an image not be run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The network cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The weights were packed for another plan.
    #[error("{found} bytes of packed weights; the plan wants {expected}")]
    Weights {
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// The system gave no threads.
    #[error("cannot make threads: {0}")]
    Threads(#[source] std::io::Error),
    /// The image has another size than the network reads.
    #[error(transparent)]
    Image(#[from] NetworkError),
}

impl Engine {
    /// Plans the network, packs its weights, makes threads and memory: all in one for tests and examples. The daemon, which
    /// may map packed weights, calls [`Engine::with`].
    pub fn new(network: &Network, options: Options, pin: bool) -> Result<Self, EngineError> {
        let plan = Plan::new(&Outline::of(network)?, options)?;
        Self::packed(network, plan, pin)
    }

    /// The same with a plan that was made of the network's outline.
    pub fn packed(network: &Network, plan: Plan, pin: bool) -> Result<Self, EngineError> {
        let Ok(weights) = Weights::pack(&plan, network.convolutions().map(Ok::<_, Infallible>));
        Self::with(plan, weights, pin)
    }

    /// An engine for a plan and the weights that were packed for it. With `pin` each thread but the caller's keeps to one
    /// processor.
    pub fn with(plan: Plan, weights: Weights, pin: bool) -> Result<Self, EngineError> {
        let (found, expected) = (weights.as_bytes().len(), plan.weight_bytes);
        if found < expected {
            return Err(EngineError::Weights { found, expected });
        }
        let workers = Workers::new(plan.options.threads, pin).map_err(EngineError::Threads)?;
        let epilogues = plan.steps.iter().map(|step| weights.epilogues(step)).collect();
        let sizes = plan.scratch;
        let scratch = || Scratch {
            v: Aligned::zeroed(sizes.v),
            m: Aligned::zeroed(sizes.m),
            u: Aligned::zeroed(sizes.u),
            rows: Aligned::zeroed(sizes.rows),
        };
        let memory = Memory {
            image: Aligned::zeroed(plan.image_bytes),
            arenas: plan.arena_bytes.map(Aligned::zeroed),
            shared_v: Aligned::zeroed(sizes.shared_v),
            scratch: (0..workers.count()).map(|_| Mutex::new(scratch())).collect(),
        };
        Ok(Self { plan, weights, epilogues, workers, memory })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Runs the network on an image of `input_size²` grey levels. [`Self::evidence`] and [`Self::features`] give the outputs.
    pub fn infer(&mut self, image: &[u8]) -> Result<(), EngineError> {
        self.infer_and_show(image, &mut |_, _| ())
    }

    /// The same, and shows every step as it is done, with the plane it wrote.
    pub fn infer_and_show(&mut self, image: &[u8], show: &mut dyn FnMut(&Step, &[u8])) -> Result<(), EngineError> {
        self.read(image)?;
        let Self { plan, weights, epilogues, workers, memory } = self;
        let Memory { image, arenas: [even, odd], shared_v, scratch } = memory;
        for (index, (step, epilogues)) in plan.steps.iter().zip(epilogues).enumerate() {
            let (before, output) = if index % 2 == 0 { (&*odd, &mut *even) } else { (&*even, &mut *odd) };
            let input = if index == 0 { image.as_u8() } else { before.as_u8() };
            let output = output.as_u8_mut();
            let mut task = steps::Running { kernels: plan.options.kernels, step, weights, epilogues, workers, scratch };
            match step.work {
                Work::First { strip } => task.first(strip, input, output),
                Work::Direct { strip } => task.direct(strip, input, output),
                Work::Winograd(tiling) => task.winograd(tiling, shared_v.as_i16_mut(), input, output),
                Work::Pool { strip } => task.pool(strip, input, output),
            }
            show(step, output);
        }
        Ok(())
    }

    /// The evidence map of the last image, 1 × h × w × classes, quantized. Zeros before the first.
    pub fn evidence(&self) -> Tensor<u8> {
        self.output(1)
    }

    /// The last feature map of the last image, 1 × h × w × channels, quantized. Zeros before the first.
    pub fn features(&self) -> Tensor<u8> {
        self.output(2)
    }

    /// The output of the step so far from the end.
    fn output(&self, from_end: usize) -> Tensor<u8> {
        let index = self.plan.steps.len().saturating_sub(from_end);
        match self.plan.steps.get(index) {
            Some(step) => unpack(step.output, self.memory.arenas[index % 2].as_u8()),
            None => Tensor::filled([0; 4], 0),
        }
    }

    /// Lays the image out as the first step reads it.
    fn read(&mut self, image: &[u8]) -> Result<(), NetworkError> {
        let size = self.plan.input_size;
        if image.len() != size * size {
            return Err(NetworkError::Image { found: [1, image.len(), 1, 1], expected: [1, size, size, 1] });
        }
        let bytes = self.memory.image.as_u8_mut();
        if let Some(Step { work: Work::First { .. }, .. }) = self.plan.steps.first() {
            bytes.fill(self.plan.input_zero_point);
            for (bytes, pixels) in bytes.chunks_exact_mut(size + 2).skip(1).zip(image.chunks_exact(size)) {
                bytes[1..=size].copy_from_slice(pixels);
            }
        } else {
            let plane = Plane { rows: size, columns: size, channels: 1 };
            plane.fill_border(bytes, self.plan.input_zero_point);
            plane.pack(image, bytes);
        }
        Ok(())
    }
}

/// A plane as a tensor, NHWC.
pub fn unpack(plane: Plane, bytes: &[u8]) -> Tensor<u8> {
    let mut nhwc = Vec::with_capacity(plane.rows * plane.columns * plane.channels);
    plane.unpack(bytes, &mut nhwc);
    // As many as the shape says: that is what unpacking appends.
    Tensor::new([1, plane.rows, plane.columns, plane.channels], nhwc).unwrap_or_else(|| Tensor::filled([0; 4], 0))
}

/// A thread's own working memory. A panic that poisoned it left numbers in it like any others.
fn own(scratch: &Mutex<Scratch>) -> MutexGuard<'_, Scratch> {
    scratch.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
