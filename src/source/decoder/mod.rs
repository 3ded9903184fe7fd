//! Decoding behind a wall: files are decoded by a child process of this program, so that one which crashes a decoder,
//! hangs it or eats memory costs that process and that file, and nothing else. Not the decoders: those are in
//! [`crate::radiograph`], and tools for people run them in their own process.
//!
//! The child is handed an open file to read, memory to write the pixels to, and the key of the pseudonyms, over a socket;
//! it has no environment, no open log, and no name of any file. The system bounds its memory, and the daemon its time.
//! One file at a time: the next is taken when this one is settled.
//!
//! A file is given up only on evidence. A new child first decodes an image that is known to be good: if it cannot, the box
//! is in trouble and not the file. A child that dies over a file has died of that file only if that was its first one;
//! else another child tries it again. A death by a signal that others send (the kernel, short of memory; a technician)
//! counts only if it comes again and again.

mod child;
mod wire;
mod worker;

pub(in crate::source) use wire::{is_sound, is_text};
pub use worker::serve;

use super::process::{self, Program};
use crate::pseudonym::Key;
use crate::radiograph::dicom::Filing;
use crate::radiograph::file::{NotRead, read_open};
use crate::radiograph::{Limits, Radiograph, Refusal, RefusalCode, open_bytes};
use child::{Heard, Process};
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};
use wire::Answer;

/// How often a file is tried again whose decoders were killed by somebody else.
const MAX_KILLS: u32 = 3;

/// What the daemon believes of a packet that comes from a decoder, whose pixels are in `memory`; `None`: nothing, or it is
/// not the last word about a file. For whoever tries out what a decoder in a stranger's hands could say.
pub fn believed(packet: &[u8], memory: &File, limits: &Limits) -> Option<Result<Radiograph, Refusal>> {
    match Answer::of(packet)? {
        Answer::Radiograph(header) => wire::get(header, memory, limits).map(|(radiograph, _)| Ok(radiograph)),
        Answer::Refused(refused) => wire::refusal(refused).map(Err),
        Answer::Read | Answer::Unread(_) => None,
    }
}

/// Opens radiographs, one at a time.
pub struct Decoder {
    limits: Limits,
    key: Key,
    /// `None`: in this process.
    child: Option<Child>,
    job: Option<Job>,
    restarts: u64,
    /// Whether it is picked out of DICOM files what a result is filed under.
    wants_filing: bool,
    /// That of the last radiograph.
    filing: Option<Filing>,
}

/// A decoder process that is started when there is something to decode.
struct Child {
    program: Program,
    process: Option<Process>,
}

/// The file at hand.
struct Job {
    file: File,
    /// What the process was asked; `None` before.
    asked: Option<Asked>,
    kills: u32,
}

/// A file that the process has been handed.
struct Asked {
    /// When it was, or when the process had read it.
    since: Instant,
    /// Where the pixels will be.
    pixels: File,
    /// Whether the process has its bytes: until then it is the disk's or the network's time, not the file's.
    is_read: bool,
}

/// Why there is no radiograph.
#[derive(Debug)]
pub enum Failure {
    /// The file is none that can be judged.
    Refused(Refusal),
    /// The system did not give the file's bytes.
    Unread(io::Error),
    /// No decoder can be started now; nothing is known about the file.
    NoDecoder(io::Error),
}

impl Decoder {
    /// Decodes in this process: for tools and tests.
    pub fn in_process(limits: Limits, key: Key) -> Self {
        Self { limits, key, child: None, job: None, restarts: 0, wants_filing: false, filing: None }
    }

    /// Decodes in a process that runs `program`, which calls [`serve`].
    pub fn in_child(program: Program, limits: Limits, key: Key) -> Self {
        Self { child: Some(Child { program, process: None }), ..Self::in_process(limits, key) }
    }

