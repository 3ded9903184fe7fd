//! TLS for `mqtts://`: rustls with one crypto library (ring), trusting the system's certificate authorities or those of
//! `ca_file`. No client certificates, and no way to switch verification off.

use super::{Config, MqttError};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::path::PathBuf;
use std::sync::Arc;

/// Where distributions keep the certificate authorities that they trust, as one PEM file.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The client's side of TLS.
pub(super) fn client_config(config: &Config) -> Result<ClientConfig, MqttError> {
    let key = "mqtt.ca_file";
    let path = config.ca_file.clone().or_else(|| SYSTEM_BUNDLES.map(PathBuf::from).into_iter().find(|p| p.exists()));
    let Some(path) = path else {
        let problem = "mqtts:// needs it here: this system has no list of trusted certificate authorities \
                       (package ca-certificates)";
        return Err(MqttError::File { key, path: PathBuf::new(), problem: problem.into() });
    };
    let failed = |problem: String| MqttError::File { key, path: path.clone(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(format!("not a PEM file of certificates: {error}")))?;
        // A system's list may hold old forms that rustls does not read; one good one is enough.
        if let Err(error) = roots.add(certificate) {
            log::debug!("{}: a certificate is left out: {error}", path.display());
        }
    }
    if roots.is_empty() {
        return Err(failed("holds no usable certificate; give the PEM file of the broker's authority".into()));
    }
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| failed(error.to_string()))
}
