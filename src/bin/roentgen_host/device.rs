//! The one place that chooses where tensors live: the GPU when built with the `cuda` feature, else burn's Flex (CPU).

use burn::tensor::Device;

/// Where everything is computed.
#[cfg(feature = "cuda")]
pub(crate) fn device() -> Device {
    Device::cuda(0)
}

/// Where everything is computed.
#[cfg(not(feature = "cuda"))]
pub(crate) fn device() -> Device {
    Device::flex()
}

/// Images that go through the trunk together. On a CPU one at a time keeps a layer's activations in the cache, and
/// the cores are used by running images side by side; a GPU wants many at once.
pub(crate) const BATCH: usize = if cfg!(feature = "cuda") { 64 } else { 1 };
