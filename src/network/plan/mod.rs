//! How a network is run on this processor: a list of steps as data, each with its kernel, its tiles, its planes and where
//! its weights lie. Made once, at load; printable. Not the weights ([`super::weights`]) and not the run ([`super::engine`]).

mod choose;
mod print;
mod rates;
mod scratch;

pub use choose::{Family, Memory};
pub use scratch::Scratch;

use super::int8::NetworkError;
use super::outline::{Outline, OutlineConv, OutlineLayer};
use crate::kernels::plane::Plane;
use crate::kernels::winograd::Winograd;
use crate::kernels::{BLOCK, Kernels, first};
use crate::workers::MAX_THREADS;

/// Most bytes of one layer's output: VGG16's largest has 3 MB. What would need more is not for this engine.
const MAX_PLANE: usize = 256 << 20;

/// Bytes of a packed [`Epilogue`](crate::kernels::Epilogue).
pub(super) const EPILOGUE_BYTES: usize = 320;

/// What a plan is made for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whose kernels.
    pub kernels: &'static Kernels,
    /// How much memory packed weights may take.
    pub memory: Memory,
    /// How many threads share the work.
    pub threads: usize,
    /// Whether a pooling is done by the layer before it. Off only to see every layer's output.
    pub fuse_pool: bool,
    /// Which families of kernels may be chosen.
    pub family: Family,
}

impl Options {
    /// The fastest kernels of this processor, balanced memory, so many threads.
    pub fn new(kernels: &'static Kernels, threads: usize) -> Self {
        let threads = threads.clamp(1, MAX_THREADS);
        Self { kernels, memory: Memory::Balanced, threads, fuse_pool: true, family: Family::Any }
    }
}

/// The plan.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it was made for.
    pub options: Options,
    /// In order; the last is the head.
    pub steps: Vec<Step>,
    /// Bytes of the packed weights of all steps.
    pub weight_bytes: usize,
    /// Bytes of the two buffers that hold planes in turn: outputs of even steps, of odd ones. What the first step reads lies
    /// in a third, whose size is [`Self::image_bytes`].
    pub arena_bytes: [usize; 2],
    /// Bytes of what the first step reads.
    pub image_bytes: usize,
    /// What threads need besides.
    pub scratch: Scratch,
    /// Rows and columns of the image.
    pub input_size: usize,
    /// What the image is padded with.
    pub input_zero_point: u8,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// The layer's name; of a pooling `pool` and its number, as in the ONNX file.
    pub name: String,
    /// How it is done.
    pub work: Work,
    /// What it reads.
    pub input: Plane,
    /// What it writes, pooled if `pool`.
    pub output: Plane,
    /// The output's zero_point, which fills its border.
    pub zero_point: u8,
    /// Rows and columns of the kernel: 3 or 1; of a pooling 2.
    pub kernel: usize,
    /// Whether the pooling that follows is done here.
    pub pool: bool,
    /// Products that the definition has.
    pub macs: u64,
    /// Where the packed weights of its blocks of output channels lie.
    pub weights: Slot,
    /// Where their epilogues lie, [`EPILOGUE_BYTES`] each.
    pub epilogues: usize,
}

/// Where the packed weights of a step lie: one block of output channels after another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// The first byte; a multiple of 64.
    pub offset: usize,
    /// Bytes of one block's weights.
    pub bytes: usize,
    /// Bytes from a block's to the next: `bytes` rounded up to 64.
    pub stride: usize,
}

/// How a step is done. Strips are what a task takes at a time.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// The first layer: its own kernel; rows of output a strip.
    First {
        /// Rows of a strip.
        strip: usize,
    },
    /// Direct convolution.
    Direct {
        /// Rows of a strip, after pooling.
        strip: usize,
    },
    /// Winograd convolution.
    Winograd(Tiling),
    /// Pooling alone.
    Pool {
        /// Rows of a strip.
        strip: usize,
    },
}

/// How a Winograd step is done: which kernel, and how its tiles are shared out.
#[derive(Debug, Clone, Copy)]
pub struct Tiling {
    /// The kernel.
    pub winograd: &'static Winograd,
    /// Whether U is stored; if not it is made from the filters each time, block by block.
    pub stored: bool,
    /// Rows of tiles of a strip.
    pub strip: usize,
    /// Rows of tiles that are multiplied at a time, within a strip; see [`Self::step`].
    pub step: usize,
    /// `None`: a task transforms its own strip and multiplies it with all blocks of output channels. `Some(strips)`: rounds
    /// of so many strips, whose V all threads make, one block of input channels a task, and then share; a task multiplies
    /// one strip with one block of output channels.
    pub round: Option<usize>,
}

