//! The one place that chooses where tensors live: any GPU with a Vulkan driver with the `vulkan` feature, else burn's
//! Flex (CPU).

use burn::tensor::Device;

/// Where everything is computed.
#[cfg(feature = "vulkan")]
pub(crate) fn device() -> Device {
    Device::vulkan(Default::default())
}

/// Where everything is computed.
#[cfg(not(feature = "vulkan"))]
pub(crate) fn device() -> Device {
    Device::flex()
}

/// Images that go through the trunk together. On a CPU one at a time keeps a layer's activations in the cache, and
/// the cores are used by running images side by side; a GPU wants many at once.
pub(crate) const BATCH: usize = if cfg!(feature = "vulkan") { 32 } else { 1 };
