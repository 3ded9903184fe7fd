//! Fuzz target: whatever is dropped, opened as a radiograph. It may be refused; it may not crash, and what is accepted
//! must be whole. Not the network.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use roentgen::preprocess::preprocess;
use roentgen::pseudonym::Key;
use roentgen::radiograph::{self, Limits, Pixels};

/// Lets panics of other people's decoders pass, from which the box guards itself: it settles the file as damaged. One that
/// it does not guard itself from still ends here, and so does every panic of our own code.
fn let_guarded_panics_pass() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|place| place.file().contains("/registry/src/")) {
            abort(panic);
        }
    }));
}

fuzz_target!(init: let_guarded_panics_pass(), |bytes: &[u8]| -> Corpus {
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
    let Ok(radiograph) = opened else { return Corpus::Keep };
    let pixels = radiograph.width as usize * radiograph.height as usize;
    let held = match &radiograph.pixels {
        Pixels::Grey8(levels) => levels.len(),
        Pixels::Grey16(levels) => levels.len(),
    };
    assert_eq!(held, pixels, "an accepted radiograph has all its pixels");
    assert!(pixels > 0 && pixels as u64 <= limits.max_pixels);
    assert_eq!(preprocess(&radiograph).data().len(), 224 * 224);
    Corpus::Keep
});
