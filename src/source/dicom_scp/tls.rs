//! TLS for the DICOM network: the box's certificate, and where the configuration names authorities, the peers'. The rest is
//! rustls, with the one crypto library of the box.

use super::wire::Connection;
use super::{Config, ScpError};
use crate::named_file::{self, FileError, pem};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;

const CERTIFICATE: &str = "source.dicom.tls_certificate";
const KEY: &str = "source.dicom.tls_key";
const CLIENT_CA: &str = "source.dicom.tls_client_ca";

/// The server's side of TLS; `None` where the configuration has none.
pub(super) fn server_config(config: &Config) -> Result<Option<Arc<ServerConfig>>, ScpError> {
    let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else { return Ok(None) };
    let provider = Arc::new(ring::default_provider());
    let chain = pem::certificates(CERTIFICATE, &named_file::locate(CERTIFICATE, certificate)?)?;
    let key_path = named_file::locate(KEY, key)?;
    let key = pem::private_key(KEY, &key_path)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ScpError::Value(error.to_string()))?;
    let builder = match &config.tls_client_ca {
        Some(ca) => {
            let path = named_file::locate(CLIENT_CA, ca)?;
            let roots = Arc::new(pem::authorities(CLIENT_CA, &path, "the modalities'")?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| unusable(CLIENT_CA, &path, &error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let made = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => unusable(KEY, &key_path, "it is not the key of source.dicom.tls_certificate"),
        other => unusable(KEY, &key_path, &format!("with source.dicom.tls_certificate it cannot be used: {other}")),
    })?;
    Ok(Some(Arc::new(made)))
}

fn unusable(key: &'static str, path: &Path, problem: &str) -> ScpError {
    FileError::unusable(key, path, problem).into()
}

/// A connection's encrypted side.
pub(super) fn stream(
    config: &Arc<ServerConfig>,
    stream: TcpStream,
) -> Result<StreamOwned<ServerConnection, TcpStream>, Error> {
    Ok(StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream))
}

impl Connection for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Connection for StreamOwned<ServerConnection, TcpStream> {
    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.flush()?;
        self.sock.shutdown(Shutdown::Write)
    }
}
