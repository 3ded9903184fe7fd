//! The one place that chooses where tensors live: an NVIDIA GPU with the `cuda` feature, any GPU with the `vulkan`
//! feature, else burn's Flex (CPU).

use burn::tensor::Device;

/// Where everything is computed.
pub(crate) fn device() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(all(feature = "vulkan", not(feature = "cuda")))]
    return Device::vulkan(burn::tensor::DeviceKind::default());
    #[cfg(not(any(feature = "cuda", feature = "vulkan")))]
    return Device::flex();
}

/// Images that go through the trunk together. On a CPU one at a time keeps a layer's activations in the cache, and
/// the cores are used by running images side by side; a GPU wants many at once.
pub(crate) const BATCH: usize = if cfg!(any(feature = "cuda", feature = "vulkan")) { 32 } else { 1 };
