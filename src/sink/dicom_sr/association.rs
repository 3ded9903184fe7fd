//! C-STORE to the PACS: one association, one object after the other. Not what is sent when.
//!
//! The protocol's upper layer is dicom-ul's; the two messages of C-STORE stand in `command`. What the other side says is bounded
//! in length and time, and never repeated in a log: only its numbers are.

use super::command::{Answer, answer, request, response};
use super::config::{Config, Kind};
use super::implicit::Implicit;
use super::{capture, document};
use crate::named_file::FileError;
use crate::sink::tls;
use dicom_dictionary_std::uids;
use dicom_ul::association::client::ClientAssociationOptions;
use dicom_ul::association::{CloseSocket, Error};
use dicom_ul::pdu::{
    AssociationRJServiceUserReason, AssociationRJSource, PDataValue, PDataValueType, PresentationContextNegotiated,
};
use dicom_ul::{ClientAssociation, Pdu};
use rustls::ClientConfig;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Bytes of a data set that go into one PDU at most, and the least that a PACS must take.
const CHUNK: usize = 64 << 10;
const MIN_PDU: u32 = 1024;

/// Bytes of one answer's command at most; honest ones have about 200.
const MAX_COMMAND: usize = 16 << 10;

/// The PDU and what stands in front of a value in it.
const OVERHEAD: usize = 12;

/// Why nothing can be sent now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Trouble(pub(super) String);

/// How to get to the PACS.
#[derive(Clone)]
pub(super) struct Peer {
    config: Config,
    tls: Option<Arc<ClientConfig>>,
}

impl Peer {
    /// Reads the certificates and keys that are needed.
    pub(super) fn new(config: &Config) -> Result<Self, FileError> {
        let [authorities, certificate, key] = config.files();
        let tls = if config.tls {
            let whose = "the PACS's";
            Some(Arc::new(tls::client_config(&tls::Files { authorities, certificate, key, whose })?))
        } else {
            None
        };
        Ok(Self { config: config.clone(), tls })
    }

    /// Asks for an association.
    pub(super) fn connect(&self) -> Result<Association, Trouble> {
        let Some((host, port)) = self.config.host_and_port() else {
            return Err(Trouble("dicom_results.address is none".into()));
        };
        let timeout = self.config.timeout();
        let mut options = ClientAssociationOptions::new()
            .calling_ae_title(self.config.ae_title.as_str())
            .called_ae_title(self.config.called_ae_title.as_str())
            .connection_timeout(timeout)
            .read_timeout(timeout)
            .write_timeout(timeout);
        for kind in Kind::ALL {
            for syntax in [uids::EXPLICIT_VR_LITTLE_ENDIAN, uids::IMPLICIT_VR_LITTLE_ENDIAN] {
                options = options.with_presentation_context(sop_class(kind), vec![syntax]);
            }
        }
        let established = match &self.tls {
            None => options.establish((host, port)).map(|link| Box::new(link) as Box<dyn Link>),
            Some(tls) => {
                let options = options.tls_config(Arc::clone(tls)).server_name(host);
                options.establish_tls((host, port)).map(|link| Box::new(link) as Box<dyn Link>)
            }
        };
        let link = established.map_err(|error| Trouble(self.in_words(&error)))?;
        if link.max_pdu() < MIN_PDU {
            let problem = format!("{} takes PDUs of less than {MIN_PDU} bytes only", self.config.address);
            return Err(Trouble(problem));
        }
        Ok(Association { link, message: 0, is_midway: false })
    }

