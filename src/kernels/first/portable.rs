//! The first layer in plain Rust.

use super::{First, FirstRow};
use crate::kernels::BLOCK;

/// One pixel × 32 channels.
pub(crate) const FIRST: First = First { name: "portable 1×32", row };

fn row(task: FirstRow<'_>) {
    let FirstRow { image, row, weights, epilogue, output } = task;
    let stride = output.len() / BLOCK + 2;
    for (column, output) in output.chunks_exact_mut(BLOCK).enumerate() {
        for (o, byte) in output.iter_mut().enumerate() {
            let mut sum = 0;
            for ky in 0..3 {
                let window = &image[(row + ky) * stride + column..][..3];
                let weights = &weights[(ky * BLOCK + o) * 4..][..3];
                sum += window.iter().zip(weights).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum::<i32>();
            }
            *byte = epilogue.apply(o, sum);
        }
    }
}
