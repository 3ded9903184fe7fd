//! Fuzz target: what reaches the box on its command topics. The input is the topic's end, a zero byte and the payload.
//! What is refused is answered over MQTT, so that the answer must be clean and short; what is accepted names no path.

use roentgen::sink::mqtt::command::{self, Command};

/// Reads the command.
pub(crate) fn run(bytes: &[u8]) {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let Ok(name) = std::str::from_utf8(&bytes[..end]) else { return };
    let payload = bytes.get(end + 1..).unwrap_or_default();
    match command::parse(name, payload) {
        Ok(request) => {
            assert_eq!(request.command.name().as_str(), name);
            assert!(request.id.len() <= 64 && request.id.is_ascii());
            let text = match request.command {
                Command::Install(wanted) => wanted.file.unwrap_or_default(),
                Command::Activate(version) => version,
                Command::Reclassify(id) => id,
                _ => return,
            };
            assert!(!text.contains(['/', '\0']) && !text.starts_with('.'), "{text:?} could lead elsewhere");
            assert!(text.len() <= 200 && !text.contains(char::is_control), "{text:?}");
        }
        Err(refused) => {
            assert!(refused.id.len() <= 64 && refused.id.is_ascii());
            assert!(refused.reason.len() <= 1000, "an answer as long as the sender likes");
            assert!(!refused.reason.contains(char::is_control), "{:?} could forge a line of the log", refused.reason);
        }
    }
}
