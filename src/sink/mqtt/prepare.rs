//! What a connection is made with: the configuration, checked, and what stands in the files that it names. Opens no socket.

use super::config::{Config, check_topic_level};
use super::topics::Topics;
use super::wire::Plan;
use super::{MqttError, Offline, link, status};
use crate::named_file::{self, FileError};
use crate::sink::tls;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The topics, and all that a connection is made with.
pub(super) fn plan(config: &Config, device: &str) -> Result<(Topics, Plan), MqttError> {
    config.validate()?;
    check_topic_level("device", device)?;
    let (address, topics) = (config.address()?, config.topics(device)?);
    let mut plan = Plan::of(config, device, address.host, address.port);
    plan.in_flight = link::CHANNEL as u16;
    let will = status(device, "offline", &Offline { reason: "connection lost" });
    plan.will = Some((topics.status.clone(), will));
    if let Some(username) = &config.username {
        plan.credentials = Some((username.clone(), password(config)?));
    }
    if address.tls {
        plan.tls = Some(Arc::new(tls::client_config(&config.tls_files())?));
    }
    Ok((topics, plan))
}

fn password(config: &Config) -> Result<Zeroizing<String>, MqttError> {
    let Some(value) = &config.password_file else { return Ok(Zeroizing::new(String::new())) };
    let key = "mqtt.password_file";
    let path = named_file::locate(key, value)?;
    let secret = named_file::read_secret(key, &path)?;
    let failed = |problem: &str| MqttError::from(FileError::unusable(key, &path, problem));
    let text = std::str::from_utf8(secret.reveal()).map_err(|_| failed("its first line is not UTF-8 text"))?;
    match text.lines().next() {
        None | Some("") => Err(failed("its first line is empty; write the password there")),
        Some(line) if line.len() > usize::from(u16::MAX) => Err(failed("its first line is longer than MQTT allows")),
        Some(line) => Ok(Zeroizing::new(line.to_owned())),
    }
}
