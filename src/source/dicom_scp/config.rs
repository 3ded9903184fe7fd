//! The `[source.dicom]` section: where to listen, and to whom. Checked before any socket is opened.

use super::peers::{Peers, check_title};
use super::{ScpError, tls};
use crate::named_file;
use crate::source::folder::Bounds;
use crate::source::spool::Keep;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The `[source.dicom]` section; the door is closed where it is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on: `0.0.0.0:11112`, `[::]:11112` for IPv6 as well.
    pub listen: String,
    /// The box's own AE title: who calls another one is rejected.
    pub ae_title: String,
    /// Who may send: `TITLE@ADDRESS`, `TITLE@NETWORK/BITS`, either with `*` for any, or `*` alone.
    pub allowed_peers: Vec<String>,
    /// Largest P-DATA-TF PDU that is taken; 4096 to 1048576.
    pub max_pdu_bytes: u32,
    /// Associations at a time; 1 to 64. Who comes then is asked to come again later.
    pub max_associations: usize,
    /// Seconds of silence, or for one PDU, after which an association is broken off; 5 to 3600.
    pub idle_seconds: u64,
    /// Seconds that one instance may take; 10 to 86400.
    pub instance_seconds: u64,
    /// Whether reported instances are kept, in `state_dir/spool/dicom/done`; else they are deleted.
    pub keep_reported: bool,
    /// Whether rejected instances are kept with their reason, in `state_dir/spool/dicom/rejected`; else they are deleted.
    pub keep_rejected: bool,
    /// Days after which a rejected instance is deleted there; 0: never; at most 36500.
    pub keep_rejected_days: u32,
    /// Bytes beyond which the oldest ones are; 0: never.
    pub keep_rejected_bytes: u64,
    /// PEM file with the box's certificate, for TLS; without it there is none. This and the other two files: an absolute
    /// path, or `credential:NAME` for what systemd's `LoadCredential=NAME:…` gives the service.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with its key, not encrypted.
    pub tls_key: Option<PathBuf>,
    /// PEM file with the authorities of which each peer must show a certificate; absent: none need be shown.
    pub tls_client_ca: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:11112".into(),
            ae_title: "ROENTGEN".into(),
            allowed_peers: Vec::new(),
            max_pdu_bytes: 128 << 10,
            max_associations: 16,
            idle_seconds: 60,
            instance_seconds: 600,
            keep_reported: false,
            keep_rejected: true,
            keep_rejected_days: Keep::BOUNDS.days,
            keep_rejected_bytes: Keep::BOUNDS.bytes,
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
        }
    }
}

impl Config {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        self.address()?;
        self.peers()?;
        check_title(&self.ae_title).map_err(|problem| format!("source.dicom.ae_title: {problem}"))?;
        for (key, value, least, most) in [
            ("max_pdu_bytes", u64::from(self.max_pdu_bytes), 4096, 1 << 20),
            ("max_associations", self.max_associations as u64, 1, 64),
            ("idle_seconds", self.idle_seconds, 5, 3600),
            ("instance_seconds", self.instance_seconds, 10, 86_400),
            ("keep_rejected_days", self.keep_rejected_days.into(), 0, 36_500),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("source.dicom.{key}: write a number from {least} to {most}"));
            }
        }
        for (key, file) in self.files() {
            named_file::check(file).map_err(|problem| format!("{key}: {problem}"))?;
        }
        match (&self.tls_certificate, &self.tls_key, &self.tls_client_ca) {
            (Some(_), None, _) => Err("source.dicom.tls_key: source.dicom.tls_certificate needs its key".into()),
            (None, Some(_), _) => {
                Err("source.dicom.tls_certificate: source.dicom.tls_key needs its certificate".into())
            }
            (None, None, Some(_)) => Err("source.dicom.tls_client_ca: without TLS it protects nothing: set \
                                          source.dicom.tls_certificate and tls_key as well, or leave this out"
                .into()),
            _ => Ok(()),
        }
    }

    /// Where to listen.
    pub(super) fn address(&self) -> Result<SocketAddr, String> {
        self.listen.parse().map_err(|_| {
            format!("source.dicom.listen = {:?}: write an address and a port, such as 0.0.0.0:11112", self.listen)
        })
    }

    /// Who may send.
    pub(super) fn peers(&self) -> Result<Peers, String> {
        Peers::parse(&self.allowed_peers)
    }

    /// The files that this section names, with their keys.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("source.dicom.tls_certificate", &self.tls_certificate),
            ("source.dicom.tls_key", &self.tls_key),
            ("source.dicom.tls_client_ca", &self.tls_client_ca),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_deref()?)))
    }

    /// Reads the files of TLS, if it has any, to say what is wrong with them.
    pub fn tls(&self) -> Result<(), ScpError> {
        tls::server_config(self).map(drop)
    }

    /// What of the spool is kept.
    pub fn keep(&self) -> Keep {
        let bounds = Bounds { days: self.keep_rejected_days, bytes: self.keep_rejected_bytes };
        Keep { reported: self.keep_reported, rejected: self.keep_rejected, bounds }
    }

    /// Whether anybody on the network may send, without showing who it is.
    pub fn is_open_to_all(&self) -> bool {
        self.tls_client_ca.is_none() && self.peers().is_ok_and(|peers| peers.is_open())
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    pub(super) fn instance(&self) -> Duration {
        Duration::from_secs(self.instance_seconds)
    }
}
