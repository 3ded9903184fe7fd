//! One step of a plan, shared out in tasks: strips of output rows × blocks of output channels. Not the kernels themselves.

use super::{Scratch, own};
use crate::kernels::direct::{self, pool_rows};
use crate::kernels::first::FirstRow;
use crate::kernels::plane::Plane;
use crate::kernels::winograd::{FlyMultiply, InputTiles, Multiply, OutputTiles};
use crate::kernels::{BLOCK, Epilogue, Kernels};
use crate::network::plan::{Step, Tiling};
use crate::network::weights::Weights;
use crate::workers::{Cut, Share, Workers};
use std::ops::Range;
use std::sync::Mutex;

/// A step that is being run.
pub(super) struct Running<'a> {
    pub(super) kernels: &'static Kernels,
    pub(super) step: &'a Step,
    pub(super) weights: &'a Weights,
    pub(super) epilogues: &'a [Epilogue],
    pub(super) workers: &'a mut Workers,
    pub(super) scratch: &'a [Mutex<Scratch>],
}

/// Cuts a plane into strips of so many rows. The first has the border's first row too, the last its last.
fn strips(plane: Plane, rows: usize) -> Cut {
    Cut {
        blocks: plane.blocks(),
        block: plane.block_bytes(),
        strips: plane.rows.div_ceil(rows).max(1),
        head: plane.row_bytes(),
        strip: rows * plane.row_bytes(),
    }
}

/// The strip of one block, its border filled: which rows of the plane it has, and their bytes from the first row on, border
/// columns included.
fn opened(plane: Plane, rows: usize, bytes: &mut [u8], strip: usize, zero_point: u8) -> (Range<usize>, &mut [u8]) {
    let from = (strip * rows).min(plane.rows);
    let range = from..(from + rows).min(plane.rows);
    // The first strip begins with the border's first row.
    plane.fill_border_of_rows(if strip == 0 { 0 } else { from + 1 }, bytes, zero_point);
    let head = if strip == 0 { plane.row_bytes() } else { 0 };
    (range, &mut bytes[head..])
}

impl Running<'_> {
    /// The first layer.
    pub(super) fn first(&mut self, strip: usize, image: &[u8], output: &mut [u8]) {
        let (row, weights, epilogues) = (self.kernels.first.row, self.weights, self.epilogues);
        let step = self.step;
        self.rows(strip, output, &|block, number, output| {
            let (weights, epilogue) = (weights.i8(step, block), &epilogues[block]);
            row(FirstRow { image, row: number, weights, epilogue, output });
        });
    }

    /// A direct convolution.
    pub(super) fn direct(&mut self, strip: usize, input: &[u8], output: &mut [u8]) {
        let (row, weights, epilogues) = (self.kernels.direct.row, self.weights, self.epilogues);
        let (step, plane, kernel) = (self.step, self.step.input, self.step.kernel);
        self.rows(strip, output, &|block, number, output| {
            let (weights, epilogue) = (weights.i8(step, block), &epilogues[block]);
            row(direct::Row { input, plane, row: number, kernel, weights, epilogue, output });
        });
    }

    /// Calls `row(block, number, bytes)` for every row of every block before pooling, and pools where the step does.
    fn rows(&mut self, strip: usize, output: &mut [u8], row: &(dyn Fn(usize, usize, &mut [u8]) + Sync)) {
        let (step, scratch, plane) = (self.step, self.scratch, self.step.output);
        let cut = strips(plane, strip);
        self.workers.run_on(output, &cut, 0..cut.strips, 1, &|thread, mut share: Share<'_, u8>| {
            let (block, number) = (share.blocks().start, share.strip());
            let (range, bytes) = opened(plane, strip, share.part(block), number, step.zero_point);
            let rows = range.zip(bytes.chunks_exact_mut(plane.row_bytes()));
            if !step.pool {
                rows.for_each(|(number, bytes)| row(block, number, &mut bytes[BLOCK..][..plane.columns * BLOCK]));
                return;
            }
            let mut scratch = own(&scratch[thread]);
            let columns = step.input.columns * BLOCK;
            let (top, bottom) = scratch.rows.as_u8_mut().split_at_mut(columns);
            let bottom = &mut bottom[..columns];
            for (number, bytes) in rows {
                row(block, 2 * number, top);
                row(block, 2 * number + 1, bottom);
                pool_rows(top, bottom, &mut bytes[BLOCK..][..plane.columns * BLOCK]);
            }
        });
    }

    /// Pooling alone.
    pub(super) fn pool(&mut self, strip: usize, input: &[u8], output: &mut [u8]) {
        let (from, plane, zero_point) = (self.step.input, self.step.output, self.step.zero_point);
        let cut = strips(plane, strip);
        self.workers.run_on(output, &cut, 0..cut.strips, 1, &|_, mut share: Share<'_, u8>| {
            let (block, number) = (share.blocks().start, share.strip());
            let (range, bytes) = opened(plane, strip, share.part(block), number, zero_point);
            for (number, bytes) in range.zip(bytes.chunks_exact_mut(plane.row_bytes())) {
                let row = |row| &input[from.pixel(block, row)..][..from.columns * BLOCK];
                let bytes = &mut bytes[BLOCK..][..plane.columns * BLOCK];
                pool_rows(row(2 * number), row(2 * number + 1), bytes);
            }
        });
    }

    /// A Winograd convolution.
    pub(super) fn winograd(&mut self, tiling: Tiling, shared_v: &mut [i16], input: &[u8], output: &mut [u8]) {
        let (step, plane) = (self.step, self.step.input);
        let (tile_rows, tile_columns) = tiling.winograd.tiles(plane.rows, plane.columns);
        let rows = tiling.strip * tiling.winograd.tile / if step.pool { 2 } else { 1 };
        let all = tile_rows.div_ceil(tiling.strip);
        // The last rows of tiles may have nothing to store, where an odd row is pooled away: such strips are empty.
        let cut = Cut { strips: all, ..strips(step.output, rows) };
        let per_block = |tile_rows: usize| tiling.winograd.points() * tile_rows * tile_columns * BLOCK;
        let tiles_of = |strips: Range<usize>| strips.start * tiling.strip..(strips.end * tiling.strip).min(tile_rows);
        let transform = |block: usize, tile_rows: Range<usize>, v: &mut [i16]| {
            (tiling.winograd.input)(InputTiles { input, plane, block, tile_rows, v });
        };
        let strip = Strip { tiling, step, weights: self.weights, epilogues: self.epilogues, tile_columns, rows };
        let scratch = self.scratch;

        let Some(round) = tiling.round else {
            self.workers.run_on(output, &cut, 0..all, cut.blocks, &|thread, mut share: Share<'_, u8>| {
                let mut scratch = own(&scratch[thread]);
                let Scratch { v, m, u, .. } = &mut *scratch;
                let own_tiles = tiles_of(share.strip()..share.strip() + 1);
                let per_block = per_block(own_tiles.len());
                let v = &mut v.as_i16_mut()[..per_block * plane.blocks()];
                for (block, v) in v.chunks_exact_mut(per_block).enumerate() {
                    transform(block, own_tiles.clone(), v);
                }
                for block in share.blocks() {
                    let part = Part { v, of: own_tiles.clone(), m: m.as_i32_mut(), u: u.as_i16_mut() };
                    strip.multiply(block, share.strip(), part, own_tiles.clone(), share.part(block));
                }
            });
            return;
        };
        for first in (0..all).step_by(round) {
            let strips = first..(first + round).min(all);
            let tiles = tiles_of(strips.clone());
            let per_block = per_block(tiles.len());
            let v = &mut shared_v[..per_block * plane.blocks()];
            let whole = Cut { blocks: plane.blocks(), block: per_block, strips: 1, head: 0, strip: per_block };
            self.workers.run_on(v, &whole, 0..1, 1, &|_, mut share: Share<'_, i16>| {
                let block = share.blocks().start;
                transform(block, tiles.clone(), share.part(block));
            });
            let v = &*v;
            self.workers.run_on(output, &cut, strips, 1, &|thread, mut share: Share<'_, u8>| {
                let mut scratch = own(&scratch[thread]);
                let Scratch { m, u, .. } = &mut *scratch;
                let (block, number) = (share.blocks().start, share.strip());
                let part = Part { v, of: tiles.clone(), m: m.as_i32_mut(), u: u.as_i16_mut() };
                strip.multiply(block, number, part, tiles_of(number..number + 1), share.part(block));
            });
        }
    }
}