/// A convolution whose work is to be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// The layer's name.
    pub name: &'a str,
    /// What it reads.
    pub input: Plane,
    /// What it writes, pooled if `pool`.
    pub output: Plane,
    /// 3 or 1.
    pub kernel: usize,
    /// Whether it is pooled.
    pub pool: bool,
    /// The fastest Winograd kernel that is exact for its weights, if one is.
    pub winograd: Option<&'static Winograd>,
}

/// Why a network cannot be planned.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// It is none.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// This engine does not run it.
    #[error("node {layer}: {reason}")]
    Unsupported {
        /// The layer's name.
        layer: String,
        /// Why.
        reason: String,
    },
}

impl Tiling {
    /// Rows of tiles that are multiplied at a time: the whole strip where U is made on the fly, which costs the same however
    /// few tiles it is multiplied with.
    pub fn step(&self) -> usize {
        if self.stored { self.step.clamp(1, self.strip.max(1)) } else { self.strip.max(1) }
    }
}

impl Plan {
    /// The plan that should be fastest within the memory that the options allow.
    pub fn new(outline: &Outline, options: Options) -> Result<Self, PlanError> {
        let shapes = Self::shapes(outline, &options)?;
        let chosen = choose::choose(&shapes, &options);
        Self::with(outline, options, |index, _| chosen[index])
    }

