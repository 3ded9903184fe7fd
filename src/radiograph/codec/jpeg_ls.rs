//! JPEG-LS, ITU-T T.87, grey: lossless and near-lossless, 2–16 bits. Not interleaved colour, not mapping tables, not
//! restart intervals, none of which DICOM's grey images use. Names follow the standard.

use super::jpeg::Segments;
use super::{CodecError, Extent};

/// The variable J of A.2.1: orders of the codes of run lengths.
const J: [u32; 32] =
    [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// Contexts of the regular mode; two more serve run interruptions.
const REGULAR_CONTEXTS: usize = 365;

/// Decodes a grey JPEG-LS codestream to samples.
pub fn decode(stream: &[u8], extent: Extent) -> Result<Vec<u16>, CodecError> {
    let (parameters, data) = Parameters::read(stream, extent)?;
    Decoder::new(parameters, Bits { stream: data, position: 0, buffer: 0, count: 0, after_ff: false }).decode(extent)
}

/// The coding parameters (C.2.4.1).
#[derive(Debug, Clone, Copy)]
struct Parameters {
    maxval: i32,
    near: i32,
    t1: i32,
    t2: i32,
    t3: i32,
    reset: i64,
    /// Bits to shift decoded samples up: the scan's point transform.
    point_transform: u8,
}

impl Parameters {
    /// Reads the segments up to the scan's data, which are returned with the parameters.
    fn read(stream: &[u8], extent: Extent) -> Result<(Self, &[u8]), CodecError> {
        if !stream.starts_with(&[0xff, 0xd8]) {
            return Err(CodecError::Damaged("no SOI marker"));
        }
        let mut precision = None;
        let mut preset = [0i32; 5];
        let mut segments = Segments { stream, position: 2 };
        while let Some(segment) = segments.next()? {
            let word = |i: usize| segment.payload.get(i..i + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
            match segment.marker {
                0xf7 => {
                    let &[bits, _, _, _, _, components, ..] = segment.payload else {
                        return Err(CodecError::Damaged("short frame header"));
                    };
                    if extent != (Extent { rows: word(1), columns: word(3), components }) {
                        return Err(CodecError::Damaged("the codestream has another size than the tags say"));
                    }
                    if components != 1 || !(2..=16).contains(&bits) {
                        return Err(CodecError::Unsupported("JPEG-LS with several components"));
                    }
                    precision = Some(bits);
                }
                0xf8 if segment.payload.first() == Some(&1) => {
                    preset = std::array::from_fn(|i| i32::from(word(1 + 2 * i)));
                }
                0xf8 => return Err(CodecError::Unsupported("JPEG-LS mapping tables or oversize pictures")),
                0xdd if segment.payload.iter().any(|&byte| byte != 0) => {
                    return Err(CodecError::Unsupported("JPEG-LS restart intervals"));
                }
                0xda => {
                    let precision = precision.ok_or(CodecError::Damaged("scan before the frame header"))?;
                    let &[1, _, mapping, near, _, approximation] = segment.payload else {
                        return Err(CodecError::Damaged("scan header"));
                    };
                    if mapping != 0 {
                        return Err(CodecError::Unsupported("JPEG-LS mapping tables"));
                    }
                    let parameters = Self::new(precision, near, preset, approximation & 15)?;
                    return Ok((parameters, &stream[segments.position..]));
                }
                _ => {}
            }
        }
        Err(CodecError::Damaged("no scan"))
    }

    /// Fills in the defaults (C.2.4.1.1) where `preset` (MAXVAL, T1, T2, T3, RESET) holds zeros, and checks the rest.
    fn new(precision: u8, near: u8, preset: [i32; 5], point_transform: u8) -> Result<Self, CodecError> {
        let [maxval, t1, t2, t3, reset] = preset;
        let largest = (1i32 << precision) - 1;
        let maxval = if maxval == 0 { largest } else { maxval };
        let near = i32::from(near);
        if maxval > largest || maxval < 1 || near > maxval / 2 || near > 255 || point_transform >= precision {
            return Err(CodecError::Damaged("JPEG-LS parameters"));
        }
        let clamp = |value: i32, low: i32| if value > maxval || value < low { low } else { value };
        let defaults = if maxval >= 128 {
            let factor = (maxval.min(4095) + 128) / 256;
            let d1 = clamp(factor + 2 + 3 * near, near + 1);
            let d2 = clamp(factor * 4 + 3 + 5 * near, d1);
            [d1, d2, clamp(factor * 17 + 4 + 7 * near, d2)]
        } else {
            let factor = 256 / (maxval + 1);
            let d1 = clamp((3 / factor + 3 * near).max(2), near + 1);
            let d2 = clamp((7 / factor + 5 * near).max(3), d1);
            [d1, d2, clamp((21 / factor + 7 * near).max(4), d2)]
        };
        let [t1, t2, t3] = std::array::from_fn(|i| if [t1, t2, t3][i] == 0 { defaults[i] } else { [t1, t2, t3][i] });
        let reset = if reset == 0 { 64 } else { reset };
        if t1 < near + 1 || t2 < t1 || t3 < t2 || t3 > maxval || reset < 3 {
            return Err(CodecError::Damaged("JPEG-LS thresholds"));
        }
        Ok(Self { maxval, near, t1, t2, t3, reset: i64::from(reset), point_transform })
    }
}

/// The bits of a scan: after a byte FF the next one carries seven (A.1).
struct Bits<'a> {
    stream: &'a [u8],
    position: usize,
    buffer: u64,
    count: u32,
    after_ff: bool,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 48 {
            let Some(&byte) = self.stream.get(self.position) else { return };
            if self.after_ff {
                // A set first bit makes FF and this byte a marker: the end of the data.
                if byte >= 0x80 {
                    return;
                }
                self.buffer = self.buffer << 7 | u64::from(byte);
                self.count += 7;
            } else {
                self.buffer = self.buffer << 8 | u64::from(byte);
                self.count += 8;
            }
            self.after_ff = byte == 0xff;
            self.position += 1;
        }
    }

    /// The next `length` bits, at most 32.
    fn take(&mut self, length: u32) -> Result<i64, CodecError> {
        if self.count < length {
            self.fill();
            if self.count < length {
                return Err(CodecError::Damaged("scan ends early"));
            }
        }
        self.count -= length;
        Ok((self.buffer >> self.count & ((1 << length) - 1)) as i64)
    }

    /// The mapped error of a limited-length Golomb code (A.5.3).
    fn golomb(&mut self, k: u32, limit: u32, qbpp: u32) -> Result<i64, CodecError> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > limit {
                return Err(CodecError::Damaged("code too long"));
            }
        }
        if zeros < limit - qbpp - 1 { Ok((i64::from(zeros) << k) | self.take(k)?) } else { Ok(self.take(qbpp)? + 1) }
    }
}

