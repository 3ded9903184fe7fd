//! Which kernel each layer gets, and how its work is shared out: a model of what each way costs, and a budget of memory. Not
//! measured on the box itself: a cold start has no time for it.

use super::rates::Rates;
use super::{EPILOGUE_BYTES, Options, Shape, Tiling, Work, packed_bytes};
use crate::kernels::BLOCK;
use crate::kernels::winograd::Winograd;
use serde::{Deserialize, Serialize};

/// How much memory the whole program may take for the sake of speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Memory {
    /// About 40 MB for VGG16.
    Small,
    /// About 75 MB.
    #[default]
    Balanced,
    /// About 150 MB.
    Fast,
}

impl Memory {
    /// Most bytes of packed weights. The rest of the program, planes and working memory need some 20 MB; and a network whose
    /// weights alone are more gets the smallest form of them.
    fn weights(self) -> usize {
        match self {
            Self::Small => 17_000_000,
            Self::Balanced => 50_000_000,
            Self::Fast => 125_000_000,
        }
    }

    /// Most bytes of V that all threads share. What does not fit is done in rounds, each of which makes U anew.
    fn round(self) -> usize {
        match self {
            Self::Small => 2 << 20,
            Self::Balanced | Self::Fast => 8 << 20,
        }
    }
}

/// Which families of kernels may be chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Family {
    /// Whatever is fastest.
    #[default]
    Any,
    /// Direct convolution only.
    Direct,
}

/// Bytes of V, or of M, that a core's own cache holds beside what it is multiplied with.
const CACHED: usize = 256 << 10;

/// Bytes of U of a whole layer that may be read again for every few tiles: about what such a cache holds.
const SMALL_U: usize = 1200 << 10;

/// The work of each convolution: for each the way that costs least with as few bytes as can be, and then, as long as the
/// budget lasts, U stored where that saves most time a byte.
pub(super) fn choose(shapes: &[Shape<'_>], options: &Options) -> Vec<Work> {
    let rates = Rates::of(options.kernels);
    let mut chosen: Vec<Work> = Vec::with_capacity(shapes.len());
    // Which layer, its work with U stored, the time that saves, the bytes that costs.
    let mut upgrades: Vec<(usize, Work, f64, usize)> = Vec::new();
    for (index, shape) in shapes.iter().enumerate() {
        let (work, cost) = smallest(index, shape, options, &rates);
        if let Some(winograd) = shape.winograd.filter(|_| allowed(index, shape, options)) {
            let (stored, stored_cost) = stored(shape, winograd, options, &rates);
            let bytes = |work: &Work| packed_bytes(options.kernels, shape, work) * shape.output.blocks();
            let more = bytes(&stored).saturating_sub(bytes(&work));
            if stored_cost < cost {
                upgrades.push((index, stored, cost - stored_cost, more));
            }
        }
        chosen.push(work);
    }
    let bytes = |work: &Work, shape: &Shape<'_>| {
        (packed_bytes(options.kernels, shape, work) + EPILOGUE_BYTES) * shape.output.blocks()
    };
    let used: usize = chosen.iter().zip(shapes).map(|(work, shape)| bytes(work, shape)).sum();
    let mut left = options.memory.weights().saturating_sub(used);
    upgrades.sort_by(|(.., a, more_a), (.., b, more_b)| (b * *more_a as f64).total_cmp(&(a * *more_b as f64)));
    for (index, work, _, more) in upgrades {
        if more <= left {
            left -= more;
            chosen[index] = work;
        }
    }
    chosen
}

/// Whether Winograd kernels may do the layer.
fn allowed(index: usize, shape: &Shape<'_>, options: &Options) -> bool {
    options.family == Family::Any && !is_first(index, shape)
}

/// Whether the first layer's own kernel does it.
fn is_first(index: usize, shape: &Shape<'_>) -> bool {
    index == 0 && shape.kernel == 3
}

