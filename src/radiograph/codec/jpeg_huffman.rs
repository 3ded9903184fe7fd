//! What the Huffman-coded processes of JPEG share (ITU-T T.81 annexes B, C, F.2.2): tables, the bits of a scan, restart
//! intervals. Not the processes themselves.

use super::jpeg::{Header, Segments};
use super::{CodecError, Extent};

/// A Huffman table, decoded canonically: for each length the first code and where its values begin.
#[derive(Clone)]
pub(super) struct Huffman {
    /// For each 8-bit prefix: length and value of the code that it begins with, or length 0 when that is longer.
    short: Vec<(u8, u8)>,
    /// For each length 1..=16: the code after the last one, shifted up to 16 bits; what is below has this length.
    limit: [u32; 17],
    /// For each length: index of its first value less its first code.
    delta: [i32; 17],
    values: Vec<u8>,
}

impl Huffman {
    /// Builds a table from the counts of codes by length and the values in order.
    fn new(counts: &[u8; 16], values: &[u8]) -> Result<Self, CodecError> {
        let mut table = Self { short: vec![(0, 0); 256], limit: [0; 17], delta: [0; 17], values: values.to_vec() };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1..=16usize).zip(counts) {
            let count = usize::from(count);
            if code + count as u32 > 1 << length || index + count > values.len() {
                return Err(CodecError::Damaged("impossible Huffman table"));
            }
            table.delta[length] = index as i32 - code as i32;
            for &value in &values[index..index + count] {
                if length <= 8 {
                    let first = (code as usize) << (8 - length);
                    table.short[first..first + (1 << (8 - length))].fill((length as u8, value));
                }
                code += 1;
            }
            index += count;
            table.limit[length] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }
}

/// The bits of an entropy-coded segment, stuffed bytes taken out.
pub(super) struct Bits<'a> {
    stream: &'a [u8],
    position: usize,
    /// The next `count` bits, in the lowest places.
    buffer: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(stream: &'a [u8], position: usize) -> Self {
        Self { stream, position, buffer: 0, count: 0 }
    }

    /// Reads bytes until 32 bits are there or a marker comes.
    fn fill(&mut self) {
        while self.count <= 32 {
            let Some(&byte) = self.stream.get(self.position) else { return };
            if byte == 0xff {
                if self.stream.get(self.position + 1) != Some(&0) {
                    return;
                }
                self.position += 1;
            }
            self.position += 1;
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next `length` bits (at most 16) as a number.
    pub(super) fn take(&mut self, length: u32) -> Result<u32, CodecError> {
        if self.count < length {
            self.fill();
            if self.count < length {
                return Err(CodecError::Damaged("scan ends early"));
            }
        }
        self.count -= length;
        Ok((self.buffer >> self.count) as u32 & ((1 << length) - 1))
    }

    /// The next Huffman-coded value.
    pub(super) fn symbol(&mut self, table: &Huffman) -> Result<u8, CodecError> {
        if self.count < 16 {
            self.fill();
        }
        // Beyond the end the window is filled with zeros; `take` then refuses a code that reaches there.
        let window = if self.count >= 16 { self.buffer >> (self.count - 16) } else { self.buffer << (16 - self.count) };
        let window = window as u32 & 0xffff;
        let (length, value) = table.short[(window >> 8) as usize];
        if length > 0 {
            self.take(u32::from(length))?;
            return Ok(value);
        }
        for length in 9..=16usize {
            if window < table.limit[length] {
                let code = self.take(length as u32)? as i32;
                let index = usize::try_from(code + table.delta[length]).ok();
                return index
                    .and_then(|index| table.values.get(index).copied())
                    .ok_or(CodecError::Damaged("unknown Huffman code"));
            }
        }
        Err(CodecError::Damaged("unknown Huffman code"))
    }

    /// A signed number of `length` bits (at most 16) in JPEG's form: the upper half positive (T.81 F.2.2.1, EXTEND).
    pub(super) fn extended(&mut self, length: u32) -> Result<i32, CodecError> {
        if length == 0 {
            return Ok(0);
        }
        let value = self.take(length)? as i32;
        Ok(if value < 1 << (length - 1) { value - (1 << length) + 1 } else { value })
    }

    /// Goes over the `index`-th restart marker.
    pub(super) fn restart(&mut self, index: usize) -> Result<(), CodecError> {
        self.fill();
        let expected = [0xff, 0xd0 + (index % 8) as u8];
        if self.count >= 8 || self.stream.get(self.position..self.position + 2) != Some(&expected) {
            return Err(CodecError::Damaged("restart marker missing"));
        }
        self.position += 2;
        self.buffer = 0;
        self.count = 0;
        Ok(())
    }
}

/// The one scan of a grey picture: its header, the tables in force, and where its data begin.
pub(super) struct Scan<'a> {
    pub(super) header: Header,
    pub(super) bits: Bits<'a>,
    /// Units (samples or blocks) between restart markers; 0 for none.
    pub(super) restart_interval: usize,
    /// The table for DC coefficients or lossless differences.
    pub(super) dc: Huffman,
    /// The table for AC coefficients, where the scan has one.
    pub(super) ac: Option<Huffman>,
    /// The quantization table, in zigzag order, where the frame has one.
    pub(super) quantization: Option<[u16; 64]>,
    /// `Ss`: the predictor of lossless scans.
    pub(super) selection: u8,
    /// `Al`: the point transform of lossless scans.
    pub(super) point_transform: u8,
}

