//! The `[dicom_results]` section: which PACS gets results, and how much waits for it. Checked before any socket is opened.

use crate::named_file;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is sent of each report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The structured report.
    Sr,
    /// The picture, as a Secondary Capture.
    SecondaryCapture,
}

impl Kind {
    /// All kinds, in the order in which those of one report are sent.
    pub const ALL: [Kind; 2] = [Kind::Sr, Kind::SecondaryCapture];

    /// The name in the configuration and in the names of files.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Sr => "sr",
            Kind::SecondaryCapture => "secondary_capture",
        }
    }

    /// The name a person reads.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Sr => "structured report (Comprehensive 3D SR)",
            Kind::SecondaryCapture => "picture (Secondary Capture)",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The `[dicom_results]` section. Absent: nothing is made, and no patient's name is ever read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `HOST:PORT` of the PACS.
    pub address: String,
    /// The AE title of the PACS.
    pub called_ae_title: String,
    /// The box's own AE title.
    #[serde(default = "own_ae_title")]
    pub ae_title: String,
    /// What is sent.
    #[serde(default = "all_kinds")]
    pub send: Vec<Kind>,
    /// Whether the connection is encrypted and the PACS shows a certificate for the host of `address`.
    #[serde(default)]
    pub tls: bool,
    /// PEM file with the certificate authorities to trust; the system's own where absent. This and the next two: an absolute
    /// path, or `credential:NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the box's own certificate, for a PACS that asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<PathBuf>,
    /// Seconds that connecting, sending or waiting for one answer may take; 1 to 600.
    #[serde(default = "timeout_s")]
    pub timeout_s: u64,
    /// Seconds between two attempts at most; the first pause is one second, and it doubles. 1 to 3600.
    #[serde(default = "max_retry_s")]
    pub max_retry_s: u64,
    /// Objects that may wait.
    #[serde(default = "max_waiting")]
    pub max_waiting: u64,
    /// Bytes that they may take.
    #[serde(default = "max_bytes")]
    pub max_bytes: u64,
    /// Days that one may wait.
    #[serde(default = "max_age_days")]
    pub max_age_days: u64,
}

fn own_ae_title() -> String {
    "ROENTGEN".into()
}

fn all_kinds() -> Vec<Kind> {
    Kind::ALL.to_vec()
}

fn timeout_s() -> u64 {
    30
}

fn max_retry_s() -> u64 {
    60
}

fn max_waiting() -> u64 {
    10_000
}

fn max_bytes() -> u64 {
    1 << 30
}

fn max_age_days() -> u64 {
    30
}

impl Config {
    /// A PACS, and the rest by default.
    pub fn to(address: &str, called_ae_title: &str) -> Self {
        Self {
            address: address.into(),
            called_ae_title: called_ae_title.into(),
            ae_title: own_ae_title(),
            send: all_kinds(),
            tls: false,
            ca_file: None,
            client_certificate: None,
            client_key: None,
            timeout_s: timeout_s(),
            max_retry_s: max_retry_s(),
            max_waiting: max_waiting(),
            max_bytes: max_bytes(),
            max_age_days: max_age_days(),
        }
    }

    /// What is wrong with the values, in words, if anything is. Opens nothing.
    pub fn validate(&self) -> Result<(), String> {
        if self.host_and_port().is_none() {
            return Err(format!(
                "dicom_results.address = {:?}: write HOST:PORT of the PACS, such as \"pacs.clinic.example:11112\"",
                self.address
            ));
        }
        for (key, title) in [("called_ae_title", &self.called_ae_title), ("ae_title", &self.ae_title)] {
            let is_plain = |letter: char| (' '..='~').contains(&letter) && letter != '\\';
            if title.trim() != title || !(1..=16).contains(&title.len()) || !title.chars().all(is_plain) {
                return Err(format!(
                    "dicom_results.{key} = {title:?}: an AE title has 1 to 16 letters, digits or signs, no backslash, and \
                     no space at its ends"
                ));
            }
        }
        if self.send.is_empty() {
            return Err(
                "dicom_results.send = []: write \"sr\", \"secondary_capture\" or both, or remove the section".into()
            );
        }
        let files = self.files();
        for (key, file) in files {
            if let Some(file) = file {
                named_file::check(file).map_err(|problem| format!("{key}: {problem}"))?;
                if !self.tls {
                    return Err(format!("{key}: without TLS it protects nothing: set dicom_results.tls = true"));
                }
            }
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return Err("dicom_results.client_certificate and dicom_results.client_key belong together".into());
        }
        for (key, value, most) in [
            ("timeout_s", self.timeout_s, 600),
            ("max_retry_s", self.max_retry_s, 3600),
            ("max_waiting", self.max_waiting, 1_000_000),
            ("max_bytes", self.max_bytes, 1 << 50),
            ("max_age_days", self.max_age_days, 3650),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("dicom_results.{key}: write a number from 1 to {most}"));
            }
        }
        Ok(())
    }

    /// The host of the address, an IPv6 address without its brackets, and the port.
    pub(super) fn host_and_port(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port > 0)?;
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_plain = |host: &str| {
            !host.is_empty() && host.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter))
        };
        match inside {
            Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok().then_some((inside, port)),
            None => is_plain(host).then_some((host, port)),
        }
    }

    /// The files that this section names, with their keys: authorities, certificate, key.
    pub fn files(&self) -> [(&'static str, Option<&Path>); 3] {
        [
            ("dicom_results.ca_file", self.ca_file.as_deref()),
            ("dicom_results.client_certificate", self.client_certificate.as_deref()),
            ("dicom_results.client_key", self.client_key.as_deref()),
        ]
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut Config)) -> Result<(), String> {
        let mut config = Config::to("pacs.example:104", "PACS");
        change(&mut config);
        config.validate()
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|config| config.address = "[::1]:11112".into()), Ok(()));
        let cases: [(&str, fn(&mut Config)); 12] = [
            ("address", |config| config.address = "pacs".into()),
            ("address", |config| config.address = "pacs:0".into()),
            ("address", |config| config.address = "a b:104".into()),
            ("address", |config| config.address = "::1:104".into()),
            ("called_ae_title", |config| config.called_ae_title = String::new()),
            ("called_ae_title", |config| config.called_ae_title = "SEVENTEEN_LETTERS".into()),
            ("dicom_results.ae_title", |config| config.ae_title = "A\\B".into()),
            ("send", |config| config.send.clear()),
            ("tls", |config| config.ca_file = Some("/ca.pem".into())),
            ("client_key", |config| (config.tls, config.client_certificate) = (true, Some("/c.pem".into()))),
            ("timeout_s", |config| config.timeout_s = 0),
            ("max_bytes", |config| config.max_bytes = 0),
        ];
        for (key, change) in cases {
            let error = with(change).expect_err(key);
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
