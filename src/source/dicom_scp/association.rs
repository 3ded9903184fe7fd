//! One connection from its request to its end: negotiation, then one message after the other. Opens no socket.

use super::command::{C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, Command, Status};
use super::counts::Accepted;
use super::negotiate::{self, Context, Contexts, Rejection, VERIFICATION};
use super::store::Incoming;
use super::wire::{Connection, Ended, Received, Value, Wire, values};
use super::{Provider, Stop};
use dicom_ul::Pdu;
use dicom_ul::pdu::{AbortRQServiceProviderReason as Reason, AssociationRQ, PDataValue, PDataValueType};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long a connection may take until its association request is there, TLS included.
const REQUEST: Duration = Duration::from_secs(10);

/// Most bytes of a command set: honest ones have some two hundred.
const MAX_COMMAND: usize = 16 << 10;

/// The least PDU that a peer must take; the standard sets none, and a response fits.
const MIN_PDU: usize = 64;

/// What an association has brought.
#[derive(Debug, Default)]
struct Brought {
    stored: u64,
    refused: u64,
}

/// An association that was accepted.
struct Association<'a> {
    provider: &'a Provider,
    contexts: Contexts,
    /// Most bytes of a PDU that the peer takes.
    their_max: usize,
    /// The message that is coming in.
    message: Message,
    brought: Brought,
    _counted: Accepted,
}

enum Message {
    /// None.
    None,
    /// The first pieces of a command, in which context, and until when it must be whole.
    Command(u8, Vec<u8>, Instant),
    /// A command has come that a data set follows, in which context.
    Data(u8, Box<Incoming>),
}

impl Message {
    /// Until when the rest of it must be there.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Command(_, _, deadline) => Some(*deadline),
            Self::Data(_, incoming) => Some(incoming.deadline()),
        }
    }
}

/// Serves one connection to its end.
pub(super) fn serve<S: Connection>(provider: &Provider, stream: S, from: IpAddr, stop: &Stop) {
    let config = &provider.config;
    let mut wire = Wire::new(stream, stop, config.max_pdu_bytes, config.idle());
    let request = match wire.first(REQUEST) {
        Ok(Received::Other(Pdu::AssociationRQ(request))) => request,
        Ok(Received::Other(Pdu::AbortRQ { .. })) => return,
        Ok(_) => return broken(provider, wire, Ended::Malformed(Reason::UnexpectedPdu), from),
        // Somebody only looks whether the port is open.
        Err(Ended::HungUp) => return,
        Err(ended) => return broken(provider, wire, ended, from),
    };
    let mut association = match negotiate(provider, &request, from) {
        Ok((answer, association)) => {
            if let Err(ended) = wire.send(&answer) {
                return broken(provider, wire, ended, from);
            }
            association
        }
        Err(Some(rejection)) => {
            provider.watch.rejected(rejection.reason());
            provider.warn(from, || rejected(rejection, &request));
            // Best effort: the peer sees the end of the connection in any case.
            let _ = wire.send(&Pdu::AssociationRJ(rejection.pdu()));
            return wire.close();
        }
        Err(None) => return broken(provider, wire, Ended::Malformed(Reason::InvalidPduParameter), from),
    };
    let ended = association.run(&mut wire);
    let Brought { stored, refused } = association.brought;
    // It counts no more: what is left is the farewell.
    drop(association);
    if stored + refused > 0 {
        log::info!("DICOM: {from} has sent {stored} instances; {refused} more were refused");
    }
    match ended {
        Ok(()) => wire.close(),
        Err(ended) => broken(provider, wire, ended, from),
    }
}