/// The statistics of one context (A.2.1).
#[derive(Clone, Copy)]
struct Context {
    a: i64,
    b: i64,
    c: i32,
    n: i64,
}

struct Decoder<'a> {
    parameters: Parameters,
    bits: Bits<'a>,
    range: i32,
    qbpp: u32,
    limit: u32,
    contexts: Vec<Context>,
    /// Negative errors in the two run interruption contexts.
    nn: [i64; 2],
    run_index: usize,
}

impl<'a> Decoder<'a> {
    fn new(parameters: Parameters, bits: Bits<'a>) -> Self {
        let Parameters { maxval, near, .. } = parameters;
        let range = (maxval + 2 * near) / (2 * near + 1) + 1;
        // ⌈log₂ x⌉ for x > 1.
        let log2 = |x: i32| 32 - (x - 1).leading_zeros();
        let bpp = log2(maxval + 1).max(2);
        let context = Context { a: i64::from(2.max((range + 32) / 64)), b: 0, c: 0, n: 1 };
        Self {
            parameters,
            bits,
            range,
            qbpp: log2(range),
            limit: 2 * (bpp + bpp.max(8)),
            contexts: vec![context; REGULAR_CONTEXTS + 2],
            nn: [0; 2],
            run_index: 0,
        }
    }

    fn decode(mut self, extent: Extent) -> Result<Vec<u16>, CodecError> {
        let columns = usize::from(extent.columns);
        let mut samples = Vec::with_capacity(extent.samples());
        // Both lines have one more sample on either side (A.2.1, figure A.3): what stands beyond the edges.
        let (mut above, mut line) = (vec![0i32; columns + 2], vec![0i32; columns + 2]);
        for _ in 0..extent.rows {
            above[columns + 1] = above[columns];
            line[0] = above[1];
            self.decode_line(&above, &mut line)?;
            samples.extend(line[1..=columns].iter().map(|&sample| (sample as u16) << self.parameters.point_transform));
            std::mem::swap(&mut above, &mut line);
        }
        Ok(samples)
    }

    fn decode_line(&mut self, above: &[i32], line: &mut [i32]) -> Result<(), CodecError> {
        let end = line.len() - 1;
        let near = self.parameters.near;
        let mut x = 1;
        while x < end {
            let (ra, rb, rc, rd) = (line[x - 1], above[x], above[x - 1], above[x + 1]);
            let gradients = [rd - rb, rb - rc, rc - ra];
            if gradients.iter().any(|d| d.abs() > near) {
                line[x] = self.regular(gradients, ra, rb, rc)?;
                x += 1;
                continue;
            }
            let run = self.run_length(end - x)?;
            line[x..x + run].fill(ra);
            x += run;
            if x < end {
                line[x] = self.run_interruption(ra, above[x])?;
                self.run_index = self.run_index.saturating_sub(1);
                x += 1;
            }
        }
        Ok(())
    }

