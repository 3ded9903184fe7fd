//! Fuzz target: what the process that decodes says to the daemon, which must believe nothing of it: it has read a stranger's
//! file. The input is its packet, a zero byte, and what it left in the memory for the pixels.

use roentgen::radiograph::{Limits, Pixels};
use roentgen::source::decoder;
use std::io::Write;

/// Takes the answer as the daemon does.
pub(crate) fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let Ok(mut memory) = tempfile::tempfile() else { return };
    memory.write_all(bytes.get(end + 1..).unwrap_or_default()).expect("a scratch file");
    let limits = Limits { max_pixels: 1 << 18, ..Limits::default() };
    let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match decoder::believed(&bytes[..end], &memory, &limits) {
        None => {}
        Some(Ok(radiograph)) => {
            let pixels = u64::from(radiograph.width) * u64::from(radiograph.height);
            let held = match &radiograph.pixels {
                Pixels::Grey8(levels) => levels.len(),
                Pixels::Grey16(levels) => levels.len(),
            };
            assert_eq!(held as u64, pixels, "a radiograph has all its pixels");
            assert!(pixels > 0 && pixels <= limits.max_pixels);
            let origin = &radiograph.origin;
            assert!(is_hex(&origin.content_sha256, 64), "{:?} is no hash", origin.content_sha256);
            for pseudonym in [&origin.study, &origin.series, &origin.instance].into_iter().flatten() {
                assert!(is_hex(pseudonym, 32), "{pseudonym:?} is no pseudonym, and may be a name");
            }
            assert!(!radiograph.applied.iter().any(|text| text.contains(char::is_control)));
        }
        Some(Err(refusal)) => {
            let message = &refusal.message;
            assert!(
                message.len() <= 2000 && !message.contains(char::is_control),
                "{message:?} could forge a line of the log"
            );
        }
    }
}
