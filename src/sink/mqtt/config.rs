//! The `[mqtt]` section: where the broker is and how to talk to it. Checked before any socket is opened.

use super::topics::{Templates, Topics};
use crate::named_file;
use crate::sink::tls;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The smallest packet limit that is allowed: a report with its evidence map stays well below.
const MIN_PACKET_BYTES: usize = 64 << 10;

/// The `[mqtt]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `mqtt://host:port` or `mqtts://host:port`; the ports default to 1883 and 8883.
    pub url: String,
    /// First level or levels of every topic.
    pub topic_prefix: String,
    /// MQTT user name.
    pub username: Option<String>,
    /// File whose first line is the MQTT password, so that the configuration holds no secret. This and the other three
    /// files: an absolute path, or `credential:NAME` for what systemd's `LoadCredential=NAME:…` gives the service.
    pub password_file: Option<PathBuf>,
    /// PEM file with the certificate authorities to trust for `mqtts://`; the system's own where absent.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the box's own certificate, for a broker that asks for one; those that lead to its authority follow it.
    pub client_certificate: Option<PathBuf>,
    /// PEM file with the key of `client_certificate`, not encrypted: PKCS#8, PKCS#1 or SEC1.
    pub client_key: Option<PathBuf>,
    /// Seconds of silence after which the broker is asked whether it is still there; 5 to 3600.
    pub keep_alive_s: u64,
    /// Largest MQTT packet in either direction, in bytes; at least 65536.
    pub max_packet_bytes: usize,
    /// Which MQTT is spoken.
    pub protocol: Protocol,
    /// Seconds after which a broker that speaks MQTT 5 may throw a report away that it keeps for somebody who is away; 0:
    /// never.
    pub report_expiry_s: u32,
    /// The topics.
    pub topics: Templates,
}

/// Which MQTT is spoken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// 5 where the broker speaks it, else 3.1.1.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// 5, or nothing.
    #[serde(rename = "5")]
    Five,
    /// 3.1.1.
    #[serde(rename = "3.1.1")]
    Three,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "mqtt://127.0.0.1:1883".into(),
            topic_prefix: "roentgen".into(),
            username: None,
            password_file: None,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            keep_alive_s: 30,
            max_packet_bytes: 1 << 20,
            protocol: Protocol::Auto,
            report_expiry_s: 0,
            topics: Templates::default(),
        }
    }
}

/// A value of the `[mqtt]` section, or the device's name, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value:?}: {problem}")]
pub struct InvalidValue {
    /// The key as it stands in the file.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

fn invalid(key: &'static str, value: impl ToString, problem: impl Into<String>) -> InvalidValue {
    InvalidValue { key, value: value.to_string(), problem: problem.into() }
}

/// A broker's address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Host name or address; an IPv6 address keeps its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Config {
    /// Checks everything that can be checked without touching file system or network.
    pub fn validate(&self) -> Result<(), InvalidValue> {
        let address = self.address()?;
        if address.tls && address.host.starts_with('[') {
            return Err(invalid("mqtt.url", &self.url, "a certificate needs a host name: write the broker's name"));
        }
        for level in self.topic_prefix.split('/') {
            check_topic_level("mqtt.topic_prefix", level)?;
        }
        if self.password_file.is_some() && self.username.is_none() {
            return Err(invalid("mqtt.password_file", "…", "MQTT sends no password without a user: set mqtt.username"));
        }
        for (key, file) in self.files() {
            named_file::check(file).map_err(|problem| invalid(key, "…", problem))?;
        }
        let tls_only = [("mqtt.client_certificate", &self.client_certificate), ("mqtt.ca_file", &self.ca_file)];
        if let Some((key, _)) = tls_only.into_iter().find(|(_, file)| file.is_some() && !address.tls) {
            let problem = "without TLS it protects nothing: write mqtts:// in mqtt.url, or leave this out";
            return Err(invalid(key, "…", problem));
        }
        match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => return Err(invalid("mqtt.client_key", "", "mqtt.client_certificate needs its key")),
            (None, Some(_)) => {
                return Err(invalid("mqtt.client_certificate", "", "mqtt.client_key needs its certificate"));
            }
            _ => {}
        }
        if !(5..=3600).contains(&self.keep_alive_s) {
            return Err(invalid("mqtt.keep_alive_s", self.keep_alive_s, "write a number of seconds from 5 to 3600"));
        }
        if !(MIN_PACKET_BYTES..=256 << 20).contains(&self.max_packet_bytes) {
            let problem = format!("write a number of bytes from {MIN_PACKET_BYTES} to {}", 256 << 20);
            return Err(invalid("mqtt.max_packet_bytes", self.max_packet_bytes, problem));
        }
        Ok(())
    }

    /// The topics of this device.
    pub fn topics(&self, device: &str) -> Result<Topics, InvalidValue> {
        self.topics.fill_in(&self.topic_prefix, device)
    }

    /// The broker's address from `url`.
    pub fn address(&self) -> Result<Address, InvalidValue> {
        let wrong = |problem: &str| invalid("mqtt.url", &self.url, problem);
        let (tls, rest) = match self.url.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err(wrong("write mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS")),
        };
        if rest.contains('@') {
            // Not quoted: it may hold a password.
            let problem = "user and password do not belong here: use mqtt.username and mqtt.password_file";
            return Err(invalid("mqtt.url", "…", problem));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // The colon inside an IPv6 address's brackets is no port.
        let port_at = rest.rfind(':').filter(|&at| rest.rfind(']').is_none_or(|bracket| at > bracket));
        let (host, port) = match port_at {
            Some(at) => (&rest[..at], rest[at + 1..].parse().map_err(|_| wrong("the port is no number up to 65535"))?),
            None => (rest, if tls { 8883 } else { 1883 }),
        };
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let plain = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        let inside = host.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '[' | ']' | ':' | '.' | '%'));
        if host.is_empty() || port == 0 || !(plain || bracketed && inside) {
            return Err(wrong("write mqtt://HOST:PORT with a host name, an IPv4 address or an [IPv6] address"));
        }
        Ok(Address { tls, host: host.into(), port })
    }

    /// Whether user and password leave this machine unencrypted.
    pub fn sends_password_in_clear(&self) -> bool {
        let is_local = |host: &str| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        };
        self.password_file.is_some() && self.address().is_ok_and(|address| !address.tls && !is_local(&address.host))
    }

    /// The files that this section names, with their keys.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("mqtt.password_file", &self.password_file),
            ("mqtt.ca_file", &self.ca_file),
            ("mqtt.client_certificate", &self.client_certificate),
            ("mqtt.client_key", &self.client_key),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?)))
    }

    /// Those of them that TLS needs.
    pub(super) fn tls_files(&self) -> tls::Files<'_> {
        tls::Files {
            authorities: ("mqtt.ca_file", self.ca_file.as_deref()),
            certificate: ("mqtt.client_certificate", self.client_certificate.as_deref()),
            key: ("mqtt.client_key", self.client_key.as_deref()),
            whose: "the broker's",
        }
    }

    /// The keep-alive interval.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_s)
    }
}

