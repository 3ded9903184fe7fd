//! The pixel formats of cameras: which mode of a device is taken, and its bytes as grey levels. Nothing of a device itself.
//!
//! Which mode: of those whose shorter side has 480 pixels or more (a film that fills half of the picture's height then has
//! the 224 that the network reads) and which have at most 1920 × 1200 (more costs time and shows nothing more to 224 × 224)
//! the largest; where there is none between, the one that comes nearest. At equal size Y16 before GREY, YUYV, NV12 and
//! MJPG: more bits first, and what a camera has compressed last. Modes of fewer than 2 pictures a second are left out.

use super::grey::Grey;
use image::{ImageFormat, ImageReader};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The shorter side that a mode should have.
const LEAST_SIDE: u32 = 480;
/// Pixels that a mode should have at most.
const MOST_PIXELS: u64 = 1920 * 1200;
/// Pixels that a frame may have at all.
pub(super) const MAX_PIXELS: u64 = 20_000_000;
/// Pictures a second that a mode should have.
const LEAST_RATE: f64 = 2.0;
/// Bits that levels of 16 bits are taken to have at least.
const LEAST_BITS: u32 = 10;

/// A pixel format, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PixelFormat {
    /// Grey, 16 bits, little endian; many sensors fill the lower 10 or 12 only.
    Y16,
    /// Grey, 8 bits.
    Grey,
    /// Y, U, Y, V: every second byte is grey.
    Yuyv,
    /// A plane of grey and one of colour.
    Nv12,
    /// A JPEG a frame.
    Mjpg,
}

impl PixelFormat {
    /// All, best first.
    pub const ALL: [PixelFormat; 5] = [Self::Y16, Self::Grey, Self::Yuyv, Self::Nv12, Self::Mjpg];

    /// The four letters that Video4Linux calls it.
    pub fn code(self) -> [u8; 4] {
        match self {
            Self::Y16 => *b"Y16 ",
            Self::Grey => *b"GREY",
            Self::Yuyv => *b"YUYV",
            Self::Nv12 => *b"NV12",
            Self::Mjpg => *b"MJPG",
        }
    }

    /// The same as text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Y16 => "Y16",
            Self::Grey => "GREY",
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Mjpg => "MJPG",
        }
    }

    /// The format of these four letters, where this program reads it.
    pub fn of_code(code: [u8; 4]) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.code() == code)
    }

    /// The format of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// Bytes from one grey level to the next along a row.
    fn step(self) -> usize {
        match self {
            Self::Y16 | Self::Yuyv => 2,
            Self::Grey | Self::Nv12 | Self::Mjpg => 1,
        }
    }
}

/// A mode of a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mode {
    /// Its pixels.
    pub format: PixelFormat,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Pictures a second at most, where the device says so.
    pub rate: Option<f64>,
}

impl Mode {
    /// How far it is from what is wanted: lower is better, in this order.
    fn order(&self) -> (u8, i64, PixelFormat, i64) {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let (is_small, is_large) = (self.width.min(self.height) < LEAST_SIDE, pixels > MOST_PIXELS);
        let pixels = i64::try_from(pixels).unwrap_or(i64::MAX);
        let rate = -(self.rate.unwrap_or(0.0) * 100.0) as i64;
        match (is_small, is_large) {
            (false, false) => (0, -pixels, self.format, rate),
            (_, true) => (1, pixels, self.format, rate),
            (true, false) => (2, -pixels, self.format, rate),
        }
    }
}

/// The mode to take of these; only of this format and size, where one is asked for. `None` where none is left.
pub fn best(modes: &[Mode], format: Option<PixelFormat>, size: Option<(u32, u32)>) -> Option<Mode> {
    let asked = |mode: &&Mode| {
        format.is_none_or(|format| mode.format == format)
            && size.is_none_or(|size| (mode.width, mode.height) == size)
            && mode.width > 0
            && mode.height > 0
    };
    let is_fast = |mode: &&Mode| mode.rate.is_none_or(|rate| rate >= LEAST_RATE);
    let candidates: Vec<&Mode> = modes.iter().filter(asked).collect();
    let fast = candidates.iter().copied().filter(is_fast).min_by_key(|mode| mode.order());
    fast.or_else(|| candidates.into_iter().min_by_key(|mode| mode.order())).copied()
}

