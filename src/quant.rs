//! Affine quantization: scale, zero_point and requantization, derived. Not the convolutions themselves (see
//! [`crate::kernels::reference`]) and not the choice of ranges (that is `roentgen-host quantize`).
//!
//! A real number `r` is held as an integer `q` with `r = scale × (q − zero_point)`.

use serde::{Deserialize, Serialize};

/// Scale and zero point of a tensor of u8.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct QuantParams {
    /// Real size of one quantization step.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: u8,
}
