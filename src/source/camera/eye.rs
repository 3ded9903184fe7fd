//! What the camera's thread stands on: something that gives frames, and somewhere for what it makes of them. No device.

use super::grey::Grey;
use std::time::{Duration, Instant};

/// Something that gives frames.
pub trait Eye {
    /// The first frame that was taken at `not_before` or later, and when that was; `None` where none came within `patience`,
    /// or a damaged one.
    fn frame(&mut self, not_before: Instant, patience: Duration) -> Result<Option<(Grey, Instant)>, Away>;

    /// Which camera it is, whatever its device file: the maker's name for it, and its serial number where it has one.
    fn name(&self) -> String;

    /// Its mode, e.g. `YUYV 1280x720`.
    fn mode(&self) -> String;

    /// Whether its levels have more than 8 bits.
    fn is_deep(&self) -> bool;
}

/// There is no camera, or no longer, and why: in words that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// Opens the camera.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Eye>, Away> + Send>;

/// Keeps a file of this name, durable on return; an error is said in words, and it is tried again.
pub type Store = Box<dyn FnMut(&str, &[u8]) -> Result<(), String> + Send>;
