//! PDUs over one connection, each bounded in size and time before anything is allocated for it. Not their meaning; all but
//! P-DATA-TF, whose pieces are not copied, are read by dicom-ul.

use super::Stop;
use dicom_ul::Pdu;
use dicom_ul::pdu::{AbortRQServiceProviderReason as Reason, AbortRQSource, MINIMUM_PDU_SIZE, read_pdu, write_pdu};
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

/// Most bytes of an association request: 128 presentation contexts with 13 transfer syntaxes each take half of that.
const MAX_REQUEST: u32 = 256 << 10;

/// Most bytes of all other PDUs but data; honest ones have four.
const MAX_SMALL: u32 = 1024;

/// How TLS begins; no PDU does so.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long, and for how many bytes, a connection is still read that is over: closing it with unread bytes would take the
/// last word away from the peer.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_BYTES: usize = 4 << 20;

/// How long an answer, which is short, may take to go out.
const SENDING: Duration = Duration::from_secs(10);

/// A connection: bytes both ways. Reading and writing return `WouldBlock` or `TimedOut` now and then, when nothing moves.
pub trait Connection: Read + Write {
    /// Says that nothing more will be written.
    fn finish(&mut self) -> io::Result<()>;
}

/// A PDU.
#[derive(Debug)]
pub(super) enum Received {
    /// P-DATA-TF: its body, checked to be a sequence of whole values.
    Data(Vec<u8>),
    /// Any other.
    Other(Pdu),
}

/// One presentation data value: a piece of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) context: u8,
    pub(super) is_command: bool,
    pub(super) is_last: bool,
    pub(super) bytes: &'a [u8],
}

/// Why there is no further PDU.
#[derive(Debug)]
pub(super) enum Ended {
    /// The peer has hung up, between two PDUs.
    HungUp,
    /// The connection ended inside a PDU.
    Cut,
    /// Nothing came for too long, or too slowly.
    Silent,
    /// What came is no PDU, or none that may come.
    Malformed(Reason),
    /// It is TLS, of which this connection has none.
    Tls,
    /// The daemon stops, or takes another configuration.
    Stopping,
    /// The system, or TLS, says that it is over.
    Failed(io::Error),
}

/// One connection.
pub(super) struct Wire<'a, S> {
    stream: S,
    stop: &'a Stop,
    /// Most bytes of a P-DATA-TF PDU.
    max_data: u32,
    /// How long one PDU may take from its first byte to its last.
    patience: Duration,
}

impl<'a, S: Connection> Wire<'a, S> {
    pub(super) fn new(stream: S, stop: &'a Stop, max_data: u32, patience: Duration) -> Self {
        Self { stream, stop, max_data, patience }
    }

    /// The first PDU, all of it there within `wait`.
    pub(super) fn first(&mut self, wait: Duration) -> Result<Received, Ended> {
        let deadline = Instant::now() + wait;
        self.pdu(deadline, true, |_| deadline)
    }

    /// The next PDU, whose first byte comes within `wait`. `is_between`: no message has begun, so that it may stop here.
    pub(super) fn next(&mut self, wait: Duration, is_between: bool) -> Result<Received, Ended> {
        let rest = self.patience.min(wait.max(Duration::from_secs(1)));
        self.pdu(Instant::now() + wait, is_between, |began| began + rest)
    }

    /// A PDU whose first byte comes until `first`, and the others until when `rest` says, which is told when that was.
    fn pdu(
        &mut self,
        first: Instant,
        is_between: bool,
        rest: impl FnOnce(Instant) -> Instant,
    ) -> Result<Received, Ended> {
        // Here as well as where it is waited: for a peer that never pauses nothing is waited for.
        if self.is_to_stop(is_between) {
            return Err(Ended::Stopping);
        }
        let mut header = [0; 6];
        let began = self.fill(&mut header[..1], first, is_between);
        began.map_err(|ended| if matches!(ended, Ended::Cut) { Ended::HungUp } else { ended })?;
        let deadline = rest(Instant::now());
        if header[0] == TLS_HANDSHAKE {
            return Err(Ended::Tls);
        }
        self.fill(&mut header[1..], deadline, false)?;
        let length = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
        let most = match header[0] {
            1 => MAX_REQUEST,
            4 => self.max_data,
            2 | 3 | 5..=7 => MAX_SMALL,
            _ => return Err(Ended::Malformed(Reason::UnrecognizedPdu)),
        };
        if length > most {
            return Err(Ended::Malformed(Reason::InvalidPduParameter));
        }
        let mut body = vec![0; length as usize];
        self.fill(&mut body, deadline, false)?;
        if header[0] == 4 {
            // One without a value says nothing, and could be sent for ever.
            let is_whole = !body.is_empty() && values(&body).all(|value| value.is_some());
            return if is_whole {
                Ok(Received::Data(body))
            } else {
                Err(Ended::Malformed(Reason::InvalidPduParameter))
            };
        }
        // The length was held against bounds of our own already.
        match read_pdu([&header[..], &body].concat().as_slice(), MINIMUM_PDU_SIZE, false) {
            Ok(Some(pdu)) => Ok(Received::Other(pdu)),
            // Its words may quote what came.
            Ok(None) | Err(_) => Err(Ended::Malformed(Reason::InvalidPduParameter)),
        }
    }

