//! Which names the folder takes. Asks no file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a name is one that the folder takes: no dot file, none of the endings that writers use for unfinished files.
pub fn may_be_taken(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default().to_ascii_lowercase();
    let unfinished = [".part", ".tmp", ".partial"].iter().any(|ending| name.ends_with(ending.as_bytes()));
    !(name.is_empty() || name.starts_with(b".") || unfinished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_and_hidden_names_are_left_alone() {
        for name in [".hidden.png", "a.png.part", "a.tmp", "a.partial", "A.PART", ".part"] {
            assert!(!may_be_taken(Path::new(name)), "{name}");
        }
        for name in ["a.png", "part", "tmp.png", "a.part.png", "no-extension"] {
            assert!(may_be_taken(Path::new(name)), "{name}");
        }
    }
}