/// Counts and answers the end of a connection that did not end as it should.
fn broken<S: Connection>(provider: &Provider, wire: Wire<'_, S>, ended: Ended, from: IpAddr) {
    let (what, reason) = match &ended {
        Ended::HungUp | Ended::Cut => ("cut", None),
        Ended::Silent => ("silent", Some(Reason::ReasonNotSpecified)),
        Ended::Malformed(reason) => ("malformed", Some(reason.clone())),
        Ended::Tls => ("malformed", Some(Reason::UnrecognizedPdu)),
        Ended::Stopping => ("stopping", Some(Reason::ReasonNotSpecified)),
        Ended::Failed(_) => ("failed", None),
    };
    provider.watch.broken(what);
    match &ended {
        Ended::Stopping => {}
        Ended::Failed(error) => provider.warn(from, || format!("the connection failed: {error}")),
        Ended::HungUp | Ended::Cut => provider.warn(from, || "the connection was cut".into()),
        Ended::Silent => provider.warn(from, || "broken off, since it was silent or too slow".into()),
        Ended::Malformed(_) => provider.warn(from, || "broken off: what it sends is not DICOM as it should be".into()),
        Ended::Tls => {
            provider.warn(from, || "broken off: it speaks TLS, which source.dicom.tls_certificate switches on".into());
        }
    }
    match reason {
        Some(reason) => wire.abort(reason),
        None => wire.close(),
    }
}

/// What the log says of a rejected request. Titles are no patients' names, but a stranger may write what he likes there.
fn rejected(rejection: Rejection, request: &AssociationRQ) -> String {
    let shown = |title: &str| -> String {
        title.chars().map(|letter| if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' }).collect()
    };
    let (called, calling) = (shown(&request.called_ae_title), shown(&request.calling_ae_title));
    match rejection {
        Rejection::Protocol | Rejection::Application => "rejected: it speaks no DICOM that is known".into(),
        Rejection::Calling => {
            format!("rejected: {calling:?} from this address is not among source.dicom.allowed_peers")
        }
        Rejection::Called => format!("rejected: it calls {called:?}, and source.dicom.ae_title is another"),
        Rejection::Busy => "asked to come again: source.dicom.max_associations are there already".into(),
    }
}

/// The answer to a request and the association that comes of it; `None`: it is none that can be answered.
fn negotiate<'a>(
    provider: &'a Provider,
    request: &AssociationRQ,
    from: IpAddr,
) -> Result<(Pdu, Association<'a>), Option<Rejection>> {
    let config = &provider.config;
    negotiate::admit(request, &config.ae_title, &provider.peers, from).map_err(Some)?;
    let (answer, contexts) = negotiate::accept(request, config.max_pdu_bytes).ok_or(None)?;
    let their_max = negotiate::their_max(request).unwrap_or(usize::MAX);
    if their_max < MIN_PDU {
        return Err(None);
    }
    let counted = provider.watch.accept(config.max_associations).ok_or(Some(Rejection::Busy))?;
    let (message, brought) = (Message::None, Brought::default());
    let association = Association { provider, contexts, their_max, message, brought, _counted: counted };
    Ok((answer.into(), association))
}

