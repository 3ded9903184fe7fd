//! What daemon and decoder say to each other: one JSON message a packet, with the file and the memory for its pixels
//! going along as descriptors. Everything that the decoder answers is checked: it has read a stranger's file.

use crate::radiograph::dicom::{Filing, MAX_FILING};
use crate::radiograph::{Limits, Origin, Pixels, Radiograph, Refusal};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;

/// The longest message; the longest honest one is a few thousand bytes.
const MAX_MESSAGE: usize = 32 << 10;

/// The descriptors of a request: the file, and the memory for its pixels.
const DESCRIPTORS: usize = 2;

/// Bytes of pixels that are copied at once.
const CHUNK: usize = 64 << 10;

/// What the daemon asks: decode the file that comes along.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) limits: Limits,
    /// Of the pseudonyms. Here, and not in the arguments or the environment, where other processes could read it.
    pub(super) key: [u8; 32],
    /// Whether it is wanted what a result would be filed under.
    pub(super) filing: bool,
}

/// What the decoder answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The file's bytes are there and are being decoded: another answer follows.
    Read,
    /// A radiograph, whose pixels are in the memory that came with the request.
    Radiograph(Header),
    /// None that can be judged.
    Refused(Refused),
    /// The system gave an error, this one, when the file was read.
    Unread(i32),
}

/// A radiograph but for its pixels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    width: u32,
    height: u32,
    /// Bytes a pixel: 1 or 2.
    depth: u8,
    origin: Origin,
    applied: Vec<String>,
    /// Bytes behind the pixels, of what a result is filed under.
    #[serde(default)]
    filing: u64,
}

/// A refusal as it travels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refused {
    code: crate::radiograph::RefusalCode,
    message: String,
}

impl From<Refusal> for Refused {
    fn from(Refusal { code, message }: Refusal) -> Self {
        Self { code, message }
    }
}

impl Answer {
    /// From a packet; `None`: nonsense.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        serde_json::from_slice(packet).ok()
    }
}

/// Sends one message with descriptors.
pub(super) fn send(socket: impl AsFd, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message with its descriptors; `None` when the other end is closed. Honours the socket's time limit.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(these) = message {
            descriptors.extend(these);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    bytes.truncate(received.bytes);
    Ok((received.bytes > 0).then_some((bytes, descriptors)))
}

/// Writes the pixels into the memory that the daemon will read, behind them what a result is filed under, and says what
/// they are.
pub(super) fn put(radiograph: Radiograph, filing: Option<&Filing>, memory: &File) -> io::Result<Header> {
    let Radiograph { width, height, pixels, origin, applied } = radiograph;
    let (depth, end) = match pixels {
        Pixels::Grey8(levels) => {
            memory.write_all_at(&levels, 0)?;
            (1, levels.len() as u64)
        }
        Pixels::Grey16(levels) => {
            let mut bytes = vec![0; CHUNK];
            for (number, chunk) in levels.chunks(CHUNK / 2).enumerate() {
                let bytes = &mut bytes[..chunk.len() * 2];
                for (pair, level) in bytes.chunks_exact_mut(2).zip(chunk) {
                    pair.copy_from_slice(&level.to_ne_bytes());
                }
                memory.write_all_at(bytes, (number * CHUNK) as u64)?;
            }
            (2, levels.len() as u64 * 2)
        }
    };
    let sealed = filing.map(Filing::sealed).unwrap_or_default();
    memory.write_all_at(&sealed, end)?;
    Ok(Header { width, height, depth, origin, applied, filing: sealed.len() as u64 })
}

