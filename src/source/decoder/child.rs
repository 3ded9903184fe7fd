//! One decoder process as the daemon sees it: started, asked, listened to, ended. Decides nothing about a file.

use super::wire::{self, Answer, Request};
use crate::pseudonym::Key;
use crate::radiograph::dicom::MAX_FILING;
use crate::radiograph::{self, Limits, phantom};
use crate::source::process::{self, Bounds, Program, Running};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a new decoder may take for its first image, which has a few hundred pixels: on a slow and busy box.
const FIRST: Duration = Duration::from_secs(30);

/// After how many files a decoder is replaced, whatever it says of itself.
const MAX_FILES: u32 = 1000;

/// Resident memory between two files, in bytes, above which it is replaced: ordinary is a tenth of it.
const MAX_IDLE: u64 = 64 << 20;

/// How long a decoder that has closed its socket may take to end.
const ENDING: Duration = Duration::from_millis(500);

/// A running decoder.
pub(super) struct Process {
    child: Running,
    socket: OwnedFd,
    /// Files that it was asked for, the first image not counted.
    pub(super) files: u32,
}

/// What a decoder said.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing yet.
    Nothing,
    /// An answer.
    Answer(Answer),
    /// Nonsense, or nothing ever again: why, in words.
    Broken(String),
}

impl Process {
    /// Starts one and has it decode an image that is known to be good. An error here is about the box, never about a file.
    pub(super) fn start(program: &Program, limits: &Limits, key: &Key) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let written = limits.max_pixels.saturating_mul(2).saturating_add(MAX_FILING as u64);
        let bounds = Bounds { memory: limits.decode_memory(), file: written };
        let child = program.start(Stdio::from(theirs), Stdio::null(), bounds)?;
        let mut process = Self { child, socket: ours, files: 0 };
        let image = memory()?;
        let png = radiograph::encode_png(&phantom::radiograph(1, 16)).unwrap_or_default();
        image.write_all_at(&png, 0)?;
        let heard = match process.ask(&image, limits, key, false) {
            Ok(_pixels) => {
                let until = Instant::now() + FIRST;
                match process.hear(until)? {
                    Heard::Answer(Answer::Read) => process.hear(until)?,
                    heard => heard,
                }
            }
            Err(error) => Heard::Broken(format!("it cannot be asked: {error}")),
        };
        process.files = 0;
        match heard {
            // Under very small limits even this one is refused.
            Heard::Answer(Answer::Radiograph(_) | Answer::Refused(_)) => Ok(process),
            Heard::Answer(Answer::Unread(code)) => Err(io::Error::from_raw_os_error(code)),
            Heard::Nothing => Err(io::Error::new(ErrorKind::TimedOut, "it does not answer")),
            Heard::Answer(Answer::Read) => Err(io::Error::other("it answers nonsense")),
            Heard::Broken(why) => {
                let end = process::described(process.end_of_its_own());
                Err(io::Error::other(format!("{why}; it ended with {end}")))
            }
        }
    }

    /// Hands it a file; the pixels will be in what is returned, and where `filing` asks for it, what a result is filed
    /// under.
    pub(super) fn ask(&mut self, file: &File, limits: &Limits, key: &Key, filing: bool) -> io::Result<File> {
        self.files += 1;
        let pixels = memory()?;
        let request = Request { limits: limits.clone(), key: *key.bytes(), filing };
        wire::send(&self.socket, &request, &[file.as_fd(), pixels.as_fd()])?;
        Ok(pixels)
    }

    /// Waits for its answer; looks at least once. An error is the system's, not the decoder's.
    pub(super) fn hear(&mut self, until: Instant) -> io::Result<Heard> {
        // A time limit of zero would be none.
        let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        set_socket_timeout(&self.socket, Timeout::Recv, Some(wait))?;
        Ok(match wire::receive(&self.socket) {
            // Descriptors that come along are closed here.
            Ok(Some((message, _))) => match Answer::of(&message) {
                Some(answer) => Heard::Answer(answer),
                None => Heard::Broken("it answers nonsense".into()),
            },
            Ok(None) => Heard::Broken("it is gone".into()),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Heard::Nothing
            }
            Err(error) => Heard::Broken(format!("it cannot be heard: {error}")),
        })
    }

    /// Whether it has done enough, or has kept too much of what it did.
    pub(super) fn is_worn(&self) -> bool {
        self.files >= MAX_FILES || resident(self.child.id()).is_some_and(|bytes| bytes > MAX_IDLE)
    }

    /// How it ended, if it did so without our doing; it is given a moment, since its socket closes before that is known.
    pub(super) fn end_of_its_own(&mut self) -> Option<ExitStatus> {
        self.child.wait(Instant::now() + ENDING)
    }
}

/// Memory that has no name anywhere.
fn memory() -> io::Result<File> {
    Ok(File::from(memfd_create("roentgen", MemfdFlags::CLOEXEC)?))
}

/// Bytes of memory that a process has in use; `None` where the system does not tell.
fn resident(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
