//! JPEG baseline and extended sequential, processes 1, 2 and 4 of ITU-T T.81, grey: 8 and 12 bits. Not progressive, not
//! arithmetic, not colour (colour goes through the `image` crate).

use super::jpeg_huffman::{Huffman, Scan};
use super::{CodecError, Extent};

/// Where the k-th coefficient of a block stands, row by row (T.81 figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Half the cosine of i × 22.5° ÷ 2, i = 0..=8: the only constants of the transform, as literals, so that every
/// processor computes the same.
const HALF_COSINES: [f32; 9] =
    [0.5, 0.490_392_64, 0.461_939_77, 0.415_734_8, 0.353_553_4, 0.277_785_12, 0.191_341_72, 0.097_545_16, 0.0];

/// Decodes a grey sequential JPEG to samples, which keep the codestream's precision.
pub fn decode(stream: &[u8], extent: Extent) -> Result<Vec<u16>, CodecError> {
    let mut scan = Scan::read(stream, extent)?;
    let precision = scan.header.precision;
    if !matches!(scan.header.sof, 0xc0 | 0xc1) || !matches!(precision, 8 | 12) {
        return Err(CodecError::Unsupported("JPEG other than sequential with 8 or 12 bits"));
    }
    let (Some(quantization), Some(ac)) = (scan.quantization, scan.ac.take()) else {
        return Err(CodecError::Damaged("table missing"));
    };
    let (rows, columns) = (usize::from(extent.rows), usize::from(extent.columns));
    let (maximum, middle) = ((1i32 << precision) - 1, f32::from(1u16 << (precision - 1)));
    let basis = basis();
    let mut samples = vec![0u16; extent.samples()];
    let blocks_across = columns.div_ceil(8);
    let mut dc = 0i32;
    for block in 0..blocks_across * rows.div_ceil(8) {
        if scan.restart_interval > 0 && block > 0 && block % scan.restart_interval == 0 {
            scan.bits.restart(block / scan.restart_interval - 1)?;
            dc = 0;
        }
        let coefficients = read_block(&mut scan, &ac, &quantization, &mut dc)?;
        let levels = inverse_dct(&coefficients, &basis);
        let (top, left) = (block / blocks_across * 8, block % blocks_across * 8);
        let width = (columns - left).min(8);
        for (line, row) in levels.chunks_exact(8).zip(top..rows.min(top + 8)) {
            let target = &mut samples[row * columns + left..][..width];
            for (sample, level) in target.iter_mut().zip(line) {
                // `as` saturates: no coefficient of a broken file can leave the range.
                *sample = ((level + middle + 0.5).floor() as i32).clamp(0, maximum) as u16;
            }
        }
    }
    Ok(samples)
}

/// Reads and dequantizes one block, row by row.
fn read_block(
    scan: &mut Scan<'_>,
    ac: &Huffman,
    quantization: &[u16; 64],
    dc: &mut i32,
) -> Result<[f32; 64], CodecError> {
    let mut block = [0f32; 64];
    let length = scan.bits.symbol(&scan.dc)?;
    if length > 15 {
        return Err(CodecError::Damaged("DC coefficient"));
    }
    // A sound file stays within 16 bits; a broken one wraps without harm.
    *dc = dc.wrapping_add(scan.bits.extended(u32::from(length))?);
    block[0] = *dc as f32 * f32::from(quantization[0]);
    let mut k = 1;
    while k < 64 {
        let symbol = scan.bits.symbol(ac)?;
        let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
        if length == 0 {
            if run < 15 {
                break;
            }
            k += 16;
            continue;
        }
        k += run;
        let value = scan.bits.extended(length)?;
        let &place = ZIGZAG.get(k).ok_or(CodecError::Damaged("too many coefficients"))?;
        block[usize::from(place)] = value as f32 * f32::from(quantization[k]);
        k += 1;
    }
    Ok(block)
}

/// `basis[u][x]` = ½ C(u) cos((2x + 1) u π ÷ 16), the one-dimensional transform of T.81 A.3.3.
fn basis() -> [[f32; 8]; 8] {
    std::array::from_fn(|u| {
        std::array::from_fn(|x| {
            // The cosine's argument in sixteenths of π, folded into the first quadrant.
            let angle = (2 * x + 1) * u % 32;
            let (angle, sign) = if angle > 16 { (32 - angle, 1.0) } else { (angle, 1.0) };
            let (angle, sign) = if angle > 8 { (16 - angle, -sign) } else { (angle, sign) };
            if u == 0 { HALF_COSINES[4] } else { sign * HALF_COSINES[angle] }
        })
    })
}

/// The inverse transform: columns, then rows. Zero coefficients, most of them, are left out.
fn inverse_dct(coefficients: &[f32; 64], basis: &[[f32; 8]; 8]) -> [f32; 64] {
    let mut half = [0f32; 64];
    for (v, line) in coefficients.chunks_exact(8).enumerate() {
        for (u, &coefficient) in line.iter().enumerate() {
            if coefficient != 0.0 {
                for y in 0..8 {
                    half[y * 8 + u] += coefficient * basis[v][y];
                }
            }
        }
    }
    let mut levels = [0f32; 64];
    for y in 0..8 {
        for u in 0..8 {
            let value = half[y * 8 + u];
            if value != 0.0 {
                for x in 0..8 {
                    levels[y * 8 + x] += value * basis[u][x];
                }
            }
        }
    }
    levels
}
