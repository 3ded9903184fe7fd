//! TLS to a broker or a PACS: rustls with one crypto library (ring), trusting the system's certificate authorities or those
//! that the configuration names, showing the box's own certificate where it is asked for one. No way to switch
//! verification off.

use super::files::{self, FileError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
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
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The library does not do it.
    #[error("TLS cannot be used: {0}")]
    Library(#[source] Error),
}

/// The client's side of TLS.
pub(super) fn client_config(named: &Files<'_>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)?
        .with_root_certificates(authorities(named.authorities)?);
    match (named.certificate, named.key) {
        ((of, Some(certificate)), (key, Some(file))) => {
            let chain = certificates(of, &files::locate(of, certificate)?)?;
            let path = files::locate(key, file)?;
            let secret = private_key(key, &path)?;
            Ok(builder.with_client_auth_cert(chain, secret).map_err(|error| {
                let problem = match error {
                    Error::InconsistentKeys(_) => format!("it is not the key of {of}"),
                    other => format!("with {of} it cannot be used: {other}"),
                };
                FileError::Unusable { key, path, problem }
            })?)
        }
        _ => Ok(builder.with_no_client_auth()),
    }
}

/// Whom to trust.
fn authorities((key, file): Named<'_>) -> Result<RootCertStore, FileError> {
    let path = match file {
        Some(value) => files::locate(key, value)?,
        None => SYSTEM_BUNDLES.map(PathBuf::from).into_iter().find(|path| path.exists()).ok_or_else(|| {
            let problem = "TLS needs it here: this system has no list of trusted certificate authorities \
                           (package ca-certificates)";
            FileError::Unusable { key, path: PathBuf::new(), problem: problem.into() }
        })?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, &path)? {
        // A system's list may hold old forms that rustls does not read; one good one is enough.
        if let Err(error) = roots.add(certificate) {
            log::debug!("{}: a certificate is left out: {error}", path.display());
        }
    }
    if roots.is_empty() {
        let problem = "it holds no usable certificate; give the PEM file of the authority that signed the other side's certificate".into();
        return Err(FileError::Unusable { key, path, problem });
    }
    Ok(roots)
}

/// The certificates of a PEM file; at least one.
fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let failed = |problem: &str| FileError::Unusable { key, path: path.to_owned(), problem: problem.into() };
    let bytes = files::read_public(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(failed("it holds no certificate in PEM form (BEGIN CERTIFICATE)")),
        Err(_) => Err(failed("it is not a PEM file of certificates; get it again")),
    }
}

/// The key of a PEM file. The parser's own words are not passed on: they may quote it.
fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let secret = files::read_secret(key, path)?;
    PrivateKeyDer::from_pem_slice(secret.reveal()).map_err(|_| {
        let is_encrypted = secret.reveal().windows(9).any(|window| window == b"ENCRYPTED");
        let problem = if is_encrypted {
            "it is encrypted, and nobody is there at the start to type its password: remove the encryption \
             (openssl pkey -in OLD -out NEW) and let only the service read it"
        } else {
            "it holds no private key in PEM form (BEGIN PRIVATE KEY)"
        };
        FileError::Unusable { key, path: path.to_owned(), problem: problem.into() }
    })
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
