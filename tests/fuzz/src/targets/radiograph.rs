//! Fuzz target: whatever is dropped, opened as a radiograph. It may be refused; it may not crash, and what is accepted
//! must be whole. Not the network.

use roentgen::preprocess::preprocess;
use roentgen::pseudonym::Key;
use roentgen::radiograph::{self, Limits, Pixels};

/// Opens the bytes.
pub(crate) fn run(bytes: &[u8]) {
    // Small, so that the time goes into parsing, and so that the limits themselves are met.
    let limits = Limits {
        max_file_bytes: 1 << 20,
        max_pixels: 1 << 18,
        max_decoded_bytes: 4 << 20,
        max_elements: 2000,
        max_nesting: 8,
        ..Limits::default()
    };
    let opened = radiograph::open_bytes(bytes, &limits, &Key::from_bytes([7; 32]));
    // What a result is filed under is picked out of any file, judged or not.
    drop(radiograph::dicom::Filing::of(bytes, &limits));
    let Ok(radiograph) = opened else { return };
    let pixels = radiograph.width as usize * radiograph.height as usize;
    let held = match &radiograph.pixels {
        Pixels::Grey8(levels) => levels.len(),
        Pixels::Grey16(levels) => levels.len(),
    };
    assert_eq!(held, pixels, "an accepted radiograph has all its pixels");
    assert!(pixels > 0 && pixels as u64 <= limits.max_pixels);
    assert_eq!(preprocess(&radiograph).data().len(), 224 * 224);
}
