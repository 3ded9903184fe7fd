//! The working memory of a plan: what its steps need besides planes and weights. Not the memory itself, which is the engine's.

use super::{Step, Work};
use crate::kernels::BLOCK;

/// Bytes of working memory, the most that any step needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scratch {
    /// V that all threads share.
    pub shared_v: usize,
    /// V of each thread.
    pub v: usize,
    /// M of each thread.
    pub m: usize,
    /// U that each thread makes on the fly.
    pub u: usize,
    /// Rows that each thread pools.
    pub rows: usize,
}

impl Step {
    /// What this step needs besides its planes.
    pub(super) fn scratch(&self) -> Scratch {
        match self.work {
            Work::Direct { .. } | Work::First { .. } if self.pool => {
                Scratch { rows: 2 * self.input.columns * BLOCK, ..Scratch::default() }
            }
            Work::Direct { .. } | Work::First { .. } | Work::Pool { .. } => Scratch::default(),
            Work::Winograd(tiling) => {
                let (tile_rows, tile_columns) = tiling.winograd.tiles(self.input.rows, self.input.columns);
                let points = tiling.winograd.points() * tile_columns * BLOCK;
                let blocks = self.input.blocks();
                let v = |tile_rows| 2 * points * tile_rows * blocks;
                let (shared_v, v) = match tiling.round {
                    Some(strips) => (v((strips * tiling.strip).min(tile_rows)), 0),
                    None => (0, v(tiling.strip.min(tile_rows))),
                };
                let u = if tiling.stored { 0 } else { 2 * tiling.winograd.scratch_count(blocks) };
                Scratch { shared_v, v, m: 4 * points * tiling.step().min(tile_rows), u, rows: 0 }
            }
        }
    }
}
