//! Fuzz target: a configuration's text. It may be refused; what is accepted must survive being written and read again.

use roentgen::config::Config;
use std::path::Path;

/// Reads the text.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let path = Path::new("roentgend.toml");
    let Ok(config) = Config::parse(text, path) else { return };
    assert!(config.mqtt.validate().is_ok(), "an accepted configuration is a valid one");
    let _ = (config.outbox(), config.key(), config.source.folder.done(), config.source.folder.rejected());
}
