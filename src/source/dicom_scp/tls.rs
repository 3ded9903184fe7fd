//! TLS for the DICOM network: the box's certificate, and where the configuration names authorities, the peers'. The rest is
//! rustls, with the one crypto library of the box.

use super::wire::Connection;
use super::{Config, ScpError};
use crate::named_file::{self, FileError, pem};
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
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

/// A connection's encrypted side. rustls has one of its own, which reads on until a whole record, or the whole handshake, is
/// there: a peer that sends a byte now and then would hold it there for hours, and nobody could look at the clock.
pub(super) struct Encrypted {
    tls: ServerConnection,
    socket: TcpStream,
}

impl Encrypted {
    pub(super) fn new(config: &Arc<ServerConfig>, socket: TcpStream) -> Result<Self, Error> {
        Ok(Self { tls: ServerConnection::new(Arc::clone(config))?, socket })
    }
}

impl Read for Encrypted {
    /// Reads from the socket once at most: `WouldBlock` where that made nothing whole.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // What TLS itself has to say comes first: the peer may wait for it.
        if self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        match self.tls.reader().read(into) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            read => return read,
        }
        self.tls.read_tls(&mut self.socket)?;
        if let Err(error) = self.tls.process_new_packets() {
            // Best effort: the peer is told why.
            let _ = self.tls.write_tls(&mut self.socket);
            return Err(io::Error::new(ErrorKind::InvalidData, explained(&error)));
        }
        self.tls.reader().read(into)
    }
}

impl Write for Encrypted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tls.writer().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// What is wrong, for who set up the modality.
fn explained(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => "it speaks no TLS, which source.dicom.tls_certificate switches on".into(),
        Error::NoCertificatesPresented => "it shows no certificate, and source.dicom.tls_client_ca asks for one".into(),
        Error::InvalidCertificate(_) => format!("{error}; see source.dicom.tls_client_ca"),
        Error::AlertReceived(_) => format!("{error}: most often it does not trust source.dicom.tls_certificate"),
        other => format!("TLS: {other}"),
    }
}

impl Connection for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Connection for Encrypted {
    fn finish(&mut self) -> io::Result<()> {
        self.tls.send_close_notify();
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{AlertDescription, CertificateError, InvalidMessage};

    #[test]
    fn what_is_wrong_is_said_with_the_key_to_look_at() {
        for (error, key) in [
            (Error::InvalidMessage(InvalidMessage::InvalidContentType), CERTIFICATE),
            (Error::NoCertificatesPresented, CLIENT_CA),
            (Error::InvalidCertificate(CertificateError::UnknownIssuer), CLIENT_CA),
            (Error::AlertReceived(AlertDescription::UnknownCA), CERTIFICATE),
        ] {
            assert!(explained(&error).contains(key), "{}", explained(&error));
        }
    }
}