    /// Reads exactly as much, until then.
    fn fill(&mut self, into: &mut [u8], deadline: Instant, may_stop: bool) -> Result<(), Ended> {
        let mut at = 0;
        while at < into.len() {
            match self.stream.read(&mut into[at..]) {
                Ok(0) => return Err(Ended::Cut),
                Ok(count) => at += count,
                Err(error) if is_patience(&error) => {}
                // The other side is gone without a word; with TLS, without its word of farewell.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return Err(Ended::Cut);
                }
                Err(error) => return Err(Ended::Failed(error)),
            }
            if at < into.len() && self.is_to_stop(may_stop) {
                return Err(Ended::Stopping);
            }
            if at < into.len() && Instant::now() >= deadline {
                return Err(Ended::Silent);
            }
        }
        Ok(())
    }

    fn is_to_stop(&self, is_between: bool) -> bool {
        if is_between { self.stop.is_asked() } else { self.stop.is_over() }
    }

    /// Sends a PDU.
    pub(super) fn send(&mut self, pdu: &Pdu) -> Result<(), Ended> {
        let mut bytes = Vec::new();
        // All that is sent is our own, and short.
        write_pdu(&mut bytes, pdu).map_err(|error| Ended::Failed(io::Error::other(error.to_string())))?;
        let deadline = Instant::now() + SENDING;
        let mut at = 0;
        loop {
            // Flushed as well: TLS takes the bytes first, and sends them then.
            let done = match bytes.get(at..).filter(|rest| !rest.is_empty()) {
                Some(rest) => self.stream.write(rest).map(|count| at += count).map(|()| false),
                None => self.stream.flush().map(|()| true),
            };
            match done {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if is_patience(&error) => {}
                Err(error) => return Err(Ended::Failed(error)),
            }
            // The peer does not read what it is answered.
            if Instant::now() >= deadline || self.stop.is_over() {
                return Err(Ended::Silent);
            }
        }
    }

    /// Breaks the association off.
    pub(super) fn abort(mut self, reason: Reason) {
        // Best effort: it is over, and the peer will see that one way or the other.
        let _ = self.send(&Pdu::AbortRQ { source: AbortRQSource::ServiceProvider(reason) });
        self.close();
    }

    /// Ends the connection so that the peer gets what was sent last.
    pub(super) fn close(mut self) {
        if self.stream.finish().is_err() {
            return;
        }
        let deadline = Instant::now() + FAREWELL;
        let mut rest = [0; 4096];
        let mut bytes = 0;
        while Instant::now() < deadline && bytes < FAREWELL_BYTES && !self.stop.is_over() {
            match self.stream.read(&mut rest) {
                Ok(0) => break,
                Ok(count) => bytes += count,
                Err(error) if is_patience(&error) => {}
                Err(_) => break,
            }
        }
    }
}

/// Whether nothing has come or gone yet, and nothing else is wrong.
pub(super) fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The values of a P-DATA-TF PDU; `None` at the end where it does not end with a whole one.
pub(super) fn values(mut body: &[u8]) -> impl Iterator<Item = Option<Value<'_>>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let value = value(body);
        body = value.map_or(&[][..], |(_, rest)| rest);
        Some(value.map(|(value, _)| value))
    })
}

fn value(body: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let ([context, control, bytes @ ..], rest) = rest.split_at_checked(length)? else { return None };
    let value = Value { context: *context, is_command: control & 1 != 0, is_last: control & 2 != 0, bytes };
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_apart_and_what_is_none_is_told() {
        let body = [&[0, 0, 0, 4, 1, 3, 7, 8][..], &[0, 0, 0, 2, 5, 0]].concat();
        let found: Vec<_> = values(&body).collect();
        let first = Value { context: 1, is_command: true, is_last: true, bytes: &[7, 8] };
        let second = Value { context: 5, is_command: false, is_last: false, bytes: &[] };
        assert_eq!(found, [Some(first), Some(second)]);
        for bad in [&body[..body.len() - 1], &[0, 0, 0, 1, 1], &[0, 0], &[255, 255, 255, 255, 1, 3, 0]] {
            assert_eq!(values(bad).last(), Some(None), "{bad:?}");
        }
        assert_eq!(values(&[]).count(), 0);
    }
}