    /// Has it pick out of DICOM files what a result is filed under: patient and study. Else nobody ever reads these.
    pub fn with_filing(mut self, wanted: bool) -> Self {
        self.wants_filing = wanted;
        self
    }

    /// What a result on the radiograph that was returned last is filed under, once.
    pub fn take_filing(&mut self) -> Option<Filing> {
        self.filing.take()
    }

    /// Starts the process, if there is to be one, so that what is wrong with it is seen at the start.
    pub fn check(&mut self) -> io::Result<()> {
        let Self { limits, key, child, .. } = self;
        child.as_mut().map_or(Ok(()), |child| child.process(limits, key).map(drop))
    }

    /// The bounds that it holds files to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The key of the pseudonyms.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How often a decoder process had to be replaced because of what it did.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Takes a file to decode. One that was taken before and is not done is given up.
    pub fn start(&mut self, file: File) {
        if self.job.take().is_some_and(|job| job.asked.is_some()) {
            self.forget();
        }
        self.job = Some(Job { file, asked: None, kills: 0 });
    }

    /// What became of the file; `None` when that is not known at `until`, or when there is no file.
    pub fn poll(&mut self, until: Instant) -> Option<Result<Radiograph, Failure>> {
        let mut job = self.job.take()?;
        self.filing = None;
        let done = match self.child {
            None => Some(self.decode_here(&job.file)),
            Some(_) => self.decode_there(&mut job, until),
        };
        if done.is_none() {
            self.job = Some(job);
        } else if let Some(child) = &mut self.child
            && child.process.as_ref().is_some_and(Process::is_worn)
        {
            child.process = None;
        }
        done
    }

    fn decode_here(&mut self, file: &File) -> Result<Radiograph, Failure> {
        let bytes = read_open(file, &self.limits).map_err(|error| match error {
            NotRead::Refused(refusal) => Failure::Refused(refusal),
            NotRead::Failed(error) => Failure::Unread(error),
        })?;
        let radiograph = open_bytes(&bytes, &self.limits, &self.key).map_err(Failure::Refused)?;
        self.filing = if self.wants_filing { Filing::of(&bytes, &self.limits) } else { None };
        Ok(radiograph)
    }

    fn decode_there(&mut self, job: &mut Job, until: Instant) -> Option<Result<Radiograph, Failure>> {
        loop {
            let Self { limits, key, child, wants_filing, .. } = self;
            let process = match child.as_mut()?.process(limits, key) {
                Ok(process) => process,
                Err(error) => return Some(Err(Failure::NoDecoder(error))),
            };
            let mut asked = match job.asked.take() {
                Some(asked) => asked,
                None => match process.ask(&job.file, limits, key, *wants_filing) {
                    Ok(pixels) => Asked { since: Instant::now(), pixels, is_read: false },
                    Err(error) => {
                        let was_idle = process.files > 1;
                        self.forget();
                        if was_idle {
                            // It may have ended meanwhile: another one is asked.
                            continue;
                        }
                        return Some(Err(Failure::NoDecoder(error)));
                    }
                },
            };
            let give_up = asked.since + Duration::from_secs(limits.decode_seconds);
            let heard = match process.hear(until.min(give_up)) {
                Ok(heard) => heard,
                Err(error) => {
                    self.forget();
                    return Some(Err(Failure::NoDecoder(error)));
                }
            };
            let broken = match heard {
                Heard::Answer(Answer::Read) if !asked.is_read => {
                    (asked.since, asked.is_read) = (Instant::now(), true);
                    job.asked = Some(asked);
                    continue;
                }
                Heard::Answer(Answer::Read) => "it answers nonsense".to_owned(),
                Heard::Answer(Answer::Unread(code)) => {
                    return Some(Err(Failure::Unread(io::Error::from_raw_os_error(code))));
                }
                Heard::Answer(Answer::Radiograph(header)) => match wire::get(header, &asked.pixels, limits) {
                    Some((radiograph, filing)) => {
                        self.filing = filing;
                        return Some(Ok(radiograph));
                    }
                    None => "it answers with an image that cannot be".to_owned(),
                },
                Heard::Answer(Answer::Refused(refused)) => match wire::refusal(refused) {
                    Some(refusal) => return Some(Err(Failure::Refused(refusal))),
                    None => "it answers with a refusal that cannot be".to_owned(),
                },
                Heard::Broken(why) => why,
                Heard::Nothing if Instant::now() < give_up => {
                    job.asked = Some(asked);
                    return None;
                }
                Heard::Nothing if !asked.is_read => {
                    self.forget();
                    return Some(Err(Failure::Unread(io::Error::from_raw_os_error(libc::ETIMEDOUT))));
                }
                Heard::Nothing => {
                    let seconds = limits.decode_seconds;
                    log::warn!("the decoder took more than {seconds} s for one file and was ended");
                    self.forget();
                    return Some(Err(Failure::Refused(too_slow(seconds))));
                }
            };
            let was_its_first = process.files == 1;
            let ended = process.end_of_its_own();
            log::warn!("the decoder failed at a file: {broken}; it ended with {}", process::described(ended));
            self.forget();
            if process::is_by_another(ended) && job.kills < MAX_KILLS {
                job.kills += 1;
            } else if was_its_first {
                return Some(Err(Failure::Refused(crashed())));
            }
        }
    }