    /// The plan whose convolutions are done as `choose` says, given each one's number and shape. For measurements and tests.
    pub fn with(
        outline: &Outline,
        options: Options,
        mut choose: impl FnMut(usize, &Shape<'_>) -> Work,
    ) -> Result<Self, PlanError> {
        let mut shapes = Self::shapes(outline, &options)?.into_iter().enumerate();
        let mut plan = Self {
            options,
            steps: Vec::new(),
            weight_bytes: 0,
            arena_bytes: [0; 2],
            image_bytes: 0,
            scratch: Scratch::default(),
            input_size: outline.input_size(),
            input_zero_point: outline.input().zero_point,
        };
        let mut before: Option<&OutlineConv> = None;
        let mut pools = 0;
        let layers = outline.trunk().iter().map(Some).chain([None]);
        for layer in layers {
            let conv = match layer {
                Some(OutlineLayer::MaxPool2) => {
                    pools += 1;
                    // The first of the poolings after a convolution may be its own.
                    let fused = before.take().is_some() && options.fuse_pool;
                    if !fused {
                        plan.push_pool(pools);
                    }
                    continue;
                }
                Some(OutlineLayer::Conv(conv)) => conv,
                None => outline.head(),
            };
            before = Some(conv);
            // As many shapes as convolutions: `shapes` counts the same.
            let Some((index, shape)) = shapes.next() else { continue };
            let work = choose(index, &shape);
            plan.push_conv(conv, &shape, work);
        }
        plan.size();
        Ok(plan)
    }

    /// The shapes of the convolutions in order.
    fn shapes<'a>(outline: &'a Outline, options: &Options) -> Result<Vec<Shape<'a>>, PlanError> {
        let mut shapes: Vec<Shape<'a>> = Vec::new();
        let size = outline.input_size();
        let mut plane = Plane { rows: size, columns: size, channels: 1 };
        let mut may_fuse = false;
        for layer in outline.trunk().iter().map(Some).chain([None]) {
            let conv = match layer {
                Some(OutlineLayer::MaxPool2) => {
                    plane = pooled(plane);
                    if let Some(shape) = shapes.last_mut().filter(|_| may_fuse && options.fuse_pool) {
                        (shape.pool, shape.output) = (true, plane);
                    }
                    may_fuse = false;
                    continue;
                }
                Some(OutlineLayer::Conv(conv)) => conv,
                None => outline.head(),
            };
            let output = Plane { channels: conv.out_channels, ..plane };
            let unsupported = |reason| PlanError::Unsupported { layer: conv.name.clone(), reason };
            if [plane, output].iter().any(|plane| !fits(plane)) {
                let Plane { rows, columns, channels } = output;
                let reason = format!("its {rows} × {columns} × {channels} output exceeds {MAX_PLANE} bytes");
                return Err(unsupported(reason));
            }
            let exact = |winograd: &&Winograd| winograd.is_exact_up_to(conv.greatest_sum);
            let winograd = (conv.kernel == 3).then(|| options.kernels.winograd.iter().find(exact)).flatten();
            shapes.push(Shape { name: &conv.name, input: plane, output, kernel: conv.kernel, pool: false, winograd });
            plane = output;
            may_fuse = true;
        }
        Ok(shapes)
    }

    fn push_conv(&mut self, conv: &OutlineConv, shape: &Shape<'_>, work: Work) {
        let blocks = shape.output.blocks();
        let bytes = packed_bytes(self.options.kernels, shape, &work);
        let weights = Slot { offset: self.weight_bytes, bytes, stride: bytes.next_multiple_of(64) };
        let epilogues = weights.offset + blocks * weights.stride;
        self.weight_bytes = epilogues + blocks * EPILOGUE_BYTES;
        let pixels = shape.input.rows * shape.input.columns;
        self.steps.push(Step {
            name: conv.name.clone(),
            work,
            input: shape.input,
            output: shape.output,
            zero_point: conv.output.zero_point,
            kernel: shape.kernel,
            pool: shape.pool,
            macs: (pixels * shape.kernel * shape.kernel) as u64 * (conv.in_channels * conv.out_channels) as u64,
            weights,
            epilogues,
        });
    }

    fn push_pool(&mut self, number: usize) {
        // `Network::check` wants the trunk to begin with a convolution.
        let Some(Step { output: input, zero_point, .. }) = self.steps.last().cloned() else { return };
        let output = pooled(input);
        self.steps.push(Step {
            name: format!("pool{number}"),
            work: Work::Pool { strip: choose::even_strip(output.rows, input.blocks(), self.options.threads) },
            input,
            output,
            zero_point,
            kernel: 2,
            pool: false,
            macs: 0,
            weights: Slot { offset: self.weight_bytes, ..Slot::default() },
            epilogues: self.weight_bytes,
        });
    }

    /// Finds what memory the steps need.
    fn size(&mut self) {
        let size = self.input_size;
        let image = Plane { rows: size, columns: size, channels: 1 };
        self.image_bytes = match self.steps.first() {
            Some(Step { work: Work::First { .. }, .. }) => (size + 2) * (size + 2) + first::SLACK,
            _ => image.bytes(),
        };
        let mut most = Scratch::default();
        for (index, step) in self.steps.iter().enumerate() {
            let arena = &mut self.arena_bytes[index % 2];
            *arena = (*arena).max(step.output.bytes());
            let needs = step.scratch();
            most.shared_v = most.shared_v.max(needs.shared_v);
            most.v = most.v.max(needs.v);
            most.m = most.m.max(needs.m);
            most.u = most.u.max(needs.u);
            most.rows = most.rows.max(needs.rows);
        }
        self.scratch = most;
    }

    /// All bytes that the engine will hold: weights, planes, working memory.
    pub fn bytes(&self) -> usize {
        let Scratch { shared_v, v, m, u, rows } = self.scratch;
        let planes = self.arena_bytes[0] + self.arena_bytes[1] + self.image_bytes;
        self.weight_bytes + planes + shared_v + self.options.threads * (v + m + u + rows)
    }

    /// Products that the definition of the whole network has.
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|step| step.macs).sum()
    }
}

/// Bytes of packed weights of one block of output channels.
pub(super) fn packed_bytes(kernels: &Kernels, shape: &Shape<'_>, work: &Work) -> usize {
    let blocks = shape.input.blocks();
    match work {
        Work::First { .. } => first::PACKED_BYTES,
        Work::Direct { .. } => (kernels.direct.packed_bytes)(blocks, shape.kernel * shape.kernel),
        Work::Winograd(tiling) if tiling.stored => 2 * tiling.winograd.weight_count(blocks),
        Work::Winograd(_) => blocks * BLOCK * 9 * BLOCK,
        Work::Pool { .. } => 0,
    }
}

fn pooled(plane: Plane) -> Plane {
    Plane { rows: plane.rows / 2, columns: plane.columns / 2, ..plane }
}

fn fits(plane: &Plane) -> bool {
    // No factor exceeds `int8::MAX_INPUT_SIZE` or `int8::MAX_CHANNELS`, so that 64 bits hold the product.
    let pixels = (plane.rows as u64 + 6) * (plane.columns as u64 + 2);
    (plane.blocks() as u64 + 1) * pixels * BLOCK as u64 <= MAX_PLANE as u64
}

#[cfg(test)]
mod tests;
