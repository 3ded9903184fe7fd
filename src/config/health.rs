//! The sections `[telemetry]`, `[updates]` and `[web]`: how the box says how it is, and takes new models. Not what they
//! steer, which stands on a higher floor.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The `[telemetry]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Seconds between two messages about how the box is; 0: none over MQTT, else 5 to 86400.
    pub interval_s: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { interval_s: 60 }
    }
}

impl Telemetry {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        match self.interval_s {
            0 | 5..=86_400 => Ok(()),
            _ => Err("telemetry.interval_s: write a number of seconds from 5 to 86400, or 0 for no telemetry".into()),
        }
    }
}

/// The `[updates]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Updates {
    /// Whether a signed bundle that is put into `state_dir/bundles/incoming` is installed at once, or only when a command
    /// asks for it.
    pub automatic: bool,
}

impl Default for Updates {
    fn default() -> Self {
        Self { automatic: true }
    }
}

/// The `[web]` section. Without `listen` nothing listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Address and port of `/metrics` and `/healthz`.
    pub listen: Option<String>,
    /// Whether that may be another address than this machine's own loopback.
    pub allow_remote: bool,
}

impl Web {
    /// The address to listen on, or what is wrong with it.
    pub fn address(&self) -> Result<Option<SocketAddr>, String> {
        let Some(listen) = &self.listen else { return Ok(None) };
        let address: SocketAddr = listen.parse().map_err(|_| {
            format!("web.listen = {listen:?}: write an address and a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"")
        })?;
        if !address.ip().is_loopback() && !self.allow_remote {
            return Err(format!(
                "web.listen = {listen:?}: whoever reaches that address could read how the box is, without a password. \
                 Write 127.0.0.1, or allow_remote = true if a firewall keeps others out"
            ));
        }
        Ok(Some(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(listen: &str, allow_remote: bool) -> Result<Option<SocketAddr>, String> {
        Web { listen: Some(listen.into()), allow_remote }.address()
    }

    #[test]
    fn other_addresses_than_loopback_need_a_word() {
        assert_eq!(Web::default().address(), Ok(None));
        for own in ["127.0.0.1:0", "127.8.0.1:80", "[::1]:8080"] {
            assert!(address(own, false).is_ok_and(|found| found.is_some()), "{own}");
        }
        for other in ["0.0.0.0:8080", "[::]:8080", "192.168.1.7:80", "[::ffff:127.0.0.1]:80"] {
            assert!(address(other, false).is_err_and(|error| error.contains("allow_remote = true")), "{other}");
            assert!(address(other, true).is_ok(), "{other}");
        }
        for wrong in ["8080", "localhost", ":8080", "http://127.0.0.1:80", ""] {
            assert!(address(wrong, true).is_err_and(|error| error.contains("127.0.0.1:8080")), "{wrong}");
        }
    }

    #[test]
    fn telemetry_is_not_more_often_than_every_five_seconds() {
        for (interval_s, good) in [(0, true), (1, false), (4, false), (5, true), (86_400, true), (86_401, false)] {
            assert_eq!(Telemetry { interval_s }.validate().is_ok(), good, "{interval_s}");
        }
    }
}
