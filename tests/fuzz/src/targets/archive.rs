//! Fuzz target: a bundle's `.tar`. Whatever it holds, nothing may be made outside of the folder it is unpacked into.

use std::fs;

/// Unpacks the bytes.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(root) = tempfile::tempdir() else { return };
    let (archive, into) = (root.path().join("bundle.tar"), root.path().join("into"));
    fs::write(&archive, bytes).expect("a scratch folder");
    fs::create_dir(&into).expect("a scratch folder");
    if let Ok(folder) = roentgen::bundle::unpack(&archive, &into) {
        assert!(folder.starts_with(&into), "{}", folder.display());
    }
    let mut names: Vec<_> =
        fs::read_dir(root.path()).expect("a scratch folder").flatten().map(|e| e.file_name()).collect();
    names.sort();
    assert_eq!(names, ["bundle.tar", "into"], "something was made outside of the folder");
    assert_eq!(fs::read(&archive).expect("a scratch folder"), bytes, "the archive itself was changed");
}
