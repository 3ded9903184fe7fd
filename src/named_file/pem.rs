//! Certificates and keys as PEM files hold them. Trusts nobody by itself.

use super::{FileError, read_public, read_secret};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::path::Path;

/// The certificates of a PEM file; at least one.
pub fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let failed = |problem: &str| FileError::unusable(key, path, problem);
    let bytes = read_public(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(failed("it holds no certificate in PEM form (BEGIN CERTIFICATE)")),
        Err(_) => Err(failed("it is not a PEM file of certificates; get it again")),
    }
}

/// The authorities of a PEM file; at least one. `whose` says of whom, for the error.
pub fn authorities(key: &'static str, path: &Path, whose: &str) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        // A system's list may hold old forms that rustls does not read; one good one is enough.
        if let Err(error) = roots.add(certificate) {
            log::debug!("{}: a certificate is left out: {error}", path.display());
        }
    }
    if roots.is_empty() {
        let problem = format!("it holds no usable certificate; give the PEM file of {whose} authority");
        return Err(FileError::unusable(key, path, problem));
    }
    Ok(roots)
}

/// The key of a PEM file. The parser's own words are not passed on: they may quote it.
pub fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let secret = read_secret(key, path)?;
    PrivateKeyDer::from_pem_slice(secret.reveal()).map_err(|_| {
        let is_encrypted = secret.reveal().windows(9).any(|window| window == b"ENCRYPTED");
        let problem = if is_encrypted {
            "it is encrypted, and nobody is there at the start to type its password: remove the encryption \
             (openssl pkey -in OLD -out NEW) and let only the service read it"
        } else {
            "it holds no private key in PEM form (BEGIN PRIVATE KEY)"
        };
        FileError::unusable(key, path, problem)
    })
}
