//! Direct convolution in plain Rust, for processors without a kernel of their own.

use super::{Direct, Row};
use crate::kernels::BLOCK;

/// One pixel × 32 channels.
pub(crate) const DIRECT: Direct = Direct {
    name: "portable 1×32",
    packed_bytes: |blocks, taps| blocks * BLOCK * taps * BLOCK,
    // In the order of the filters themselves.
    pack: |filters, _, packed| packed.copy_from_slice(filters),
    row,
};

fn row(task: Row<'_>) {
    let Row { input, plane, row, kernel, weights, epilogue, output } = task;
    for (column, output) in output.chunks_exact_mut(BLOCK).enumerate() {
        let mut sums = [0i32; BLOCK];
        for block in 0..plane.blocks() {
            let window = plane.window(block, row, kernel) + column * BLOCK;
            for c in 0..BLOCK {
                let filters = &weights[(block * BLOCK + c) * kernel * kernel * BLOCK..];
                for (tap, weights) in filters.chunks_exact(BLOCK).enumerate().take(kernel * kernel) {
                    let x = input[window + tap / kernel * plane.row_bytes() + tap % kernel * BLOCK + c];
                    for (sum, &w) in sums.iter_mut().zip(weights) {
                        *sum = sum.wrapping_add(i32::from(x) * i32::from(w));
                    }
                }
            }
        }
        for (o, (byte, sum)) in output.iter_mut().zip(sums).enumerate() {
            *byte = epilogue.apply(o, sum);
        }
    }
}