/// Whether a letter can stand inside a level of a topic.
pub(super) fn is_topic_letter(letter: char) -> bool {
    !matches!(letter, '/' | '+' | '#') && !letter.is_control() && !letter.is_whitespace()
}

/// Checks that a text can stand as one level of a topic: MQTT gives `/`, `+`, `#` and NUL a meaning of their own.
pub fn check_topic_level(key: &'static str, level: &str) -> Result<(), InvalidValue> {
    if level.is_empty() || level.starts_with('$') || !level.chars().all(is_topic_letter) || level.len() > 128 {
        let problem = "it becomes a level of MQTT topics: write 1 to 128 characters without space, /, + or #, \
                       the first not $";
        return Err(invalid(key, level, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str) -> Result<Address, InvalidValue> {
        Config { url: url.into(), ..Config::default() }.address()
    }

    #[test]
    fn urls_are_taken_apart() {
        let expect = |tls, host: &str, port| Ok(Address { tls, host: host.into(), port });
        assert_eq!(address("mqtt://127.0.0.1:1883"), expect(false, "127.0.0.1", 1883));
        assert_eq!(address("mqtt://broker.clinic.example"), expect(false, "broker.clinic.example", 1883));
        assert_eq!(address("mqtts://broker/"), expect(true, "broker", 8883));
        assert_eq!(address("mqtt://[::1]:1884"), expect(false, "[::1]", 1884));
        assert_eq!(address("mqtt://[::1]"), expect(false, "[::1]", 1883));
    }

    #[test]
    fn unusable_urls_are_refused_with_their_key() {
        for url in ["", "127.0.0.1:1883", "http://a", "mqtt://", "mqtt://:1883", "mqtt://a:0", "mqtt://a:70000"] {
            assert_eq!(address(url).map_err(|e| e.key), Err("mqtt.url"), "{url}");
        }
        let with_password = address("mqtt://user:hunter2@host").unwrap_err().to_string();
        assert!(with_password.contains("mqtt.password_file") && !with_password.contains("hunter2"), "{with_password}");
        for url in ["mqtt://user:secret@host", "mqtt://a b", "mqtt://a/b", "mqtt://::1:1883"] {
            assert_eq!(address(url).map_err(|e| e.key), Err("mqtt.url"), "{url}");
        }
    }

    #[test]
    fn certificates_need_their_keys_and_tls() {
        let key = |url: &str, certificate: Option<&str>, key: Option<&str>, ca: Option<&str>| {
            let config = Config {
                url: url.into(),
                client_certificate: certificate.map(PathBuf::from),
                client_key: key.map(PathBuf::from),
                ca_file: ca.map(PathBuf::from),
                ..Config::default()
            };
            config.validate().map_err(|error| error.key)
        };
        assert_eq!(key("mqtts://a", Some("/c"), Some("credential:k"), Some("/ca")), Ok(()));
        assert_eq!(key("mqtts://a", Some("/c"), None, None), Err("mqtt.client_key"));
        assert_eq!(key("mqtts://a", None, Some("/k"), None), Err("mqtt.client_certificate"));
        assert_eq!(key("mqtt://a", Some("/c"), Some("/k"), None), Err("mqtt.client_certificate"));
        assert_eq!(key("mqtt://a", None, None, Some("/ca")), Err("mqtt.ca_file"));
        assert_eq!(key("mqtts://a", None, None, Some("ca.pem")), Err("mqtt.ca_file"));
    }

    #[test]
    fn only_plain_topic_levels_are_accepted() {
        assert!(check_topic_level("device", "box-1").is_ok());
        for level in ["", "a/b", "+", "#", "a#", "a b", "$SYS", "a\0"] {
            assert!(check_topic_level("device", level).is_err(), "{level:?}");
        }
    }
}
