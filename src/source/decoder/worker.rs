//! The decoder's side: reads the file that it is handed, decodes it, writes the pixels into the memory that it is handed,
//! and takes the next. Opens nothing, writes to no log, and ends when the daemon closes the connection.

use super::wire::{self, Answer, Request};
use crate::pseudonym::Key;
use crate::radiograph::dicom::Filing;
use crate::radiograph::file::{NotRead, read_open};
use crate::radiograph::{Limits, Radiograph, Refusal};
use rustix::fd::AsFd;
use std::fs::File;
use std::io;

/// Decodes what comes over standard input, which is a socket, until that is closed. `decode` is
/// [`crate::radiograph::open_bytes`], but for tests.
pub fn serve(mut decode: impl FnMut(&[u8], &Limits, &Key) -> Result<Radiograph, Refusal>) -> io::Result<()> {
    let socket = io::stdin();
    let socket = socket.as_fd();
    while let Some((message, descriptors)) = wire::receive(socket)? {
        let Request { limits, key, filing } = serde_json::from_slice(&message)?;
        let Ok([file, memory]) = <[_; 2]>::try_from(descriptors) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request without its file"));
        };
        let decoded = match read_open(&File::from(file), &limits) {
            Ok(bytes) => {
                wire::send(socket, &Answer::Read, &[])?;
                let decoded = decode(&bytes, &limits, &Key::from_bytes(key));
                decoded.map(|radiograph| (radiograph, filing.then(|| Filing::of(&bytes, &limits)).flatten()))
            }
            Err(NotRead::Refused(refusal)) => Err(refusal),
            Err(NotRead::Failed(error)) => {
                let answer = Answer::Unread(error.raw_os_error().unwrap_or(libc::EIO));
                wire::send(socket, &answer, &[])?;
                continue;
            }
        };
        let answer = match decoded {
            Ok((radiograph, filing)) => {
                Answer::Radiograph(wire::put(radiograph, filing.as_ref(), &File::from(memory))?)
            }
            Err(refusal) => Answer::Refused(refusal.into()),
        };
        wire::send(socket, &answer, &[])?;
    }
    Ok(())
}
