//! A small DICOM writer for tests: explicit or implicit VR, either byte order, native or encapsulated pixel data.
#![allow(dead_code, unreachable_pub, missing_docs)] // every test file compiles its own copy and uses a part of it

pub const IMPLICIT: &str = "1.2.840.10008.1.2";
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
pub const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
pub const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
pub const RLE: &str = "1.2.840.10008.1.2.5";
pub const CR: &str = "1.2.840.10008.5.1.4.1.1.1";

/// One element's value: bytes as they stand in the file, or items.
#[derive(Clone)]
enum Value {
    Bytes(Vec<u8>),
    Words(Vec<u16>),
    Items(Vec<Dataset>),
    Fragments(Vec<Vec<u8>>),
}

/// A data set under construction; elements are written in the order of their tags.
#[derive(Clone, Default)]
pub struct Dataset {
    elements: std::collections::BTreeMap<(u16, u16), (&'static str, Value)>,
}

impl Dataset {
    pub fn text(mut self, tag: (u16, u16), vr: &'static str, text: &str) -> Self {
        let padding = if vr == "UI" { '\0' } else { ' ' };
        let mut text = text.to_string();
        if text.len() % 2 == 1 {
            text.push(padding);
        }
        self.elements.insert(tag, (vr, Value::Bytes(text.into_bytes())));
        self
    }

    pub fn words(mut self, tag: (u16, u16), vr: &'static str, words: &[u16]) -> Self {
        self.elements.insert(tag, (vr, Value::Words(words.to_vec())));
        self
    }

    pub fn bytes(mut self, tag: (u16, u16), vr: &'static str, bytes: &[u8]) -> Self {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        self.elements.insert(tag, (vr, Value::Bytes(bytes)));
        self
    }

    pub fn items(mut self, tag: (u16, u16), items: Vec<Dataset>) -> Self {
        self.elements.insert(tag, ("SQ", Value::Items(items)));
        self
    }

    /// Encapsulated pixel data of the given fragments, with an empty offset table.
    pub fn fragments(mut self, fragments: &[&[u8]]) -> Self {
        let fragments = fragments.iter().map(|fragment| fragment.to_vec()).collect();
        self.elements.insert((0x7fe0, 0x0010), ("OB", Value::Fragments(fragments)));
        self
    }

    pub fn without(mut self, tag: (u16, u16)) -> Self {
        self.elements.remove(&tag);
        self
    }

    /// The file: preamble, file meta information, data set.
    pub fn file(&self, syntax: &str) -> Vec<u8> {
        let meta = Dataset::default().text((2, 0x10), "UI", syntax).bytes((2, 1), "OB", &[0, 1]);
        let meta = meta.bare(EXPLICIT);
        let mut file = vec![0; 128];
        file.extend(b"DICM");
        file.extend([2, 0, 0, 0, b'U', b'L', 4, 0]);
        file.extend((meta.len() as u32).to_le_bytes());
        file.extend(meta);
        if syntax == DEFLATED {
            let mut encoder = flate2::write::DeflateEncoder::new(file, flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, &self.bare(EXPLICIT)).unwrap();
            encoder.finish().unwrap()
        } else {
            file.extend(self.bare(syntax));
            file
        }
    }

