//! TLS for `mqtts://`: rustls with one crypto library (ring), trusting the system's certificate authorities or those of
//! `ca_file`, showing the box's own certificate where the broker asks for one. No way to switch verification off.

use super::{Config, MqttError};
use crate::named_file::{self, FileError, pem};
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore, crypto::ring};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where distributions keep the certificate authorities that they trust, as one PEM file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const CA: &str = "mqtt.ca_file";
const CERTIFICATE: &str = "mqtt.client_certificate";
const KEY: &str = "mqtt.client_key";

/// The client's side of TLS.
pub(super) fn client_config(config: &Config) -> Result<ClientConfig, MqttError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| MqttError::Start(io::Error::other(error)))?
        .with_root_certificates(authorities(config)?);
    match (&config.client_certificate, &config.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = pem::certificates(CERTIFICATE, &named_file::locate(CERTIFICATE, certificate)?)?;
            let path = named_file::locate(KEY, key)?;
            let key = pem::private_key(KEY, &path)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let problem = match error {
                    Error::InconsistentKeys(_) => "it is not the key of mqtt.client_certificate".into(),
                    other => format!("with mqtt.client_certificate it cannot be used: {other}"),
                };
                FileError::unusable(KEY, &path, problem).into()
            })
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Whom to trust.
fn authorities(config: &Config) -> Result<RootCertStore, MqttError> {
    let path = match &config.ca_file {
        Some(value) => named_file::locate(CA, value)?,
        None => SYSTEM_BUNDLES.map(PathBuf::from).into_iter().find(|path| path.exists()).ok_or_else(|| {
            let problem = "mqtts:// needs it here: this system has no list of trusted certificate authorities \
                           (package ca-certificates)";
            FileError::unusable(CA, Path::new(""), problem)
        })?,
    };
    Ok(pem::authorities(CA, &path, "the broker's")?)
}

/// What a failed TLS connection means and what to do, where that is known; else `None`.
pub(super) fn advice(error: &io::Error) -> Option<&'static str> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(reason) => match reason {
            CertificateError::UnknownIssuer => {
                "no authority that we trust has signed the broker's certificate: check mqtt.ca_file"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the broker's certificate is for another host name than that of mqtt.url"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the broker's certificate has expired, or this box's clock is wrong"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the broker's certificate is not valid yet, or this box's clock is wrong"
            }
            CertificateError::Revoked => "the broker's certificate was revoked: ask who runs the broker",
            _ => return None,
        },
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired => {
                "the broker asks for a client certificate: set mqtt.client_certificate and mqtt.client_key"
            }
            AlertDescription::UnknownCA => "the broker does not trust who signed mqtt.client_certificate",
            AlertDescription::CertificateExpired => "mqtt.client_certificate has expired: get a new one",
            AlertDescription::CertificateRevoked => "mqtt.client_certificate was revoked: get a new one",
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::AccessDenied => "the broker does not accept mqtt.client_certificate",
            AlertDescription::HandshakeFailure => {
                "the broker breaks the TLS handshake off: it may ask for a client certificate (mqtt.client_certificate)"
            }
            AlertDescription::ProtocolVersion => "the broker speaks only old versions of TLS: it needs 1.2 or later",
            _ => return None,
        },
        Error::InvalidMessage(_) => "this is no TLS: the broker's TLS port is another one, or it has none (mqtt://)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_found_inside_an_error_of_the_network() {
        let wrapped = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        let expired = wrapped(Error::InvalidCertificate(CertificateError::Expired));
        assert!(advice(&expired).is_some_and(|advice| advice.contains("clock")));
        let asked = wrapped(Error::AlertReceived(AlertDescription::CertificateRequired));
        assert!(advice(&asked).is_some_and(|advice| advice.contains("mqtt.client_certificate")));
        assert_eq!(advice(&io::Error::from(io::ErrorKind::ConnectionRefused)), None);
    }
}