impl Association<'_> {
    /// One PDU after the other, until the peer releases or aborts.
    fn run<S: Connection>(&mut self, wire: &mut Wire<'_, S>) -> Result<(), Ended> {
        let idle = self.provider.config.idle();
        loop {
            let is_between = matches!(self.message, Message::None);
            let wait = match self.message.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
            {
                Some(Duration::ZERO) => return Err(Ended::Silent),
                Some(left) => idle.min(left),
                None => idle,
            };
            match wire.next(wait, is_between)? {
                Received::Data(body) => {
                    for value in values(&body).flatten() {
                        self.take(wire, &value)?;
                    }
                }
                Received::Other(Pdu::ReleaseRQ) if is_between => return wire.send(&Pdu::ReleaseRP),
                Received::Other(Pdu::AbortRQ { .. }) => return Ok(()),
                Received::Other(_) => return Err(Ended::Malformed(Reason::UnexpectedPdu)),
            }
        }
    }

    /// Takes one piece of a message.
    fn take<S: Connection>(&mut self, wire: &mut Wire<'_, S>, value: &Value<'_>) -> Result<(), Ended> {
        let wrong = || Ended::Malformed(Reason::UnexpectedPduParameter);
        match std::mem::replace(&mut self.message, Message::None) {
            begun @ (Message::None | Message::Command(..)) => {
                let (context, mut pieces, deadline) = match begun {
                    Message::Command(context, pieces, deadline) => (context, pieces, deadline),
                    _ => (value.context, Vec::new(), Instant::now() + self.provider.config.idle()),
                };
                if !value.is_command || context != value.context || pieces.len() + value.bytes.len() > MAX_COMMAND {
                    return Err(wrong());
                }
                pieces.extend(value.bytes);
                if !value.is_last {
                    self.message = Message::Command(context, pieces, deadline);
                    return Ok(());
                }
                let command = Command::read(&pieces).ok_or_else(wrong)?;
                let accepted = self.contexts.get(&context).cloned().ok_or_else(wrong)?;
                self.command(wire, context, &accepted, command)
            }
            Message::Data(context, mut incoming) => {
                if value.is_command || context != value.context {
                    return Err(wrong());
                }
                if !incoming.take(value.bytes) {
                    self.refused(&command_name(C_STORE_RQ), Status::TOO_LARGE);
                    return Err(Ended::Malformed(Reason::InvalidPduParameter));
                }
                if !value.is_last {
                    self.message = Message::Data(context, incoming);
                    return Ok(());
                }
                let (command, status) = incoming.finish();
                self.answer(wire, context, &command, status)
            }
        }
    }

    /// What a command asks for.
    fn command<S: Connection>(
        &mut self,
        wire: &mut Wire<'_, S>,
        number: u8,
        context: &Context,
        command: Command,
    ) -> Result<(), Ended> {
        let Provider { spool, max_file_bytes, config, .. } = self.provider;
        let status = match command.field {
            C_CANCEL_RQ => return Ok(()),
            C_ECHO_RQ if context.abstract_syntax == VERIFICATION => Status::SUCCESS,
            C_STORE_RQ if context.abstract_syntax == VERIFICATION => Status::OTHER_CLASS,
            C_STORE_RQ if command.sop_class != context.abstract_syntax => Status::OTHER_CLASS,
            C_STORE_RQ if command.has_data_set => {
                let incoming =
                    Incoming::begin(command, context.transfer_syntax, spool, *max_file_bytes, config.instance());
                self.message = Message::Data(number, Box::new(incoming));
                return Ok(());
            }
            C_STORE_RQ => Status::NOT_UNDERSTOOD,
            C_ECHO_RQ => Status::OTHER_CLASS,
            _ => Status::NO_SUCH_OPERATION,
        };
        if command.has_data_set {
            let incoming = Incoming::refused(command, status, *max_file_bytes, config.instance());
            self.message = Message::Data(number, Box::new(incoming));
            return Ok(());
        }
        self.answer(wire, number, &command, status)
    }

    /// Answers a command.
    fn answer<S: Connection>(
        &mut self,
        wire: &mut Wire<'_, S>,
        context: u8,
        command: &Command,
        status: Status,
    ) -> Result<(), Ended> {
        if status != Status::SUCCESS {
            self.refused(&command_name(command.field), status);
        }
        let response = command.response(status);
        // Six bytes of each value stand before its piece.
        let pieces: Vec<_> = response.chunks(self.their_max - 6).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let value = PDataValue {
                presentation_context_id: context,
                value_type: PDataValueType::Command,
                is_last: at + 1 == pieces.len(),
                data: piece.to_vec(),
            };
            wire.send(&Pdu::PData { data: vec![value] })?;
        }
        if status == Status::SUCCESS && command.field == C_STORE_RQ {
            self.brought.stored += 1;
            self.provider.watch.stored();
        }
        Ok(())
    }

    fn refused(&mut self, what: &str, status: Status) {
        self.brought.refused += 1;
        self.provider.watch.refused(status.reason);
        log::debug!("DICOM: {what} refused with {:04X}: {}", status.code, status.comment);
    }
}

fn command_name(field: u16) -> String {
    match field {
        C_STORE_RQ => "an instance".into(),
        C_ECHO_RQ => "an echo".into(),
        other => format!("operation {other:04X}"),
    }
}