    /// What went wrong, in words that say what to do where that is known. Of what the other side sent, nothing.
    fn in_words(&self, error: &Error) -> String {
        let Config { address, called_ae_title, ae_title, .. } = &self.config;
        let problem = match error {
            Error::Rejected { association_rj, .. } => match &association_rj.source {
                AssociationRJSource::ServiceUser(AssociationRJServiceUserReason::CallingAETitleNotRecognized) => {
                    return format!(
                        "{address} does not know the box's AE title {ae_title:?}: have it entered there, or correct \
                         dicom_results.ae_title"
                    );
                }
                AssociationRJSource::ServiceUser(AssociationRJServiceUserReason::CalledAETitleNotRecognized) => {
                    return format!(
                        "{address} is not called {called_ae_title:?}: correct dicom_results.called_ae_title"
                    );
                }
                AssociationRJSource::ServiceUser(_) => "it refuses associations with this box".to_owned(),
                _ => "it takes no association now".to_owned(),
            },
            Error::NoAcceptedPresentationContexts { .. } => {
                "it takes neither structured reports nor Secondary Captures".to_owned()
            }
            Error::Connect { source, .. } | Error::ToAddress { source, .. } => source.to_string(),
            Error::TlsHandshake { source, .. } => format!("TLS: {source}"),
            Error::TlsConnection { source, .. } => format!("TLS: {source}"),
            Error::TlsNotSupported => "it wants TLS: set dicom_results.tls = true".to_owned(),
            Error::ConnectionClosed { .. } => "it has closed the connection".to_owned(),
            Error::Timeout { .. } => "it does not answer in time".to_owned(),
            other => match io_error(other) {
                Some(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    "it does not answer in time".to_owned()
                }
                Some(error) => error.to_string(),
                None => "it does not speak DICOM as it should".to_owned(),
            },
        };
        format!("{address}: {problem}")
    }
}

/// The error of the system behind one of the protocol, if there is one.
fn io_error(error: &Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}

/// The SOP class of a kind.
pub(super) fn sop_class(kind: Kind) -> &'static str {
    match kind {
        Kind::Sr => document::SOP_CLASS,
        Kind::SecondaryCapture => capture::SOP_CLASS,
    }
}

/// An association over TCP or TLS.
trait Link: Send {
    fn contexts(&self) -> &[PresentationContextNegotiated];
    fn max_pdu(&self) -> u32;
    fn send(&mut self, pdu: &Pdu) -> Result<(), Error>;
    fn receive(&mut self) -> Result<Pdu, Error>;
    fn release(self: Box<Self>);
}

impl<S: CloseSocket + Read + Write + Send> Link for ClientAssociation<S> {
    fn contexts(&self) -> &[PresentationContextNegotiated] {
        self.presentation_contexts()
    }

    fn max_pdu(&self) -> u32 {
        self.acceptor_max_pdu_length()
    }

    fn send(&mut self, pdu: &Pdu) -> Result<(), Error> {
        ClientAssociation::send(self, pdu)
    }

    fn receive(&mut self) -> Result<Pdu, Error> {
        ClientAssociation::receive(self)
    }

    fn release(self: Box<Self>) {
        // A courtesy: everything was acknowledged before.
        let _ = ClientAssociation::release(*self);
    }
}

/// An association that stands.
pub(super) struct Association {
    link: Box<dyn Link>,
    message: u16,
    /// An object was begun, and no answer to it came.
    is_midway: bool,
}

impl Association {
    /// Whether it takes objects of this kind.
    pub(super) fn takes(&self, kind: Kind) -> bool {
        self.context(kind).is_some()
    }

    /// The context for a kind: its number, and whether it is one of implicit VRs, which is the second choice.
    fn context(&self, kind: Kind) -> Option<(u8, bool)> {
        let class = sop_class(kind);
        let found = |syntax: &str| {
            let is_it = |context: &&PresentationContextNegotiated| {
                context.abstract_syntax == class && context.transfer_syntax.trim_end_matches(['\0', ' ']) == syntax
            };
            self.link.contexts().iter().find(is_it).map(|context| context.id)
        };
        let explicit = found(uids::EXPLICIT_VR_LITTLE_ENDIAN).map(|id| (id, false));
        explicit.or_else(|| found(uids::IMPLICIT_VR_LITTLE_ENDIAN).map(|id| (id, true)))
    }

