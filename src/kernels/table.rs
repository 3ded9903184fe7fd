//! The table of kernels, and which of them this processor runs: the one place where instruction sets are detected.

use super::direct::{self, Direct};
use super::first::{self, First};
use super::winograd::{self, Winograd};

/// The kernels of one instruction set.
#[derive(Debug)]
pub struct Kernels {
    /// The name that configuration, log and `bench --kernel` use.
    pub name: &'static str,
    /// The first layer.
    pub first: First,
    /// Direct convolution.
    pub direct: Direct,
    /// Winograd convolution; the planner takes the first whose condition a layer's weights meet.
    pub winograd: &'static [Winograd],
    /// Whether this processor has the instructions.
    detected: fn() -> bool,
}

/// Plain Rust, on every processor: what the others are compared with, and what is left where none of them runs.
static PORTABLE: Kernels = Kernels {
    name: "portable",
    first: first::portable::FIRST,
    direct: direct::portable::DIRECT,
    winograd: &[winograd::portable::F4, winograd::portable::F2],
    detected: || true,
};

/// All kernels that this program was built with, the fastest first.
static TABLE: [&Kernels; 1] = [&PORTABLE];

/// The kernels that this processor runs, the fastest first; never empty, since the portable ones run everywhere.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    TABLE.iter().copied().filter(|kernels| (kernels.detected)())
}

/// The kernels of that name, if this program was built with them and this processor runs them.
pub fn named(name: &str) -> Option<&'static Kernels> {
    available().find(|kernels| kernels.name == name)
}