    /// The data set alone.
    pub fn bare(&self, syntax: &str) -> Vec<u8> {
        let big = syntax == BIG_ENDIAN;
        let u16_bytes = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let u32_bytes = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
        let tag_bytes = |(group, element): (u16, u16)| [u16_bytes(group), u16_bytes(element)].concat();
        let mut out = Vec::new();
        for (&tag, (vr, value)) in &self.elements {
            let undefined = matches!(value, Value::Items(_) | Value::Fragments(_));
            let bytes = match value {
                Value::Bytes(bytes) => bytes.clone(),
                Value::Words(words) => words.iter().flat_map(|&word| u16_bytes(word)).collect(),
                Value::Items(items) => {
                    let mut bytes = Vec::new();
                    for item in items {
                        let item = item.bare(syntax);
                        bytes.extend(tag_bytes((0xfffe, 0xe000)));
                        bytes.extend(u32_bytes(item.len() as u32));
                        bytes.extend(item);
                    }
                    bytes.extend(tag_bytes((0xfffe, 0xe0dd)));
                    bytes.extend(u32_bytes(0));
                    bytes
                }
                Value::Fragments(fragments) => {
                    let mut bytes = Vec::new();
                    for fragment in std::iter::once(&Vec::new()).chain(fragments) {
                        let length = fragment.len().next_multiple_of(2);
                        bytes.extend(tag_bytes((0xfffe, 0xe000)));
                        bytes.extend(u32_bytes(length as u32));
                        bytes.extend(fragment);
                        bytes.resize(bytes.len() + length - fragment.len(), 0);
                    }
                    bytes.extend(tag_bytes((0xfffe, 0xe0dd)));
                    bytes.extend(u32_bytes(0));
                    bytes
                }
            };
            out.extend(tag_bytes(tag));
            let length = if undefined { u32::MAX } else { bytes.len() as u32 };
            if syntax == IMPLICIT {
                out.extend(u32_bytes(length));
            } else {
                out.extend(vr.as_bytes());
                if matches!(*vr, "OB" | "OW" | "SQ" | "UC" | "UN" | "UR" | "UT") {
                    out.extend([0, 0]);
                    out.extend(u32_bytes(length));
                } else {
                    out.extend(u16_bytes(length as u16));
                }
            }
            out.extend(bytes);
        }
        out
    }
}

/// A grey image's tags without its pixel data, as a chest CR writes them.
pub fn chest(rows: u16, columns: u16, allocated: u16, stored: u16) -> Dataset {
    Dataset::default()
        .text((0x0008, 0x0016), "UI", CR)
        .text((0x0008, 0x0018), "UI", "1.2.3.4.5")
        .text((0x0008, 0x0060), "CS", "CR")
        .text((0x0010, 0x0010), "PN", "Doe^Jane")
        .text((0x0010, 0x0020), "LO", "PATIENT-4711")
        .text((0x0018, 0x0015), "CS", "CHEST")
        .text((0x0018, 0x5101), "CS", "PA")
        .text((0x0020, 0x000d), "UI", "1.2.3.4")
        .text((0x0020, 0x000e), "UI", "1.2.3.4.6")
        .words((0x0028, 0x0002), "US", &[1])
        .text((0x0028, 0x0004), "CS", "MONOCHROME2")
        .words((0x0028, 0x0010), "US", &[rows])
        .words((0x0028, 0x0011), "US", &[columns])
        .words((0x0028, 0x0100), "US", &[allocated])
        .words((0x0028, 0x0101), "US", &[stored])
        .words((0x0028, 0x0102), "US", &[stored - 1])
        .words((0x0028, 0x0103), "US", &[0])
}

pub const PHOTOMETRIC: (u16, u16) = (0x0028, 0x0004);
pub const REPRESENTATION: (u16, u16) = (0x0028, 0x0103);
pub const PADDING: (u16, u16) = (0x0028, 0x0120);
pub const PADDING_LIMIT: (u16, u16) = (0x0028, 0x0121);
pub const CENTER: (u16, u16) = (0x0028, 0x1050);
pub const WIDTH: (u16, u16) = (0x0028, 0x1051);
pub const INTERCEPT: (u16, u16) = (0x0028, 0x1052);
pub const SLOPE: (u16, u16) = (0x0028, 0x1053);
pub const FUNCTION: (u16, u16) = (0x0028, 0x1056);
pub const PIXELS: (u16, u16) = (0x7fe0, 0x0010);

/// One RLE frame of samples of one or two bytes: PackBits with literal runs and repetitions.
pub fn rle(samples: &[u16], bytes_per_sample: usize) -> Vec<u8> {
    let mut segments = Vec::new();
    for byte in (0..bytes_per_sample).rev() {
        let plane: Vec<u8> = samples.iter().map(|sample| (sample >> (8 * byte)) as u8).collect();
        let mut segment = Vec::new();
        let mut rest = &plane[..];
        while let Some(&first) = rest.first() {
            let run = rest.iter().take(128).take_while(|&&byte| byte == first).count();
            if run > 1 {
                segment.extend([(257 - run) as u8, first]);
                rest = &rest[run..];
            } else {
                let literals = rest.windows(2).take(127).take_while(|pair| pair[0] != pair[1]).count().max(1);
                segment.push((literals - 1) as u8);
                segment.extend(&rest[..literals]);
                rest = &rest[literals..];
            }
        }
        segment.resize(segment.len().next_multiple_of(2), 0);
        segments.push(segment);
    }
    let mut frame = (segments.len() as u32).to_le_bytes().to_vec();
    let mut offset = 64;
    for segment in &segments {
        frame.extend((offset as u32).to_le_bytes());
        offset += segment.len();
    }
    frame.resize(64, 0);
    frame.extend(segments.concat());
    frame
}
