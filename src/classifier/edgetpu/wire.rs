//! What daemon and accelerator's process say to each other over a socket: frames, each its length and its bytes. The job
//! first, with the model and the golden vectors; then an image for an answer.

use crate::bundle::Outputs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

/// The longest job or answer, which are JSON, in bytes.
pub(super) const MAX_TEXT: usize = 64 << 10;

/// The longest model, in bytes.
pub(super) const MAX_MODEL: usize = 256 << 20;

/// What the process is for. After it come the model's bytes, and of each golden vector image, evidence map and features.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) library: PathBuf,
    pub(super) delegate: PathBuf,
    pub(super) options: BTreeMap<String, String>,
    /// Threads of what the delegate leaves to the processor.
    pub(super) threads: usize,
    /// How many quantization steps golden outputs may be off.
    pub(super) tolerance: u8,
    /// Rows, and columns, of an image.
    pub(super) size: usize,
    pub(super) outputs: Outputs,
    /// How many golden vectors follow.
    pub(super) golden: usize,
}

/// What the process answers, to the job and to each image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The model is loaded and gave its golden outputs.
    Ready {
        /// TFLite's version.
        version: String,
        /// The greatest difference from the golden outputs, in quantization steps.
        largest_difference: u8,
    },
    /// The outputs follow: evidence map and features.
    Done,
    /// It could not be done: why.
    Failed(String),
}

/// Sends a frame.
pub(super) fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    // In one piece: two small ones would be two wakings at the other end.
    let mut frame = Vec::with_capacity(4 + bytes.len());
    frame.extend(length.to_le_bytes());
    frame.extend(bytes);
    stream.write_all(&frame)
}

/// Sends a message as a frame.
pub(super) fn say(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    send(stream, &serde_json::to_vec(message)?)
}

/// Waits for a frame of at most `most` bytes; `None` when the other end is closed.
pub(super) fn receive(stream: &mut impl Read, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame that is too long"));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

/// Takes the first frame out of what was heard, once it is there whole. `Err` where no honest end would say such a thing.
pub(super) fn take(heard: &mut Vec<u8>, most: usize) -> Result<Option<Vec<u8>>, ()> {
    let Some((length, _)) = heard.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > most {
        return Err(());
    }
    if heard.len() < 4 + length {
        return Ok(None);
    }
    let rest = heard.split_off(4 + length);
    let frame = std::mem::replace(heard, rest).split_off(4);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_whole_however_they_arrive() {
        let mut sent = Vec::new();
        send(&mut sent, b"abc").unwrap();
        send(&mut sent, b"").unwrap();
        assert_eq!(receive(&mut &sent[..], 3).unwrap().as_deref(), Some(&b"abc"[..]));
        assert!(receive(&mut &sent[..], 2).is_err());
        assert_eq!(receive(&mut &b"ab"[..], 9).unwrap(), None);
        let mut heard = Vec::new();
        let mut frames = Vec::new();
        for byte in sent {
            heard.push(byte);
            frames.extend(take(&mut heard, 3).unwrap());
        }
        assert_eq!(frames, [b"abc".to_vec(), Vec::new()]);
        assert_eq!(take(&mut vec![9, 0, 0, 0], 8), Err(()));
    }
}
