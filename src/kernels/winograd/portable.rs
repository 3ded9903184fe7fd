//! Winograd convolution in plain Rust, by the matrices themselves: the oracle of the vector kernels' stages, and what runs
//! on processors without one.

use super::{F2 as M2, F4 as M4, InputTiles, Matrices, Multiply, OutputTiles, Winograd};
use crate::kernels::BLOCK;

/// F(4 × 4, 3 × 3).
pub(crate) const F4: Winograd = Winograd {
    name: "F(4×4,3×3) portable",
    tile: 4,
    weights: |filters, u| weights(&M4, filters, u),
    input: |tiles| input(&M4, tiles),
    multiply: |task| multiply(36, task),
    fly: None,
    output: |tiles| output(&M4, tiles),
};

/// F(2 × 2, 3 × 3).
pub(crate) const F2: Winograd = Winograd {
    name: "F(2×2,3×3) portable",
    tile: 2,
    weights: |filters, u| weights(&M2, filters, u),
    input: |tiles| input(&M2, tiles),
    multiply: |task| multiply(16, task),
    fly: None,
    output: |tiles| output(&M2, tiles),
};

/// U as point, input channel, output channel.
fn weights<const M: usize, const A: usize>(matrices: &Matrices<M, A>, filters: &[i8], u: &mut [i16]) {
    let g = &matrices.weights;
    let channels = filters.len() / (9 * BLOCK);
    for (c, filters) in filters.chunks_exact(9 * BLOCK).enumerate() {
        for o in 0..BLOCK {
            let w = |tap: usize| i32::from(filters[tap * BLOCK + o]);
            for point in 0..A * A {
                let (row, column) = (&g[point / A], &g[point % A]);
                let sum: i32 = (0..9).map(|tap| row[tap / 3] * w(tap) * column[tap % 3]).sum();
                // At most 144·128 in magnitude: see the module's page.
                u[(point * channels + c) * BLOCK + o] = sum as i16;
            }
        }
    }
}

fn input<const M: usize, const A: usize>(matrices: &Matrices<M, A>, tiles: InputTiles<'_>) {
    let InputTiles { input, plane, block, tile_rows, v } = tiles;
    let tile_columns = plane.columns.div_ceil(M);
    let count = tile_rows.len() * tile_columns;
    for tile in 0..count {
        let (row, column) = ((tile_rows.start + tile / tile_columns) * M, tile % tile_columns * M);
        let window = &input[plane.window(block, row, 3) + column * BLOCK..];
        for c in 0..BLOCK {
            let d: [[i32; A]; A] = std::array::from_fn(|y| {
                std::array::from_fn(|x| i32::from(window[y * plane.row_bytes() + x * BLOCK + c]))
            });
            // Bᵀ d, then (Bᵀ d) B.
            let half: [[i32; A]; A] =
                matrices.input.map(|b| std::array::from_fn(|x| (0..A).map(|y| b[y] * d[y][x]).sum()));
            for (y, half) in half.iter().enumerate() {
                for (x, b) in matrices.input.iter().enumerate() {
                    let sum: i32 = b.iter().zip(half).map(|(b, h)| b * h).sum();
                    // At most 100·255.
                    v[((y * A + x) * count + tile) * BLOCK + c] = sum as i16;
                }
            }
        }
    }
}

fn multiply(points: usize, task: Multiply<'_>) {
    let Multiply { v, blocks, tiles, range, u, m } = task;
    let count = range.len();
    m[..points * count * BLOCK].fill(0);
    for point in 0..points {
        for (index, tile) in range.clone().enumerate() {
            let sums = &mut m[(point * count + index) * BLOCK..][..BLOCK];
            for c in 0..blocks * BLOCK {
                let x = v[((c / BLOCK * points + point) * tiles + tile) * BLOCK + c % BLOCK];
                let u = &u[(point * blocks * BLOCK + c) * BLOCK..][..BLOCK];
                for (sum, &u) in sums.iter_mut().zip(u) {
                    *sum = sum.wrapping_add(i32::from(x) * i32::from(u));
                }
            }
        }
    }
}

fn output<const M: usize, const A: usize>(matrices: &Matrices<M, A>, tiles: OutputTiles<'_>) {
    let OutputTiles { m, rows, columns, epilogue, pool, output, row_bytes } = tiles;
    let tile_columns = columns.div_ceil(M);
    let count = rows.div_ceil(M) * tile_columns;
    let wrapping_dot =
        |a: &[i32; A], b: &[i32; A]| a.iter().zip(b).fold(0i32, |sum, (a, b)| sum.wrapping_add(a.wrapping_mul(*b)));
    for tile in 0..count {
        let (row, column) = (tile / tile_columns * M, tile % tile_columns * M);
        for o in 0..BLOCK {
            let sum = |y: usize, x: usize| m[((y * A + x) * count + tile) * BLOCK + o];
            // M A, a row of points at a time; then Aᵀ (M A).
            let half: [[i32; M]; A] = std::array::from_fn(|y| {
                let points: [i32; A] = std::array::from_fn(|x| sum(y, x));
                matrices.output.map(|a| wrapping_dot(&a, &points))
            });
            let bytes: [[u8; M]; M] = std::array::from_fn(|y| {
                std::array::from_fn(|x| {
                    let scaled = wrapping_dot(&matrices.output[y], &std::array::from_fn(|point| half[point][x]));
                    epilogue.apply(o, scaled.wrapping_mul(matrices.inverse) >> matrices.shift)
                })
            });
            let step = if pool { 2 } else { 1 };
            for y in (0..M).step_by(step).take_while(|y| row + y + step <= rows) {
                for x in (0..M).step_by(step).take_while(|x| column + x + step <= columns) {
                    let cell = bytes[y..y + step].iter().flat_map(|bytes| &bytes[x..x + step]);
                    let at = (row + y) / step * row_bytes + (column + x) / step * BLOCK + o;
                    output[at] = cell.copied().max().unwrap_or(0);
                }
            }
        }
    }
}