/// What came of negotiating with a device: how its bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Its pixels.
    pub format: PixelFormat,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from one row to the next, as the driver says. Some forget to change it when the format changes: more than the
    /// pixels need is believed, less is not.
    pub stride: u32,
}

/// A frame whose bytes cannot be read as an image. The next one may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Fewer bytes than the format needs.
    #[error("a frame came with {got} bytes instead of {needed}")]
    Short {
        /// Bytes that came.
        got: usize,
        /// Bytes that the format needs.
        needed: usize,
    },
    /// A JPEG that is damaged or not of the size that was agreed on.
    #[error("a frame came damaged")]
    Damaged,
    /// A size that no camera has.
    #[error("the camera's frames have no usable size")]
    Size,
}

/// Makes grey levels of frames' bytes.
#[derive(Debug, Clone)]
pub struct Decoder {
    layout: Layout,
    /// How many bits of 16 have been seen in use. It only grows, so that the scale does not flicker.
    bits: u32,
}

impl Decoder {
    /// For frames of this layout.
    pub fn new(layout: Layout) -> Self {
        Self { layout, bits: LEAST_BITS }
    }

    /// The frame's grey levels.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Grey, BadFrame> {
        let Layout { format, width, height, stride } = self.layout;
        if width == 0 || height == 0 || u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(BadFrame::Size);
        }
        let (width, height) = (width as usize, height as usize);
        if format == PixelFormat::Mjpg {
            return jpeg(bytes, width, height);
        }
        let row = width * format.step();
        let stride = (stride as usize).max(row);
        // The last row need not be padded; the colours below NV12's grey plane are not looked at.
        let needed = stride.saturating_mul(height - 1).saturating_add(row);
        // A driver whose stride is a leftover sends rows without padding: then the bytes fit exactly so.
        let stride = match bytes.len() {
            got if got >= needed => stride,
            got if got >= row * height => row,
            got => return Err(BadFrame::Short { got, needed }),
        };
        let rows = bytes.chunks(stride).take(height).map(|line| &line[..row]);
        let levels = if format == PixelFormat::Y16 {
            let levels: Vec<u16> =
                rows.flat_map(|line| line.chunks_exact(2)).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            self.spread(levels)
        } else {
            rows.flat_map(|line| line.iter().step_by(format.step())).map(|&level| u16::from(level) * 257).collect()
        };
        Grey::new(width, height, levels).ok_or(BadFrame::Size)
    }

    /// Spreads levels of 10 to 16 bits over 16.
    fn spread(&mut self, mut levels: Vec<u16>) -> Vec<u16> {
        // A hot pixel, or a row of data, is no light.
        let mut used = [0usize; 17];
        levels.iter().for_each(|level| used[16 - level.leading_zeros() as usize] += 1);
        let few = levels.len() / 500;
        let above = |bits: u32| used[bits as usize + 1..].iter().sum::<usize>();
        let bits = (LEAST_BITS..16).find(|&bits| above(bits) <= few).unwrap_or(16);
        self.bits = self.bits.max(bits);
        let full = (1u32 << self.bits) - 1;
        if full < 65535 {
            levels.iter_mut().for_each(|level| *level = (u32::from(*level).min(full) * 65535 / full) as u16);
        }
        levels
    }
}

