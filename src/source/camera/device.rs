//! A Video4Linux camera: which there are, and one that is open and gives frames. Not the kernel's calls (`ffi`), nor what
//! frames show.

use super::Config;
use super::eye::{Away, Eye};
use super::ffi::{Handle, Size, Stream};
use super::format::{Decoder, Layout, Mode, PixelFormat, best};
use super::grey::Grey;
use super::names::{Known, Roots};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Damaged frames in a row that mean that something is wrong.
const MOST_DAMAGED: u32 = 60;
/// Pictures a second that are asked for: more than that many are never looked at.
const RATE: u32 = 15;
/// The pause after a device has said that there is a frame where there is none.
const NOTHING: Duration = Duration::from_millis(10);
/// Sizes that are tried of a device that offers all in a range.
const USUAL: [(u32, u32); 5] = [(1920, 1200), (1920, 1080), (1280, 720), (1024, 768), (640, 480)];

/// A camera that the system knows, and what it can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its device file and names.
    pub known: Known,
    /// The maker's name for it, or why it cannot be asked.
    pub card: Result<String, String>,
    /// Its modes that can be read.
    pub modes: Vec<Mode>,
    /// Its other pixel formats.
    pub others: Vec<String>,
}

impl Listed {
    /// The mode that would be taken by itself.
    pub fn best(&self) -> Option<Mode> {
        best(&self.modes, None, None)
    }
}

/// All of these that take pictures, or that cannot be asked whether they do.
pub fn list(cameras: Vec<Known>) -> Vec<Listed> {
    let ask = |known: Known| match Handle::open(&known.path).and_then(|handle| Ok((handle.said()?, handle))) {
        // The second device file of a camera tells about its pictures.
        Ok((said, _)) if !said.is_camera => None,
        Ok((said, handle)) => {
            let (modes, others) = modes(&handle);
            Some(Listed { known, card: Ok(format!("{} ({})", said.card, said.driver)), modes, others })
        }
        Err(error) => Some(Listed { known, card: Err(words(&error)), modes: Vec::new(), others: Vec::new() }),
    };
    cameras.into_iter().filter_map(ask).collect()
}

/// A device's modes that can be read, and the names of its other pixel formats.
fn modes(handle: &Handle) -> (Vec<Mode>, Vec<String>) {
    let (mut modes, mut others) = (Vec::new(), Vec::new());
    for code in handle.formats() {
        let Some(format) = PixelFormat::of_code(code) else {
            others.push(String::from_utf8_lossy(&code).trim().chars().filter(char::is_ascii_graphic).collect());
            continue;
        };
        let mut offered = sizes(&handle.sizes(code));
        // Some drivers name no sizes: then the one that is set.
        if offered.is_empty() {
            offered.extend(handle.current().ok());
        }
        for (width, height) in offered {
            modes.push(Mode { format, width, height, rate: handle.rate(code, width, height) });
        }
    }
    (modes, others)
}

