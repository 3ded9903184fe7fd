//! The image codecs of DICOM's encapsulated transfer syntaxes, down to stored values. Not the meaning of the values
//! (see [`super::dicom`]).

pub mod jpeg;

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