/// What the tasks of a Winograd step have in common.
struct Strip<'a> {
    tiling: Tiling,
    step: &'a Step,
    weights: &'a Weights,
    epilogues: &'a [Epilogue],
    tile_columns: usize,
    /// Rows of output of a strip.
    rows: usize,
}

/// V, which rows of tiles it holds, and memory for M and U.
struct Part<'a> {
    v: &'a [i16],
    of: Range<usize>,
    m: &'a mut [i32],
    u: &'a mut [i16],
}

impl Strip<'_> {
    /// Multiplies one strip, the rows of tiles `own`, with one block of output channels and stores the outputs.
    fn multiply(&self, block: usize, number: usize, part: Part<'_>, own: Range<usize>, bytes: &mut [u8]) {
        let Self { tiling, step, tile_columns, .. } = *self;
        let Part { v, of, m, u } = part;
        let (winograd, blocks, output) = (tiling.winograd, step.input.blocks(), step.output);
        let (range, bytes) = opened(output, self.rows, bytes, number, step.zero_point);
        if range.is_empty() {
            return;
        }
        let tiles = of.len() * tile_columns;
        for from in own.clone().step_by(tiling.step()) {
            let rows = from..(from + tiling.step()).min(own.end);
            // Rows before pooling, and where the first of them lies.
            let first = rows.start * winograd.tile;
            let last = (rows.end * winograd.tile).min(step.input.rows);
            if step.pool && last - first < 2 {
                break; // A single last row is pooled away.
            }
            let range = (rows.start - of.start) * tile_columns..(rows.end - of.start) * tile_columns;
            let m = &mut m[..winograd.points() * range.len() * BLOCK];
            if tiling.stored {
                let u = self.weights.i16(step, block);
                (winograd.multiply)(Multiply { v, blocks, tiles, range, u, m });
            } else {
                let filters = self.weights.i8(step, block);
                winograd.multiply_filters(FlyMultiply { v, blocks, tiles, range, filters, scratch: u, m });
            }
            let row = (rows.start - own.start) * winograd.tile / if step.pool { 2 } else { 1 };
            let at = row * output.row_bytes() + BLOCK;
            (winograd.output)(OutputTiles {
                m,
                rows: last - first,
                columns: step.input.columns,
                epilogue: &self.epilogues[block],
                pool: step.pool,
                output: &mut bytes[at..],
                row_bytes: output.row_bytes(),
            });
        }
    }
}
