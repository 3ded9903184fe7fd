//! What is different from one watched folder to another: the drop folder, which is for people, and the spools, which are the
//! box's own. Does nothing itself.

use crate::radiograph::OriginKind;

/// How a watched folder is called, and what becomes of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// What logs and errors call the door that it belongs to.
    pub name: &'static str,
    /// By which kind of object its images came, where their files do not say it.
    pub kind: Option<OriginKind>,
    /// Whether `incoming/` is the box's own: then it is made again where it is gone. Another one may be a disk that will be
    /// back.
    pub is_own: bool,
    /// Whether reported files are kept in `done/`; else they are deleted.
    pub keeps_reported: bool,
    /// Whether rejected files are kept in `rejected/` with their reason; else they are deleted.
    pub keeps_rejected: bool,
}

impl Manner {
    /// The drop folder.
    pub const DROP_FOLDER: Self =
        Self { name: "the drop folder", kind: None, is_own: false, keeps_reported: true, keeps_rejected: true };
}
