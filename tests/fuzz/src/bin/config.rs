//! Fuzz target: a configuration's text. It may be refused; what is accepted must survive being written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roentgen::config::Config;
use std::path::Path;

fuzz_target!(|text: &str| {
    let path = Path::new("roentgend.toml");
    let Ok(config) = Config::parse(text, path) else { return };
    assert!(config.mqtt.validate().is_ok(), "an accepted configuration is a valid one");
    let _ = (config.outbox(), config.key(), config.source.folder.done(), config.source.folder.rejected());
});