/// The radiograph of a header and its pixels, and what a result is filed under; `None` where the parts do not belong
/// together, or no honest decoder would say such a thing.
pub(super) fn get(header: Header, memory: &File, limits: &Limits) -> Option<(Radiograph, Option<Filing>)> {
    let Header { width, height, depth, origin, applied, filing } = header;
    let pixels =
        u64::from(width).checked_mul(height.into()).filter(|&pixels| pixels > 0 && pixels <= limits.max_pixels)?;
    let bytes = pixels.checked_mul(depth.into())?;
    if !is_sound(&origin) || applied.len() > 64 || !applied.iter().all(|step| is_text(step, 500)) {
        return None;
    }
    // What is there may be less than what was said; it is not more than this.
    if filing > MAX_FILING as u64 || memory.metadata().ok()?.len() != bytes.checked_add(filing)? {
        return None;
    }
    let filing = match filing {
        0 => None,
        length => {
            let mut sealed = vec![0; usize::try_from(length).ok()?];
            memory.read_exact_at(&mut sealed, bytes).ok()?;
            Some(Filing::unsealed(&sealed)?)
        }
    };
    let pixels = usize::try_from(pixels).ok()?;
    let pixels = match depth {
        1 => {
            let mut levels = vec![0; pixels];
            memory.read_exact_at(&mut levels, 0).ok()?;
            Pixels::Grey8(levels)
        }
        2 => {
            let mut levels = Vec::with_capacity(pixels);
            let mut chunk = vec![0; CHUNK];
            while levels.len() < pixels {
                let now = &mut chunk[..CHUNK.min((pixels - levels.len()) * 2)];
                memory.read_exact_at(now, levels.len() as u64 * 2).ok()?;
                levels.extend(now.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])));
            }
            Pixels::Grey16(levels)
        }
        _ => return None,
    };
    Some((Radiograph { width, height, pixels, origin, applied }, filing))
}

/// The refusal as it came, if it is one that a decoder gives.
pub(super) fn refusal(refused: Refused) -> Option<Refusal> {
    is_text(&refused.message, 2000).then(|| Refusal::new(refused.code, refused.message))
}

/// Whether an origin has the form that every origin has: it goes into reports as it is.
pub(in crate::source) fn is_sound(origin: &Origin) -> bool {
    let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_code =
        |text: &str| text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_ ".contains(&byte));
    let pseudonyms = [&origin.study, &origin.series, &origin.instance];
    is_hex(&origin.content_sha256, 64)
        && pseudonyms.into_iter().flatten().all(|text| is_hex(text, 32))
        && [&origin.modality, &origin.view].into_iter().flatten().all(|text| is_code(text))
}

/// Whether a text may stand in a log or a report: not too long, and nothing in it that a terminal obeys.
pub(in crate::source) fn is_text(text: &str, longest: usize) -> bool {
    text.len() <= longest && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::phantom;

    fn memory() -> File {
        tempfile::tempfile().unwrap()
    }

    fn sound() -> Radiograph {
        phantom::radiograph(3, 40)
    }

    #[test]
    fn a_radiograph_arrives_as_it_was_sent() {
        let eight = sound();
        let words = (0..1600u32).map(|level| (level * 41) as u16).collect();
        let sixteen = Radiograph { pixels: Pixels::Grey16(words), ..eight.clone() };
        for radiograph in [eight, sixteen] {
            let memory = memory();
            let header = put(radiograph.clone(), None, &memory).unwrap();
            assert_eq!(get(header, &memory, &Limits::default()), Some((radiograph, None)));
        }
    }

    #[test]
    fn what_no_honest_decoder_says_is_nothing() {
        let memory = memory();
        let honest = || put(sound(), None, &memory).unwrap();
        assert!(get(honest(), &memory, &Limits::default()).is_some());
        let spoiled: [fn(&mut Header); 10] = [
            |header| header.filing = 8,
            |header| header.width = 41,
            |header| header.height = 0,
            |header| (header.width, header.height) = (u32::MAX, u32::MAX),
            |header| header.depth = 2,
            |header| header.depth = 3,
            |header| header.origin.content_sha256 = "Doe^Jane".into(),
            |header| header.origin.study = Some("1.2.3".into()),
            |header| header.origin.modality = Some("a longer text than a code".into()),
            |header| header.applied = vec!["\u{1b}[2J".into()],
        ];
        for (number, spoil) in spoiled.iter().enumerate() {
            let mut header = honest();
            spoil(&mut header);
            assert!(get(header, &memory, &Limits::default()).is_none(), "{number}");
        }
        let small = Limits { max_pixels: 1599, ..Limits::default() };
        assert!(get(honest(), &memory, &small).is_none());
    }
}
