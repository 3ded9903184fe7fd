//! `roentgend camera`: which cameras there are, what one sees and what becomes of it, and the picture of the empty light box.
//! Judges nothing, and works only while the daemon does not have the camera.

use anyhow::{Context, bail};
use image::{Rgb, RgbImage};
use roentgen::config::Config;
use roentgen::source::camera::device::{self, Camera};
use roentgen::source::camera::flatten::Light;
use roentgen::source::camera::format::Mode;
use roentgen::source::camera::kept::{Kept, TakenBy};
use roentgen::source::camera::names::{Known, Roots};
use roentgen::source::camera::{self, Eye, Grey, Point, develop, film, find};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a camera gets to find exposure and focus.
const SETTLING: Duration = Duration::from_secs(2);
/// How long a frame is waited for then.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to do with cameras.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Shows which cameras there are, by which names, and in which modes they take pictures.
    List(List),
    /// Takes a frame and writes what is made of it: frame.png with the film's edges drawn in, film.png as it would be judged.
    Preview(Preview),
    /// Keeps the picture of the empty light box, which evens out the light behind films. Take everything off it first.
    Reference(Reference),
}

/// Arguments of `camera list`.
#[derive(clap::Args)]
pub(crate) struct List {
    /// Only these device files; without any, all that the system knows.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// Arguments of `camera preview`.
#[derive(clap::Args)]
pub(crate) struct Preview {
    /// The folder to write into; it is made where there is none.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The daemon's configuration: its [source.camera], and the picture of the empty light box.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Another camera: a path, serial:NUMBER, or a name in /dev/v4l/by-id.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

/// Arguments of `camera reference`.
#[derive(clap::Args)]
pub(crate) struct Reference {
    /// The daemon's configuration: its [source.camera], and the state_dir that the picture is kept in.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Does it.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(arguments) => list(arguments),
        Command::Preview(arguments) => preview(arguments),
        Command::Reference(arguments) => reference(arguments),
    }
}

fn list(arguments: &List) -> anyhow::Result<ExitCode> {
    let mut known = Roots::default().known();
    if !arguments.paths.is_empty() {
        let named = |path: &PathBuf| {
            let found = known.iter().find(|known| known.path == *path).cloned();
            found.unwrap_or_else(|| Known { path: path.clone(), serial: None, by_id: None })
        };
        known = arguments.paths.iter().map(named).collect();
    }
    let cameras = device::list(known);
    if cameras.is_empty() {
        say!("There is no camera. Plug one in; `lsusb` shows whether the system sees it at all.");
        return Ok(ExitCode::FAILURE);
    }
    for camera in &cameras {
        let card = camera.card.as_deref().unwrap_or_else(|error| error);
        say!("{}  {card}", camera.known.path.display());
        if let Some(serial) = &camera.known.serial {
            say!("    serial:{serial}");
        }
        if let Some(by_id) = &camera.known.by_id {
            say!("    {by_id}");
        }
        let best = camera.best();
        for mode in &camera.modes {
            let chosen = if best.as_ref() == Some(mode) { "   <- taken by itself" } else { "" };
            say!("    {}{chosen}", spoken(mode));
        }
        if !camera.others.is_empty() {
            say!("    not read: {}", camera.others.join(", "));
        }
    }
    let is_usable = cameras.iter().all(|camera| camera.card.is_ok());
    Ok(if is_usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spoken(mode: &Mode) -> String {
    let rate = mode.rate.map(|rate| format!("  {rate:.0}/s")).unwrap_or_default();
    format!("{:<4}  {}x{}{rate}", mode.format.name(), mode.width, mode.height)
}

/// A frame of a camera that has settled.
struct Settled {
    frame: Grey,
    /// Whether it has more than 8 bits.
    is_deep: bool,
    /// What took it.
    by: TakenBy,
}

fn settled(settings: &camera::Config) -> anyhow::Result<Settled> {
    let named = |error: camera::Away| anyhow::anyhow!("camera {}: {error}", settings.device);
    let mut camera = Camera::open(settings, &Roots::default()).map_err(named)?;
    say!("{}: {}", settings.device, camera.mode());
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let frame = camera.frame(start + SETTLING, PATIENCE).map_err(named)?;
        if let Some((frame, _)) = frame {
            return Ok(Settled { frame, is_deep: camera.is_deep(), by: TakenBy::eye(&camera) });
        }
    }
    bail!("camera {}: it sends no pictures", settings.device)
}

fn preview(arguments: &Preview) -> anyhow::Result<ExitCode> {
    let config = arguments.config.as_deref().map(Config::load).transpose()?;
    let mut settings = config.as_ref().and_then(|config| config.source.camera.clone()).unwrap_or_default();
    if let Some(device) = &arguments.device {
        settings.device.clone_from(device);
    }
    settings.validate().map_err(anyhow::Error::msg)?;
    let Settled { frame, is_deep, by } = settled(&settings)?;
    let reference = config.as_ref().map_or(Ok(None), |config| Kept::new(&config.state_dir).reference(&by));
    let reference = reference.unwrap_or_else(|unfit| {
        say!("    {unfit}");
        None
    });
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let drawn = drawn(&frame, find(&frame).map(|found| found.corners).as_ref());
    let path = out.join("frame.png");
    drawn.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
    say!("{}  {} × {} pixels", path.display(), frame.width(), frame.height());
    match develop(&frame, reference.as_ref()) {
        Ok(film) => {
            write(&out.join("film.png"), &film.picture, is_deep)?;
            let light = match reference {
                Some(_) => "light evened out by the picture of the empty light box",
                None => "light told from what is seen around the film; `roentgend camera reference` does better",
            };
            say!("    {light}; edges over {:.1} pixels", film.found.edge);
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            say!("    {reason}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn write(path: &Path, picture: &Grey, is_deep: bool) -> anyhow::Result<()> {
    let png = film::encoded(picture, is_deep).context("the film's picture could not be written as PNG")?;
    std::fs::write(path, png).with_context(|| format!("cannot write {}", path.display()))?;
    say!("{}  {} × {} pixels", path.display(), picture.width(), picture.height());
    Ok(())
}

/// The frame with the film's edges in green, the upper one in red.
fn drawn(frame: &Grey, corners: Option<&[Point; 4]>) -> RgbImage {
    let mut image = RgbImage::from_fn(frame.width() as u32, frame.height() as u32, |x, y| {
        let level = (frame.levels()[y as usize * frame.width() + x as usize] >> 8) as u8;
        Rgb([level; 3])
    });
    let Some(corners) = corners else { return image };
    for side in 0..4 {
        let (from, to) = (corners[side], corners[(side + 1) % 4]);
        let colour = if side == 0 { Rgb([255, 60, 40]) } else { Rgb([40, 230, 90]) };
        let steps = (from.distance(to) * 2.0).ceil().max(1.0) as usize;
        for step in 0..=steps {
            let at = from.towards(to, step as f64 / steps as f64);
            for (dx, dy) in (-1..=1).flat_map(|dx| (-1..=1).map(move |dy| (dx, dy))) {
                let (x, y) = (at.x as i64 + dx, at.y as i64 + dy);
                let inside = (0..i64::from(image.width())).contains(&x) && (0..i64::from(image.height())).contains(&y);
                if inside {
                    image.put_pixel(x as u32, y as u32, colour);
                }
            }
        }
    }
    image
}

fn reference(arguments: &Reference) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.config)?;
    let Some(settings) = &config.source.camera else {
        bail!("{} has no section [source.camera]", arguments.config.display());
    };
    crate::bundle::warn_of_other_user(&config.state_dir);
    let Settled { frame, by, .. } = settled(settings)?;
    let light = Light::of_empty(&frame).map_err(anyhow::Error::msg)?;
    let kept = Kept::new(&config.state_dir);
    let path = kept.reference_path();
    kept.keep_reference(&light, &by).with_context(|| format!("cannot keep {}", path.display()))?;
    say!("{} is kept", path.display());
    Ok(ExitCode::SUCCESS)
}
