//! The ceiling of plain Rust: what the compiler makes of products of integers for the processor that the program was built
//! for.

use super::Ceiling;
use crate::kernels::BLOCK;
use std::hint::black_box;

/// Both of the portable kernels' multiplications are products of i32.
pub(crate) const CEILING: Ceiling = Ceiling { direct: products, winograd: products };

fn products(iterations: u64) -> u64 {
    let factors: [i32; BLOCK] = black_box(std::array::from_fn(|i| i as i32 + 3));
    let mut sums = [0i32; BLOCK];
    for i in 0..iterations {
        let x = black_box(i as i32);
        for (sum, factor) in sums.iter_mut().zip(factors) {
            *sum = sum.wrapping_add(x.wrapping_mul(factor));
        }
    }
    black_box(sums);
    iterations * BLOCK as u64
}