/// The fastest way whose packed weights are no larger than the layer's own.
fn smallest(index: usize, shape: &Shape<'_>, options: &Options, rates: &Rates) -> (Work, f64) {
    let strip = even_strip(shape.output.rows, shape.output.blocks(), options.threads);
    if is_first(index, shape) {
        return (Work::First { strip }, 0.0);
    }
    let direct = (Work::Direct { strip }, rates.direct(shape));
    match shape.winograd.filter(|_| allowed(index, shape, options)) {
        Some(winograd) => {
            let fly = on_the_fly(shape, winograd, options, rates);
            if fly.1 < direct.1 { fly } else { direct }
        }
        None => direct,
    }
}

/// Winograd with U made on the fly. As many tiles in a round as may be, since U is made once for each strip of a round; in so
/// many strips that no thread idles for long at the end, though each strip makes U once more.
fn on_the_fly(shape: &Shape<'_>, winograd: &'static Winograd, options: &Options, rates: &Rates) -> (Work, f64) {
    let (tile_rows, _) = winograd.tiles(shape.input.rows, shape.input.columns);
    let most = (options.memory.round() / v_row(shape, winograd)).clamp(1, tile_rows);
    let (multiply, weights) = (rates.tiles(shape, winograd), rates.weights(shape));
    let cost =
        |strips: &usize| uneven(shape.output.blocks() * strips, options.threads, multiply + weights * *strips as f64);
    let least = tile_rows.div_ceil(most);
    let best = (least..=tile_rows.min(least + 3)).min_by(|a, b| cost(a).total_cmp(&cost(b))).unwrap_or(least);
    let strip = tile_rows.div_ceil(best);
    let round = Some((most / strip).max(1));
    (Work::Winograd(Tiling { winograd, stored: false, strip, step: strip, round }), cost(&best))
}

/// Winograd with U stored. A small U is read again for every strip, whose V then stays in the core's own cache. A large one
/// is read once a round, and V of the round again for every block of output channels.
fn stored(shape: &Shape<'_>, winograd: &'static Winograd, options: &Options, rates: &Rates) -> (Work, f64) {
    let (tile_rows, tile_columns) = winograd.tiles(shape.input.rows, shape.input.columns);
    let u = 2 * winograd.weight_count(shape.input.blocks()) * shape.output.blocks();
    let (strip, step, round) = if u <= SMALL_U {
        let m_row = 4 * winograd.points() * tile_columns * BLOCK;
        let strip = even(tile_rows, CACHED / v_row(shape, winograd), options.threads);
        (strip, (CACHED / m_row).clamp(1, strip), None)
    } else {
        let most = (options.memory.round() / v_row(shape, winograd)).clamp(1, tile_rows);
        let strips = (4 * options.threads).div_ceil(shape.output.blocks()).clamp(1, most);
        let strip = most.div_ceil(strips);
        (strip, strip, Some((most / strip).max(1)))
    };
    let cost = rates.tiles(shape, winograd) + rates.reading(u);
    (Work::Winograd(Tiling { winograd, stored: true, strip, step, round }), cost)
}

/// Bytes of V of one row of tiles.
fn v_row(shape: &Shape<'_>, winograd: &Winograd) -> usize {
    let (_, tile_columns) = winograd.tiles(shape.input.rows, shape.input.columns);
    2 * winograd.points() * tile_columns * BLOCK * shape.input.blocks()
}

/// The time of work in so many equal tasks, as if it were spread over the threads without a rest, with the rest.
fn uneven(tasks: usize, threads: usize, time: f64) -> f64 {
    time * (tasks.div_ceil(threads) * threads) as f64 / tasks.max(1) as f64
}

/// Rows of a strip, at most `most`, such that the strips of all threads number much the same.
fn even(rows: usize, most: usize, threads: usize) -> usize {
    let strips = rows.div_ceil(most.max(1)).next_multiple_of(threads).min(rows.max(1));
    rows.div_ceil(strips.max(1)).max(1)
}

/// Rows of a strip such that all threads get about as much: some strips a thread, none with a single row less than need be.
pub(super) fn even_strip(rows: usize, groups: usize, threads: usize) -> usize {
    if threads == 1 {
        return rows.max(1);
    }
    // Four tasks a thread: what is left over at the end is a small part of the whole.
    let strips = (4 * threads).div_ceil(groups.max(1)).clamp(1, rows.max(1));
    rows.div_ceil(strips).max(1)
}
