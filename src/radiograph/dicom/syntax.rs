//! The transfer syntaxes that are read: how elements are written, and how pixel data are coded. Not their decoding.

/// How the pixel data of a transfer syntax are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Native,
    Rle,
    Jpeg,
    JpegLs,
    Jpeg2000,
}

/// A transfer syntax that is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Syntax {
    pub(super) uid: &'static str,
    /// The standard's name for it, shortened.
    pub(super) name: &'static str,
    pub(super) coding: Coding,
    /// Whether elements carry their VRs.
    pub(super) explicit: bool,
    pub(super) big_endian: bool,
}

/// A little-endian syntax with explicit VRs, as all encapsulated ones are.
const fn explicit(uid: &'static str, name: &'static str, coding: Coding) -> Syntax {
    Syntax { uid, name, coding, explicit: true, big_endian: false }
}

pub(super) const IMPLICIT: Syntax =
    Syntax { explicit: false, ..explicit("1.2.840.10008.1.2", "Implicit VR Little Endian", Coding::Native) };
pub(super) const EXPLICIT: Syntax = explicit("1.2.840.10008.1.2.1", "Explicit VR Little Endian", Coding::Native);
pub(super) const DEFLATED: Syntax =
    explicit("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian", Coding::Native);

/// Every transfer syntax that is read.
pub(super) const SYNTAXES: [Syntax; 13] = [
    IMPLICIT,
    EXPLICIT,
    DEFLATED,
    Syntax { big_endian: true, ..explicit("1.2.840.10008.1.2.2", "Explicit VR Big Endian", Coding::Native) },
    explicit("1.2.840.10008.1.2.5", "RLE Lossless", Coding::Rle),
    explicit("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)", Coding::Jpeg),
    explicit("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 and 4)", Coding::Jpeg),
    explicit("1.2.840.10008.1.2.4.57", "JPEG Lossless (Process 14)", Coding::Jpeg),
    explicit("1.2.840.10008.1.2.4.70", "JPEG Lossless (Process 14, Selection Value 1)", Coding::Jpeg),
    explicit("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless", Coding::JpegLs),
    explicit("1.2.840.10008.1.2.4.81", "JPEG-LS Near-Lossless", Coding::JpegLs),
    explicit("1.2.840.10008.1.2.4.90", "JPEG 2000 Lossless", Coding::Jpeg2000),
    explicit("1.2.840.10008.1.2.4.91", "JPEG 2000", Coding::Jpeg2000),
];

/// UIDs of the transfer syntaxes that are read.
pub fn transfer_syntaxes() -> impl Iterator<Item = &'static str> {
    SYNTAXES.iter().map(|syntax| syntax.uid)
}
