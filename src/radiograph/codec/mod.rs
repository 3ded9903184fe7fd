//! The image codecs of DICOM's encapsulated transfer syntaxes, down to stored values. Not the meaning of the values
//! (see [`super::dicom`]).
//!
//! All of them are pure Rust without `unsafe`, so that a hostile file can at worst be refused:
//!
//! | codec | decoder |
//! |---|---|
//! | RLE (PackBits) | [`rle`], here |
//! | JPEG baseline and extended, grey, 8 and 12 bits | [`jpeg_dct`], here |
//! | JPEG lossless, all predictors, 2–16 bits | [`jpeg_lossless`], here |
//! | JPEG-LS, lossless and near-lossless | [`jpeg_ls`], here |
//! | JPEG baseline and progressive in colour, 8 bits | the `image` crate (`zune-jpeg`) |
//! | JPEG 2000, lossless and lossy | [`jpeg2000`]: the `dicom-toolkit-jpeg2000` crate |
//!
//! Each takes the size that the caller expects, and refuses a codestream whose own header claims another one before
//! it allocates.

pub mod jpeg;
pub mod jpeg2000;
pub mod jpeg_dct;
mod jpeg_huffman;
pub mod jpeg_lossless;
pub mod jpeg_ls;
pub mod rle;

/// Why a codestream gave no picture. The words never hold anything of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It ends too early or contradicts itself.
    #[error("damaged codestream: {0}")]
    Damaged(&'static str),
    /// It is well formed as far as was read, but of a kind that is not supported.
    #[error("unsupported codestream: {0}")]
    Unsupported(&'static str),
}

/// The size of a picture as somebody claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Lines.
    pub rows: u16,
    /// Samples a line, of each component.
    pub columns: u16,
    /// 1 for grey, 3 for colour.
    pub components: u8,
}

impl Extent {
    /// Samples of all components.
    pub fn samples(self) -> usize {
        usize::from(self.rows) * usize::from(self.columns) * usize::from(self.components)
    }
}
