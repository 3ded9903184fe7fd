//! The one place that chooses where tensors live. Not what is computed there.
//!
//! | feature | `--device cpu` | `--device gpu` |
//! |---|---|---|
//! | none (`host`) | burn's Flex | refused |
//! | `torch` | LibTorch | LibTorch with CUDA, where the wheel was built with it |
//! | `vulkan` | Flex | any GPU with a Vulkan driver |
//!
//! `auto` is the GPU with `vulkan` and the CPU without.

use anyhow::{Result, bail};
use burn::tensor::Device;
use std::sync::OnceLock;

/// Where everything is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// The GPU where this build uses Vulkan, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU.
    Gpu,
}

static CHOSEN: OnceLock<Device> = OnceLock::new();

/// Fixes the device for the whole run; the first call counts.
pub(crate) fn choose(choice: Choice) -> Result<()> {
    let gpu = match choice {
        Choice::Auto => cfg!(feature = "vulkan"),
        Choice::Cpu => false,
        Choice::Gpu => true,
    };
    let device = match gpu {
        true => match self::gpu() {
            Some(device) => device,
            None => bail!("this build of roentgen-host has no GPU; build it with --features vulkan or torch"),
        },
        false => cpu(),
    };
    CHOSEN.get_or_init(|| device);
    Ok(())
}

/// Where everything is computed: what was chosen, else the CPU.
pub(crate) fn device() -> Device {
    CHOSEN.get_or_init(cpu).clone()
}

// burn deprecates its LibTorch backend in favour of its own kernels; on a CPU those are several times slower for
// convolutions (see `training`), so it stays optional until they have caught up.
#[cfg(feature = "torch")]
#[expect(deprecated, reason = "several times faster on a CPU than what is to replace it")]
fn cpu() -> Device {
    Device::libtorch()
}

#[cfg(not(feature = "torch"))]
fn cpu() -> Device {
    Device::flex()
}

#[cfg(feature = "vulkan")]
fn gpu() -> Option<Device> {
    Some(Device::vulkan(Default::default()))
}

#[cfg(all(feature = "torch", not(feature = "vulkan")))]
#[expect(deprecated, reason = "several times faster on a CPU than what is to replace it")]
fn gpu() -> Option<Device> {
    Some(Device::libtorch_cuda(0))
}

#[cfg(not(any(feature = "torch", feature = "vulkan")))]
fn gpu() -> Option<Device> {
    None
}

/// Images that go through the trunk together. With Flex one at a time keeps a layer's activations in the cache, and
/// the cores are used by running images side by side; a GPU and LibTorch, which has its own threads, want many at once.
pub(crate) const BATCH: usize = if cfg!(any(feature = "vulkan", feature = "torch")) { 32 } else { 1 };