    /// Ends the process; the next file gets another one.
    fn forget(&mut self) {
        if let Some(child) = &mut self.child
            && child.process.take().is_some()
        {
            self.restarts += 1;
        }
    }
}

impl Child {
    /// The running process, or a new one.
    fn process(&mut self, limits: &Limits, key: &Key) -> io::Result<&mut Process> {
        if self.process.is_none() {
            self.process = Some(Process::start(&self.program, limits, key)?);
        }
        self.process.as_mut().ok_or_else(|| io::Error::other("it was not started"))
    }
}

fn too_slow(seconds: u64) -> Refusal {
    Refusal::new(
        RefusalCode::DecoderTimeout,
        format!(
            "Reading this file took longer than the box allows ({seconds} seconds, decode_seconds). Export the radiograph \
             again, uncompressed if that can be chosen."
        ),
    )
}

fn crashed() -> Refusal {
    Refusal::new(
        RefusalCode::DecoderFailed,
        "The program that reads images broke down over this file, or needed more memory than the box allows. The file is \
         probably damaged: export the radiograph again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What becomes of a file whose decoder first proves that it works and then does `then`.
    fn outcome(then: &str) -> Result<Radiograph, Failure> {
        // A request is one packet, whose rest is gone with the first read.
        let take = "dd bs=64k count=1 of=/dev/null 2>/dev/null";
        let works = r#"printf %s '{"refused": {"code": "damaged", "message": "-"}}' >&0"#;
        let script = format!("{take}; {works}; {take}; {then}");
        let program = Program::new(Path::new("/bin/sh"), ["-c", &script]);
        let limits = Limits { decode_seconds: 1, ..Limits::default() };
        let mut decoder = Decoder::in_child(program, limits, Key::from_bytes([7; 32]));
        decoder.start(tempfile::tempfile().unwrap());
        decoder.poll(Instant::now() + Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_file_is_held_to_the_time_of_its_decoding_and_not_to_that_of_a_share_that_hangs() {
        let unread = outcome("exec sleep 100").unwrap_err();
        assert!(
            matches!(&unread, Failure::Unread(error) if error.raw_os_error() == Some(libc::ETIMEDOUT)),
            "{unread:?}"
        );
        let slow = outcome(r#"printf %s '"read"' >&0; exec sleep 100"#).unwrap_err();
        assert!(matches!(&slow, Failure::Refused(refusal) if refusal.code == RefusalCode::DecoderTimeout), "{slow:?}");
    }
}