/// The sizes that these stand for; of a range the usual ones, and its least and greatest.
fn sizes(offered: &[Size]) -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    for size in offered {
        match *size {
            Size::One(width, height) => all.push((width, height)),
            Size::Range(columns, rows) => {
                let fitted = |[least, most, step]: [u32; 3], wanted: u32| {
                    let most = most.max(least);
                    let wanted = wanted.clamp(least, most);
                    least + (wanted - least) / step.max(1) * step.max(1)
                };
                let ends = [(columns[0], rows[0]), (columns[1], rows[1])];
                let wanted = ends.into_iter().chain(USUAL);
                all.extend(wanted.map(|(width, height)| (fitted(columns, width), fitted(rows, height))));
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// An open camera.
#[derive(Debug)]
pub struct Camera {
    stream: Stream,
    decoder: Decoder,
    name: String,
    mode: String,
    is_deep: bool,
    damaged: u32,
}

impl Camera {
    /// Opens the camera of a configuration, in the mode that suits it best.
    pub fn open(config: &Config, roots: &Roots) -> Result<Self, Away> {
        let gone = || Away("it is not there: plug it in, or see `roentgend camera list`".into());
        let path = roots.resolve(&config.device).ok_or_else(gone)?;
        let failed = |error: io::Error| Away(words(&error));
        let handle = Handle::open(&path).map_err(failed)?;
        let said = handle.said().map_err(failed)?;
        if !said.is_camera {
            return Err(Away("this device file gives no pictures: see `roentgend camera list`".into()));
        }
        let (modes, _) = modes(&handle);
        // Checked when the configuration was read.
        let (format, size) = (config.pixel_format().ok().flatten(), config.pixels().ok().flatten());
        let Some(wanted) = best(&modes, format, size) else {
            return Err(Away(
                "it has no such format or size: see `roentgend camera list`, or write \"auto\" for both".into(),
            ));
        };
        let set = handle.set(wanted.format.code(), wanted.width, wanted.height).map_err(failed)?;
        let Some(format) = PixelFormat::of_code(set.code) else {
            return Err(Away("it takes none of the formats that it offers: unplug it and plug it in again".into()));
        };
        // Where it cannot be set the camera's own rate will do.
        let _ = handle.set_rate(wanted.rate.map_or(RATE, |rate| RATE.min((rate as u32).max(1))));
        let layout = Layout { format, width: set.width, height: set.height, stride: set.stride };
        let stream = Stream::start(handle).map_err(failed)?;
        let mode = format!("{} {}x{}", format.name(), set.width, set.height);
        let serial = roots.known_at(&path).and_then(|known| known.serial);
        let name = serial.map_or_else(|| said.card.clone(), |serial| format!("{} {serial}", said.card));
        Ok(Self { stream, decoder: Decoder::new(layout), name, mode, is_deep: format == PixelFormat::Y16, damaged: 0 })
    }

    /// Opens the camera at this path in the mode that suits best.
    pub fn at(path: &Path, config: &Config) -> Result<Self, Away> {
        let config = Config { device: path.to_string_lossy().into_owned(), ..config.clone() };
        Self::open(&config, &Roots::default())
    }
}

impl Eye for Camera {
    fn frame(&mut self, not_before: Instant, patience: Duration) -> Result<Option<(Grey, Instant)>, Away> {
        let deadline = Instant::now() + patience;
        let failed = |error: io::Error| Away(words(&error));
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.stream.wait(left).map_err(failed)? {
                return Ok(None);
            }
            let filled = match self.stream.take() {
                Ok(Some(filled)) => filled,
                Ok(None) => {
                    std::thread::sleep(NOTHING.min(left));
                    continue;
                }
                // The kernel's word for a signal that was lost for a moment.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                    self.note_damaged()?;
                    std::thread::sleep(NOTHING.min(left));
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            // When it was taken, and not when it was fetched: after a long look the buffers hold what was seen before it.
            let now = Instant::now();
            let taken = now.checked_sub(filled.age).unwrap_or(now);
            let is_late_enough = taken >= not_before;
            let decoder = &mut self.decoder;
            let look = |bytes: &[u8]| (is_late_enough && filled.is_sound).then(|| decoder.decode(bytes));
            match self.stream.look(filled, look).map_err(failed)? {
                Some(Ok(frame)) => {
                    self.damaged = 0;
                    return Ok(Some((frame, taken)));
                }
                Some(Err(error)) => {
                    log::debug!("camera: {error}");
                    self.note_damaged()?;
                }
                None if !filled.is_sound => self.note_damaged()?,
                None => {}
            }
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn mode(&self) -> String {
        self.mode.clone()
    }

    fn is_deep(&self) -> bool {
        self.is_deep
    }
}

impl Camera {
    fn note_damaged(&mut self) -> Result<(), Away> {
        self.damaged += 1;
        if self.damaged < MOST_DAMAGED {
            return Ok(());
        }
        Err(Away("its pictures come damaged: plug it into another port or with another cable, without a hub".into()))
    }
}

/// The system's word, with what to do.
fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENXIO) => "it is not there: plug it in, or see `roentgend camera list`".into(),
        Some(libc::ENODEV) => "it was unplugged: plug it in again".into(),
        Some(libc::EACCES | libc::EPERM) => "this user may not use it: the user must be in the group video, and the \
                                             service needs the drop-in camera.conf (see its examples)"
            .into(),
        Some(libc::EBUSY) => "another program uses it: end that one (only one can take pictures at a time)".into(),
        Some(libc::ENOTTY | libc::EINVAL) => {
            format!("it is no camera, or one of a kind that is not understood: {error}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_range_of_sizes_those_are_tried_that_it_has() {
        let range = Size::Range([32, 1600, 16], [32, 1200, 8]);
        let all = sizes(&[Size::One(640, 480), range]);
        assert!(all.contains(&(640, 480)) && all.contains(&(1600, 1200)) && all.contains(&(1280, 720)), "{all:?}");
        for (width, height) in all {
            assert!(
                (32..=1600).contains(&width) && width % 16 == 0 && (32..=1200).contains(&height) && height % 8 == 0
            );
        }
        assert_eq!(sizes(&[Size::Range([8, 4, 0], [8, 4, 0])]), [(8, 8)], "one that contradicts itself breaks nothing");
    }

    #[test]
    fn what_is_no_camera_is_away_and_says_what_to_do() {
        let at = |path: &str| Camera::at(Path::new(path), &Config::default()).unwrap_err().to_string();
        assert!(at("/dev/no-such-camera").contains("plug it in"));
        assert!(at("/dev/null").contains("no camera"), "{}", at("/dev/null"));
    }
}
