//! The `edgetpu` backend: the bundle's network on Coral's Edge TPU, or on whatever else a TFLite external delegate drives.
//! Not TFLite on the processor: that is the backend `tflite`.
//!
//! Libraries, device and model are in a process of their own. A delegate is a maker's driver: it may hang in a call, which
//! nothing inside a process can end. A thread could only be left behind, with device, memory and locks in its hands, so
//! that the next try would find the device taken; and a crash would take the daemon along. A process is killed, and the
//! kernel takes the device from it.
//!
//! Coral's delegate runs nothing but what its compiler made, `model_edgetpu.tflite`, for which a bundle has room; any other
//! gets `model.tflite`. Whether the result is the bundle's network is seen in its golden vectors, at every start.

#[cfg(feature = "edgetpu")]
mod accelerator;
mod config;
#[cfg(feature = "edgetpu")]
mod ffi;
#[cfg(feature = "edgetpu")]
mod guard;
#[cfg(feature = "edgetpu")]
mod wire;
#[cfg(feature = "edgetpu")]
mod worker;

#[cfg(feature = "edgetpu")]
pub use accelerator::{Accelerator, Ready, Settings, Trouble};
pub use config::{Config, Libraries};
#[cfg(feature = "edgetpu")]
pub use guard::Guarded;
#[cfg(feature = "edgetpu")]
pub use worker::serve;
