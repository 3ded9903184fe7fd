//! The one place that chooses where tensors live. Not what is computed there.
//!
//! | feature | CPU | GPU |
//! |---|---|---|
//! | none (`host`) | burn's Flex | |
//! | `torch` | LibTorch | LibTorch with CUDA, where the library has it and the machine a GPU |
//! | `cuda` | Flex | burn's own kernels on NVIDIA's |
//! | `wgpu` (or `vulkan`) | Flex | burn's own kernels, by wgpu, on any with a Vulkan driver |

use anyhow::{Context, Result};
use burn::tensor::Device;
use std::sync::OnceLock;

/// Where everything is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// A GPU where this build can use one, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU.
    Gpu,
}

static CHOSEN: OnceLock<Device> = OnceLock::new();

/// Fixes the device for the whole run; the first call counts.
pub(crate) fn choose(choice: Choice) -> Result<()> {
    let device = match choice {
        Choice::Auto => gpu().unwrap_or_else(cpu),
        Choice::Cpu => cpu(),
        Choice::Gpu => gpu()
            .context("no GPU that this build of roentgen-host can use; build it with --features cuda, wgpu or torch")?,
    };
    CHOSEN.get_or_init(|| device);
    Ok(())
}

/// Where everything is computed: what was chosen, else the CPU.
pub(crate) fn device() -> Device {
    CHOSEN.get_or_init(cpu).clone()
}

// burn deprecates its LibTorch backend in favour of its own kernels; on a CPU those take three to four times as long to
// fine-tune (see `finetune`), so it stays optional until they have caught up.
#[cfg(feature = "torch")]
#[expect(deprecated, reason = "three to four times faster on a CPU than what is to replace it")]
fn cpu() -> Device {
    Device::libtorch()
}

#[cfg(not(feature = "torch"))]
fn cpu() -> Device {
    Device::flex()
}

#[cfg(feature = "cuda")]
fn gpu() -> Option<Device> {
    // Empty where there is no driver: `auto` then takes the CPU.
    Device::enumerate(burn::tensor::DeviceType::Cuda).first().cloned()
}

#[cfg(all(feature = "vulkan", not(feature = "cuda")))]
fn gpu() -> Option<Device> {
    Device::enumerate(burn::tensor::DeviceType::Vulkan).first().cloned()
}

#[cfg(all(feature = "torch", not(any(feature = "cuda", feature = "vulkan"))))]
fn gpu() -> Option<Device> {
    // Of LibTorch's devices burn lists the GPUs only.
    Device::enumerate(burn::tensor::DeviceType::LibTorch).first().cloned()
}

#[cfg(not(any(feature = "cuda", feature = "torch", feature = "vulkan")))]
fn gpu() -> Option<Device> {
    None
}

/// Images that go through the trunk together. With Flex one at a time keeps a layer's activations in the cache, and
/// the cores are used by running images side by side; a GPU and LibTorch, which has its own threads, want many at once.
pub(crate) const BATCH: usize = if cfg!(any(feature = "cuda", feature = "torch", feature = "vulkan")) { 32 } else { 1 };
