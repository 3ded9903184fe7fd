//! JPEG lossless, process 14 of ITU-T T.81 (annex H), grey: every predictor, every precision from 2 to 16 bits, point
//! transform and restart intervals. DICOM's "JPEG Lossless, First-Order Prediction" is its selection value 1.

use super::jpeg_huffman::Scan;
use super::{CodecError, Extent};

/// Decodes a grey lossless JPEG to samples, which keep the codestream's precision.
pub fn decode(stream: &[u8], extent: Extent) -> Result<Vec<u16>, CodecError> {
    let mut scan = Scan::read(stream, extent)?;
    let precision = u32::from(scan.header.precision);
    let transform = u32::from(scan.point_transform);
    if scan.header.sof != 0xc3 || !(1..=7).contains(&scan.selection) || transform >= precision {
        return Err(CodecError::Damaged("lossless scan parameters"));
    }
    let columns = usize::from(extent.columns);
    let interval = scan.restart_interval;
    if interval % columns != 0 {
        return Err(CodecError::Unsupported("JPEG lossless restarting within a line"));
    }
    let start = 1i32 << (precision - transform - 1);
    let mut samples = vec![0u16; extent.samples()];
    let mut above: &[u16] = &[];
    for (row, line) in samples.chunks_exact_mut(columns).enumerate() {
        let mut fresh = row == 0;
        if interval > 0 && row > 0 && row * columns % interval == 0 {
            scan.bits.restart(row * columns / interval - 1)?;
            fresh = true;
        }
        for column in 0..columns {
            let left = if column > 0 { i32::from(line[column - 1]) } else { 0 };
            // The first line knows only its left neighbour, the first column only the one above (H.1.2.1).
            let prediction = match (fresh, column) {
                (true, 0) => start,
                (true, _) => left,
                (false, 0) => i32::from(above[0]),
                (false, _) => predict(scan.selection, left, above[column].into(), above[column - 1].into()),
            };
            let difference = match scan.bits.symbol(&scan.dc)? {
                length @ 0..=15 => scan.bits.extended(u32::from(length))?,
                16 => 32768,
                _ => return Err(CodecError::Damaged("lossless difference")),
            };
            // Modulo 2¹⁶, as the standard defines the sum.
            line[column] = (prediction + difference) as u16;
        }
        above = line;
    }
    if transform > 0 {
        samples.iter_mut().for_each(|sample| *sample <<= transform);
    }
    Ok(samples)
}

/// Table H.1: the prediction from the left neighbour, the one above and the one above left.
fn predict(selection: u8, left: i32, above: i32, above_left: i32) -> i32 {
    match selection {
        1 => left,
        2 => above,
        3 => above_left,
        4 => left + above - above_left,
        5 => left + ((above - above_left) >> 1),
        6 => above + ((left - above_left) >> 1),
        _ => (left + above) >> 1,
    }
}
