//! TLS to a broker or a PACS: rustls with one crypto library (ring), trusting the system's certificate authorities or those
//! that the configuration names, showing the box's own certificate where it is asked for one. No way to switch
//! verification off.

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

/// A key of the configuration and the file that it names.
type Named<'a> = (&'static str, Option<&'a Path>);

/// The files that a section names for TLS.
pub(super) struct Files<'a> {
    /// Whom to trust; the system's authorities where absent.
    pub(super) authorities: Named<'a>,
    /// The box's own certificate.
    pub(super) certificate: Named<'a>,
    /// Its key.
    pub(super) key: Named<'a>,
    /// Whose authority it is, for an error: "the broker's".
    pub(super) whose: &'static str,
}

/// The client's side of TLS.
pub(super) fn client_config(files: &Files<'_>) -> Result<ClientConfig, FileError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        // The library has been built without them.
        .map_err(|error| FileError::unusable(files.authorities.0, Path::new(""), error.to_string()))?
        .with_root_certificates(authorities(files)?);
    match (files.certificate, files.key) {
        ((of, Some(certificate)), (key, Some(file))) => {
            let chain = pem::certificates(of, &named_file::locate(of, certificate)?)?;
            let path = named_file::locate(key, file)?;
            let secret = pem::private_key(key, &path)?;
            builder.with_client_auth_cert(chain, secret).map_err(|error| {
                let problem = match error {
                    Error::InconsistentKeys(_) => format!("it is not the key of {of}"),
                    other => format!("with {of} it cannot be used: {other}"),
                };
                FileError::unusable(key, &path, problem)
            })
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Whom to trust.
fn authorities(files: &Files<'_>) -> Result<RootCertStore, FileError> {
    let (key, file) = files.authorities;
    let path = match file {
        Some(value) => named_file::locate(key, value)?,
        None => SYSTEM_BUNDLES.map(PathBuf::from).into_iter().find(|path| path.exists()).ok_or_else(|| {
            let problem = "TLS needs it here: this system has no list of trusted certificate authorities (package \
                           ca-certificates)";
            FileError::unusable(key, Path::new(""), problem)
        })?,
    };
    pem::authorities(key, &path, files.whose)
}

/// What a failed TLS connection to the broker means and what to do, where that is known; else `None`.
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