impl<'a> Scan<'a> {
    /// Reads all segments up to the data of the scan of a picture whose size must be `extent`.
    pub(super) fn read(stream: &'a [u8], extent: Extent) -> Result<Self, CodecError> {
        let header = Header::read(stream)?;
        header.require_extent(extent)?;
        if header.components != 1 {
            return Err(CodecError::Unsupported("JPEG of this process with several components"));
        }
        let (mut dc, mut ac, mut quantization) = (vec![None; 4], vec![None; 4], [None; 4]);
        let (mut restart_interval, mut table_of_component) = (0, 0);
        let mut segments = Segments { stream, position: 2 };
        while let Some(segment) = segments.next()? {
            let payload = segment.payload;
            match segment.marker {
                0xc4 => read_huffman_tables(payload, &mut dc, &mut ac)?,
                0xdb => read_quantization_tables(payload, &mut quantization)?,
                0xdd => {
                    let &[high, low] = payload else { return Err(CodecError::Damaged("restart interval")) };
                    restart_interval = usize::from(u16::from_be_bytes([high, low]));
                }
                marker if marker == header.sof => {
                    table_of_component = usize::from(payload.get(8).copied().unwrap_or(0) & 3);
                }
                0xda => {
                    let &[1, _, tables, selection, _, approximation] = payload else {
                        return Err(CodecError::Damaged("scan header"));
                    };
                    let dc = dc.swap_remove(usize::from(tables >> 4 & 3));
                    return Ok(Self {
                        header,
                        bits: Bits::new(stream, segments.position),
                        restart_interval,
                        dc: dc.ok_or(CodecError::Damaged("no Huffman table"))?,
                        ac: ac.swap_remove(usize::from(tables & 3)),
                        quantization: quantization[table_of_component],
                        selection,
                        point_transform: approximation & 15,
                    });
                }
                _ => {}
            }
        }
        Err(CodecError::Damaged("no scan"))
    }
}

/// Reads a DHT segment.
fn read_huffman_tables(
    mut payload: &[u8],
    dc: &mut [Option<Huffman>],
    ac: &mut [Option<Huffman>],
) -> Result<(), CodecError> {
    while let Some((&class, rest)) = payload.split_first() {
        let (counts, rest) = rest.split_first_chunk::<16>().ok_or(CodecError::Damaged("Huffman table ends early"))?;
        let values = counts.iter().map(|&count| usize::from(count)).sum();
        let (values, rest) = rest.split_at_checked(values).ok_or(CodecError::Damaged("Huffman table ends early"))?;
        let tables = if class >> 4 == 0 { &mut *dc } else { &mut *ac };
        tables[usize::from(class & 3)] = Some(Huffman::new(counts, values)?);
        payload = rest;
    }
    Ok(())
}

/// Reads a DQT segment.
fn read_quantization_tables(mut payload: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Result<(), CodecError> {
    while let Some((&head, rest)) = payload.split_first() {
        let bytes = if head >> 4 == 0 { 1 } else { 2 };
        let (data, rest) =
            rest.split_at_checked(64 * bytes).ok_or(CodecError::Damaged("quantization table ends early"))?;
        let value = |i: usize| data[i * bytes..(i + 1) * bytes].iter().fold(0, |sum, &byte| sum << 8 | u16::from(byte));
        tables[usize::from(head & 3)] = Some(std::array::from_fn(value));
        payload = rest;
    }
    Ok(())
}