    /// Sends one object and waits for the answer. `data_set` is explicit VR little endian, as it lies on the disk.
    pub(super) fn store(&mut self, kind: Kind, instance: &str, data_set: &mut dyn Read) -> Result<Answer, StoreError> {
        let Some((context, is_implicit)) = self.context(kind) else {
            let reason = format!("it does not take a {}", kind.title());
            return Ok(Answer::Refused { reason, lasting: true });
        };
        self.message = self.message.wrapping_add(1);
        self.is_midway = true;
        let command = request(sop_class(kind), instance, self.message);
        self.send(context, PDataValueType::Command, true, command)?;
        if is_implicit {
            self.send_all(context, &mut Implicit::new(data_set))?;
        } else {
            self.send_all(context, data_set)?;
        }
        let status = self.status()?;
        self.is_midway = false;
        Ok(answer(status))
    }

    fn send_all(&mut self, context: u8, data_set: &mut dyn Read) -> Result<(), StoreError> {
        let most = CHUNK.min(self.link.max_pdu() as usize - OVERHEAD);
        let mut chunk = read_chunk(data_set, most)?;
        loop {
            let next = read_chunk(data_set, most)?;
            let is_last = next.is_empty();
            self.send(context, PDataValueType::Data, is_last, chunk)?;
            if is_last {
                return Ok(());
            }
            chunk = next;
        }
    }

    fn send(
        &mut self,
        presentation_context_id: u8,
        value_type: PDataValueType,
        is_last: bool,
        data: Vec<u8>,
    ) -> Result<(), StoreError> {
        let data = vec![PDataValue { presentation_context_id, value_type, is_last, data }];
        self.link.send(&Pdu::PData { data }).map_err(StoreError::of)
    }

    /// Waits for the answer to the message that was sent last.
    fn status(&mut self) -> Result<u16, StoreError> {
        let mut command = Vec::new();
        loop {
            let values = match self.link.receive().map_err(StoreError::of)? {
                Pdu::PData { data } => data,
                Pdu::AbortRQ { .. } => return Err(StoreError::Lost("it has aborted the association".into())),
                _ => return Err(StoreError::nonsense()),
            };
            for value in values {
                if value.value_type != PDataValueType::Command || command.len() + value.data.len() > MAX_COMMAND {
                    return Err(StoreError::nonsense());
                }
                command.extend(value.data);
                if value.is_last {
                    return match response(&command) {
                        Some((message, status)) if message == self.message => Ok(status),
                        _ => Err(StoreError::nonsense()),
                    };
                }
            }
        }
    }

    /// Ends it, in good manners where that can be.
    pub(super) fn release(self) {
        if !self.is_midway {
            self.link.release();
        }
    }
}

/// An object was not sent, or no answer came.
#[derive(Debug)]
pub(super) enum StoreError {
    /// The association is lost.
    Lost(String),
    /// The object cannot be read.
    Unread(io::Error),
}

impl StoreError {
    fn of(error: Error) -> Self {
        let problem = match (&error, io_error(&error)) {
            (_, Some(error)) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                "it does not answer in time".into()
            }
            (_, Some(error)) => error.to_string(),
            (Error::ConnectionClosed { .. }, None) => "it has closed the connection".into(),
            (_, None) => return Self::nonsense(),
        };
        Self::Lost(problem)
    }

    fn nonsense() -> Self {
        Self::Lost("it does not speak DICOM as it should".into())
    }
}

/// As many bytes as there are, up to `most`.
fn read_chunk(from: &mut dyn Read, most: usize) -> Result<Vec<u8>, StoreError> {
    let mut chunk = Vec::with_capacity(most);
    from.take(most as u64).read_to_end(&mut chunk).map_err(StoreError::Unread)?;
    Ok(chunk)
}
