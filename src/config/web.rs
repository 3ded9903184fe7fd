//! The section `[web]`: where the box shows its pages, to whom, and what they show. Not the pages.

use crate::named_file;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The `[web]` section. Without `listen` nothing listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Web {
    /// Address and port of the dashboard, `/metrics` and `/healthz`.
    pub listen: Option<String>,
    /// Whether that may be another address than this machine's own loopback.
    pub allow_remote: bool,
    /// The file whose first line whoever sees the dashboard must know; absent: nobody is asked, and it is shown on loopback
    /// only.
    pub token: Option<PathBuf>,
    /// Names by which browsers may reach the dashboard, besides `localhost` and addresses.
    pub hosts: Vec<String>,
    /// Whether a small copy of each radiograph and its evidence map are kept and shown.
    pub images: bool,
    /// Most of these copies.
    pub max_images: u64,
    /// Most bytes that they take.
    pub max_image_bytes: u64,
    /// Days after which they are deleted.
    pub max_image_age_days: u64,
    /// Whether radiographs may be sent in by the dashboard.
    pub upload: bool,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: None,
            allow_remote: false,
            token: None,
            hosts: Vec::new(),
            images: false,
            max_images: 1000,
            max_image_bytes: 256 << 20,
            max_image_age_days: 30,
            upload: false,
        }
    }
}

impl Web {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        self.address()?;
        if let Some(token) = &self.token {
            named_file::check(token).map_err(|problem| format!("web.token: {problem}"))?;
        }
        let is_name = |host: &String| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            !host.is_empty() && host.len() <= 253 && host.chars().all(is_plain)
        };
        if let Some(host) = self.hosts.iter().find(|host| !is_name(host)) {
            return Err(format!(
                "web.hosts: {host:?} is no name; write it without port, like \"box-1.clinic.example\""
            ));
        }
        for (key, value, most) in [
            ("max_images", self.max_images, 1_000_000),
            ("max_image_bytes", self.max_image_bytes, 1 << 40),
            ("max_image_age_days", self.max_image_age_days, 36_500),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("web.{key}: write a number from 1 to {most}, or images = false for none"));
            }
        }
        Ok(())
    }

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

    /// Whether a browser may reach the dashboard by this name or address. Not by any name: a page from elsewhere whose name
    /// is made to lead to this address (DNS rebinding) would read it in the eyes of the browser as its own.
    pub fn is_host(&self, host: &str) -> bool {
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        address.parse::<IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(listen: &str, allow_remote: bool) -> Result<Option<SocketAddr>, String> {
        Web { listen: Some(listen.into()), allow_remote, ..Web::default() }.address()
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
    fn a_name_from_elsewhere_is_no_host_unless_it_is_written() {
        let web = Web { hosts: vec!["box-1.clinic.example".into()], ..Web::default() };
        for own in ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "192.168.1.7", "Box-1.Clinic.example"] {
            assert!(web.is_host(own), "{own}");
        }
        for other in
            ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "box-1", "0x7f.1", "2130706433"]
        {
            assert!(!web.is_host(other), "{other}");
        }
    }

    #[test]
    fn unusable_values_name_their_key() {
        let wrong = [
            (Web { token: Some("hunter2".into()), ..Web::default() }, "web.token"),
            (Web { hosts: vec!["box:8080".into()], ..Web::default() }, "web.hosts"),
            (Web { max_images: 0, ..Web::default() }, "web.max_images"),
            (Web { max_image_bytes: 0, ..Web::default() }, "web.max_image_bytes"),
            (Web { max_image_age_days: 0, ..Web::default() }, "web.max_image_age_days"),
        ];
        for (web, key) in wrong {
            let error = web.validate().expect_err(key);
            assert!(error.contains(key) && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(Web::default().validate(), Ok(()));
    }
}