/// The grey levels of a JPEG.
fn jpeg(bytes: &[u8], width: usize, height: usize) -> Result<Grey, BadFrame> {
    // Cameras pad frames; what has no end marker was cut off, and the decoder would fill in the rest.
    let end = bytes.windows(2).rposition(|pair| pair == [0xff, 0xd9]).ok_or(BadFrame::Damaged)? + 2;
    let whole = with_tables(&bytes[..end]);
    // The decoder is another's code: one that panics over a frame is no reason to stop.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let mut reader = ImageReader::with_format(Cursor::new(&whole), ImageFormat::Jpeg);
        let mut limits = image::Limits::default();
        (limits.max_image_width, limits.max_image_height) = (u32::try_from(width).ok(), u32::try_from(height).ok());
        reader.limits(limits);
        reader.decode().ok().map(|image| image.into_luma8())
    }));
    let image = decoded.ok().flatten().ok_or(BadFrame::Damaged)?;
    if (image.width() as usize, image.height() as usize) != (width, height) {
        return Err(BadFrame::Damaged);
    }
    let levels = image.into_raw().into_iter().map(|level| u16::from(level) * 257).collect();
    Grey::new(width, height, levels).ok_or(BadFrame::Damaged)
}

/// Many cameras leave out the standard's own Huffman tables, as frames of an AVI may: where there are none, the frame is
/// called one of those, for which decoders take the standard's.
fn with_tables(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap_or(bytes.len());
    let has_tables = bytes[..start].windows(2).any(|pair| pair == [0xff, 0xc4]);
    if has_tables || !bytes.starts_with(&[0xff, 0xd8]) {
        return bytes.to_vec();
    }
    let mut whole = vec![0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10];
    whole.extend_from_slice(b"AVI1\0\0\0\0\0\0\0\0\0\0");
    whole.extend_from_slice(&bytes[2..]);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(format: PixelFormat, width: u32, height: u32, rate: f64) -> Mode {
        Mode { format, width, height, rate: Some(rate) }
    }

    #[test]
    fn the_largest_useful_mode_is_taken_and_of_equal_ones_the_least_compressed() {
        use PixelFormat::{Grey, Mjpg, Nv12, Y16, Yuyv};
        let modes = [
            mode(Yuyv, 640, 480, 30.0),
            mode(Mjpg, 1920, 1080, 30.0),
            mode(Yuyv, 1920, 1080, 5.0),
            mode(Mjpg, 3840, 2160, 30.0),
            mode(Nv12, 320, 240, 30.0),
        ];
        assert_eq!(best(&modes, None, None), Some(modes[2]));
        assert_eq!(best(&modes, Some(Mjpg), None), Some(modes[1]));
        assert_eq!(best(&modes, None, Some((640, 480))), Some(modes[0]));
        assert_eq!(best(&modes, Some(Y16), None), None);
        // Too slow, unless there is no other.
        let slow = [mode(Grey, 1920, 1080, 1.0), mode(Mjpg, 1280, 720, 30.0)];
        assert_eq!(best(&slow, None, None), Some(slow[1]));
        assert_eq!(best(&slow[..1], None, None), Some(slow[0]));
        // Rather too large than too small; of the large ones the smallest.
        let far = [mode(Yuyv, 320, 240, 30.0), mode(Yuyv, 4096, 3000, 5.0), mode(Yuyv, 2592, 1944, 5.0)];
        assert_eq!(best(&far, None, None), Some(far[2]));
        assert_eq!(best(&far[..1], None, None), Some(far[0]));
        assert_eq!(best(&[], None, None), None);
    }

    /// 5 × 3 levels in a format, rows `stride` bytes apart, the padding being white.
    fn bytes(format: PixelFormat, stride: usize, level: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        let mut all = Vec::new();
        for row in 0..3 {
            let mut line = Vec::new();
            for column in 0..5 {
                match format {
                    PixelFormat::Y16 => line.extend((u16::from(level(column, row)) * 16).to_le_bytes()),
                    PixelFormat::Yuyv => line.extend([level(column, row), 128]),
                    _ => line.push(level(column, row)),
                }
            }
            line.resize(stride.max(line.len()), 255);
            all.extend(line);
        }
        all
    }

    #[test]
    fn every_format_gives_its_levels_whatever_the_stride() {
        let level = |column: usize, row: usize| (column * 20 + row * 60) as u8;
        for format in [PixelFormat::Y16, PixelFormat::Grey, PixelFormat::Yuyv, PixelFormat::Nv12] {
            // What the driver says, what it sends.
            for (said, sent) in [(0, 0), (16, 16), (32, 32), (32, 0)] {
                let layout = Layout { format, width: 5, height: 3, stride: said };
                let image = Decoder::new(layout).decode(&bytes(format, sent, level)).unwrap();
                for row in 0..3 {
                    for column in 0..5 {
                        let found = f64::from(image.levels()[row * 5 + column]) / 65535.0;
                        let full = if format == PixelFormat::Y16 { 4095.0 / 16.0 } else { 255.0 };
                        let expected = f64::from(level(column, row)) / full;
                        assert!((found - expected).abs() < 1e-4, "{format:?} {said} {sent} {column} {row}: {found}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_hot_pixel_does_not_darken_the_rest() {
        let mut levels = vec![4000u16; 1000];
        levels[7] = 65535;
        let mut decoder = Decoder::new(Layout { format: PixelFormat::Y16, width: 100, height: 10, stride: 0 });
        let bytes: Vec<u8> = levels.iter().flat_map(|level| level.to_le_bytes()).collect();
        let image = decoder.decode(&bytes).unwrap();
        assert_eq!((image.levels()[0], image.levels()[7]), ((4000u32 * 65535 / 4095) as u16, 65535));
    }

    #[test]
    fn frames_that_are_cut_off_are_refused_and_break_nothing() {
        for format in PixelFormat::ALL {
            let layout = Layout { format, width: 5, height: 3, stride: 0 };
            let whole = bytes(format, 0, |_, _| 7);
            for length in 0..whole.len() {
                assert!(Decoder::new(layout).decode(&whole[..length]).is_err(), "{format:?} {length}");
            }
            let layout = Layout { width: u32::MAX, height: u32::MAX, stride: u32::MAX, ..layout };
            assert_eq!(Decoder::new(layout).decode(&whole), Err(BadFrame::Size));
            let layout = Layout { width: 4096, height: 4096, ..layout };
            assert!(Decoder::new(layout).decode(&whole).is_err());
        }
    }

    #[test]
    fn jpegs_are_read_with_tables_and_without() {
        let picture = image::GrayImage::from_fn(64, 48, |x, y| image::Luma([(x * 3 + y) as u8]));
        let mut whole = Cursor::new(Vec::new());
        picture.write_to(&mut whole, ImageFormat::Jpeg).unwrap();
        let whole = whole.into_inner();
        let mut decoder = Decoder::new(Layout { format: PixelFormat::Mjpg, width: 64, height: 48, stride: 0 });
        let image = decoder.decode(&[&whole[..], &[0; 100]].concat()).unwrap();
        let far = |index: usize| (f64::from(image.levels()[index]) / 257.0 - f64::from(picture.as_raw()[index])).abs();
        assert!((0..64 * 48).all(|index| far(index) < 12.0));
        // The encoder's tables are the standard's: without them the same must come out.
        let mut bare = Vec::new();
        let mut at = 0;
        while at < whole.len() {
            if whole[at..].starts_with(&[0xff, 0xc4]) {
                at += 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
            } else {
                bare.push(whole[at]);
                at += 1;
            }
        }
        assert!(bare.len() + 100 < whole.len());
        assert_eq!(decoder.decode(&bare).unwrap(), image);
        assert_eq!(decoder.decode(&whole[..whole.len() / 2]), Err(BadFrame::Damaged));
        let mut other = Decoder::new(Layout { format: PixelFormat::Mjpg, width: 32, height: 48, stride: 0 });
        assert_eq!(other.decode(&whole), Err(BadFrame::Damaged));
    }
}
