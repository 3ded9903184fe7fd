//! A camera over a light box, or before a screen: it waits until a radiograph lies there and nothing moves, takes the
//! sharpest of a few frames, makes a straight, evenly lit picture of it and hands that over as a file, once a film. Not the
//! judgement: the file goes the way of every other.
//!
//! ```text
//! device ─bytes─▶ format ─Grey─▶ keeper: watch (still?) ─▶ film: find ▶ sides ▶ rectify ▶ flatten ─PNG─▶ spool
//! ```
//!
//! Only [`device`] needs a camera and the feature `camera`; everything else is reckoning with numbers.

mod cover;
#[cfg(feature = "camera")]
pub mod device;
pub mod door;
pub mod eye;
#[cfg(feature = "camera")]
mod ffi;
pub mod film;
pub mod find;
pub mod flatten;
pub mod format;
pub mod grey;
pub mod keeper;
pub mod kept;
mod lines;
pub mod names;
pub mod rectify;
pub mod remote;
mod sides;
pub mod watch;

pub use door::Door;
pub use eye::{Away, Eye};
pub use film::{Film, NoFilm, develop};
pub use find::{Found, Surround, find};
pub use grey::{Grey, Point};
pub use remote::{Condition, Remote, Ticket, Wish};

use super::folder::Bounds;
use super::spool::Keep;
use format::PixelFormat;
use serde::{Deserialize, Serialize};

/// The pause between two looks whether the camera is back.
const LEAST_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The `[source.camera]` section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which camera: a path, `serial:` with its serial number, or a name in `/dev/v4l/by-id`.
    pub device: String,
    /// Its pixel format, or `auto`.
    pub format: String,
    /// Columns and rows as `1280x720`, or `auto`.
    pub size: String,
    /// Milliseconds for which nothing may move before a picture is taken; 300 to 60000.
    pub still_ms: u64,
    /// Frames of which the sharpest is taken; 1 to 50.
    pub burst: u32,
    /// Seconds after which the film that lies there is taken again; 10 to 86400, or 0 for never.
    pub interval_s: u64,
    /// Days after which a rejected picture is deleted from `state_dir/spool/camera/rejected`; 0: never; at most 36500.
    pub keep_rejected_days: u32,
    /// Bytes beyond which the oldest ones are; 0: never.
    pub keep_rejected_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        let auto = || "auto".to_owned();
        let Bounds { days, bytes } = Keep::BOUNDS;
        Self {
            device: "/dev/video0".into(),
            format: auto(),
            size: auto(),
            still_ms: 1000,
            burst: 5,
            interval_s: 0,
            keep_rejected_days: days,
            keep_rejected_bytes: bytes,
        }
    }
}

impl Config {
    /// What is wrong with the values, in words, if anything is.
    pub fn validate(&self) -> Result<(), String> {
        names::check(&self.device)?;
        self.pixel_format()?;
        self.pixels()?;
        if !(300..=60_000).contains(&self.still_ms) {
            return Err("source.camera.still_ms: write a number of milliseconds from 300 to 60000".into());
        }
        if !(1..=50).contains(&self.burst) {
            return Err("source.camera.burst: write a number of frames from 1 to 50".into());
        }
        if self.interval_s != 0 && !(10..=86_400).contains(&self.interval_s) {
            return Err("source.camera.interval_s: write 0 for never, or a number of seconds from 10 to 86400".into());
        }
        if self.keep_rejected_days > 36_500 {
            return Err("source.camera.keep_rejected_days: write a number of days up to 36500, or 0 for ever".into());
        }
        Ok(())
    }

    /// What of the spool is kept.
    pub fn keep(&self) -> Keep {
        let bounds = Bounds { days: self.keep_rejected_days, bytes: self.keep_rejected_bytes };
        Keep { bounds, ..Keep::default() }
    }

    /// The pixel format that is asked for.
    pub fn pixel_format(&self) -> Result<Option<PixelFormat>, String> {
        if self.format == "auto" {
            return Ok(None);
        }
        PixelFormat::of_name(&self.format).map(Some).ok_or_else(|| {
            let names = PixelFormat::ALL.map(PixelFormat::name).join(", ");
            format!("source.camera.format: write \"auto\" or one of {names}")
        })
    }

    /// The columns and rows that are asked for.
    pub fn pixels(&self) -> Result<Option<(u32, u32)>, String> {
        if self.size == "auto" {
            return Ok(None);
        }
        let sides =
            self.size.split_once('x').and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
        match sides {
            Some((width @ 64..=16_384, height @ 64..=16_384))
                if u64::from(width) * u64::from(height) <= format::MAX_PIXELS =>
            {
                Ok(Some((width, height)))
            }
            _ => Err("source.camera.size: write \"auto\", or columns and rows like \"1280x720\"".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_no_camera_has_are_refused_by_their_key() {
        assert_eq!(Config::default().validate(), Ok(()));
        type Spoil = fn(&mut Config);
        let spoiled: [(Spoil, &str); 7] = [
            (|config| config.device = String::new(), "source.camera.device"),
            (|config| config.format = "H264".into(), "source.camera.format"),
            (|config| config.size = "16000x16000".into(), "source.camera.size"),
            (|config| config.still_ms = 1, "source.camera.still_ms"),
            (|config| config.burst = 0, "source.camera.burst"),
            (|config| config.interval_s = 3, "source.camera.interval_s"),
            (|config| config.keep_rejected_days = 40_000, "source.camera.keep_rejected_days"),
        ];
        for (spoil, key) in spoiled {
            let mut config = Config::default();
            spoil(&mut config);
            assert!(config.validate().is_err_and(|error| error.starts_with(key)), "{key}");
        }
        let config = Config { size: "1280x720".into(), format: "mjpg".into(), ..Config::default() };
        assert_eq!((config.pixels(), config.pixel_format()), (Ok(Some((1280, 720))), Ok(Some(PixelFormat::Mjpg))));
    }
}