    /// One sample of the regular mode (A.3–A.6).
    fn regular(&mut self, gradients: [i32; 3], ra: i32, rb: i32, rc: i32) -> Result<i32, CodecError> {
        let [q1, q2, q3] = gradients.map(|d| self.quantize(d));
        let q = 81 * q1 + 9 * q2 + q3;
        let sign = if q < 0 { -1 } else { 1 };
        let index = q.unsigned_abs() as usize;
        let Context { a, b, c, n } = self.contexts[index];
        let near = self.parameters.near;

        let median = if rc >= ra.max(rb) {
            ra.min(rb)
        } else if rc <= ra.min(rb) {
            ra.max(rb)
        } else {
            ra + rb - rc
        };
        let prediction = (median + sign * c).clamp(0, self.parameters.maxval);

        let k = golomb_parameter(n, a);
        let mapped = self.bits.golomb(k, self.limit, self.qbpp)?;
        let swapped = near == 0 && k == 0 && 2 * b <= -n;
        let error = match (swapped, mapped % 2 == 0) {
            (false, true) => mapped / 2,
            (false, false) => -(mapped + 1) / 2,
            (true, true) => -(mapped / 2) - 1,
            (true, false) => (mapped - 1) / 2,
        };
        self.check(error)?;
        self.contexts[index] = updated(Context { a, b, c, n }, error, i64::from(2 * near + 1), self.parameters.reset);
        Ok(self.reconstruct(prediction, sign * error as i32))
    }

    /// The region of a gradient (A.3.3).
    fn quantize(&self, d: i32) -> i32 {
        let Parameters { near, t1, t2, t3, .. } = self.parameters;
        let size = d.abs();
        let region = if size <= near {
            0
        } else if size < t1 {
            1
        } else if size < t2 {
            2
        } else if size < t3 {
            3
        } else {
            4
        };
        if d < 0 { -region } else { region }
    }

    /// The length of a run, at most what is left of the line (A.7.1).
    fn run_length(&mut self, left: usize) -> Result<usize, CodecError> {
        let mut run = 0;
        while self.bits.take(1)? == 1 {
            let block = 1usize << J[self.run_index];
            if block <= left - run {
                run += block;
                self.run_index = (self.run_index + 1).min(31);
            } else {
                run = left;
            }
            if run == left {
                return Ok(run);
            }
        }
        run += self.bits.take(J[self.run_index])? as usize;
        // An interrupted run leaves room for the sample that interrupts it.
        if run < left { Ok(run) } else { Err(CodecError::Damaged("run beyond the line")) }
    }

    /// The sample that ends a run (A.7.2).
    fn run_interruption(&mut self, ra: i32, rb: i32) -> Result<i32, CodecError> {
        let near = self.parameters.near;
        let kind = usize::from((ra - rb).abs() <= near);
        let ritype = kind as i64;
        let context = self.contexts[REGULAR_CONTEXTS + kind];
        let Context { mut a, mut n, .. } = context;
        let mut nn = self.nn[kind];
        let k = golomb_parameter(n, if kind == 1 { a + (n >> 1) } else { a });
        let mapped = self.bits.golomb(k, self.limit - J[self.run_index] - 1, self.qbpp)?;

        let sum = mapped + ritype;
        let map = sum % 2;
        let size = (sum + map) / 2;
        let negative = (k != 0 || 2 * nn >= n) == (map == 1);
        let error = if negative { -size } else { size };
        self.check(error)?;
        nn += i64::from(error < 0);
        a += (mapped + 1 - ritype) >> 1;
        if n == self.parameters.reset {
            a >>= 1;
            n >>= 1;
            nn >>= 1;
        }
        self.contexts[REGULAR_CONTEXTS + kind] = Context { a, n: n + 1, ..context };
        self.nn[kind] = nn;
        let sign = if kind == 0 && ra > rb { -1 } else { 1 };
        Ok(self.reconstruct(if kind == 1 { ra } else { rb }, sign * error as i32))
    }

    /// No sound file has a larger error; a broken one must not make the statistics overflow.
    fn check(&self, error: i64) -> Result<(), CodecError> {
        if error.abs() <= i64::from(self.range) { Ok(()) } else { Err(CodecError::Damaged("prediction error")) }
    }

    /// Prediction plus dequantized error, folded into the range (A.4.4, A.4.5).
    fn reconstruct(&self, prediction: i32, error: i32) -> i32 {
        let Parameters { near, maxval, .. } = self.parameters;
        let step = 2 * near + 1;
        let mut value = prediction + error * step;
        if value < -near {
            value += self.range * step;
        } else if value > maxval + near {
            value -= self.range * step;
        }
        value.clamp(0, maxval)
    }
}

/// The smallest k with n·2ᵏ ≥ a (A.5.1). Bounded: `a` is, by [`Decoder::check`] and the halvings.
fn golomb_parameter(n: i64, a: i64) -> u32 {
    (0..32).find(|&k| n << k >= a).unwrap_or(32)
}

/// A regular context after an error (A.6).
fn updated(context: Context, error: i64, step: i64, reset: i64) -> Context {
    let Context { mut a, mut b, mut c, mut n } = context;
    b += error * step;
    a += error.abs();
    if n == reset {
        a >>= 1;
        b >>= 1;
        n >>= 1;
    }
    n += 1;
    if b <= -n {
        b = (b + n).max(1 - n);
        c = (c - 1).max(-128);
    } else if b > 0 {
        b = (b - n).min(0);
        c = (c + 1).min(127);
    }
    Context { a, b, c, n }
}
