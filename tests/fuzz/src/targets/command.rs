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
            if let Command::Install(wanted) = request.command {
                assert!(wanted.file.is_some() || wanted.manifest.is_some());
                let file = wanted.file.unwrap_or_default();
                assert!(!file.contains(['/', '\0']) && !file.starts_with('.'), "{file:?} could lead elsewhere");
            }
        }
        Err(refused) => {
            assert!(refused.id.len() <= 64 && refused.id.is_ascii());
            assert!(refused.reason.len() <= 1000, "an answer as long as the sender likes");
            assert!(!refused.reason.contains(char::is_control), "{:?} could forge a line of the log", refused.reason);
        }
    }
}
