//! Which device file a camera's name in the configuration stands for. Opens none.

use std::fs;
use std::path::{Path, PathBuf};

/// What begins a serial number.
const SERIAL: &str = "serial:";

/// What is wrong with a name, if anything is.
pub(super) fn check(name: &str) -> Result<(), String> {
    let is_plain = |name: &str| {
        !name.is_empty() && !name.starts_with('.') && name.chars().all(|c| c.is_ascii_graphic()) && !name.contains('/')
    };
    let is_good = if name.starts_with('/') {
        Path::new(name).file_name().is_some() && !name.contains('\0')
    } else {
        is_plain(name.strip_prefix(SERIAL).unwrap_or(name))
    };
    if is_good {
        return Ok(());
    }
    Err("source.camera.device: write a path like \"/dev/video0\", a name of /dev/v4l/by-id, or \"serial:\" and the serial \
         number (`roentgend camera list` shows them)"
        .into())
}

/// A camera that the system knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its device file.
    pub path: PathBuf,
    /// Its serial number, where it has one.
    pub serial: Option<String>,
    /// Its name in `/dev/v4l/by-id`, where it has one.
    pub by_id: Option<String>,
}

/// Where the system keeps devices and what it knows about them. Tests have their own.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/dev`.
    pub dev: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { dev: "/dev".into(), sys: "/sys".into() }
    }
}

impl Roots {
    /// The device file that this name stands for now; `None` where the camera is not there.
    pub fn resolve(&self, name: &str) -> Option<PathBuf> {
        if name.starts_with('/') {
            return Some(name.into());
        }
        if let Some(serial) = name.strip_prefix(SERIAL) {
            // A camera has several device files: the first takes pictures.
            return self
                .known()
                .into_iter()
                .find(|known| known.serial.as_deref() == Some(serial))
                .map(|known| known.path);
        }
        let link = self.dev.join("v4l/by-id").join(name);
        link.exists().then_some(link)
    }

    /// The video device that this path leads to.
    pub fn known_at(&self, path: &Path) -> Option<Known> {
        let target = fs::canonicalize(path).ok()?;
        self.known().into_iter().find(|known| fs::canonicalize(&known.path).is_ok_and(|known| known == target))
    }

    /// All video devices, in the order of their numbers.
    pub fn known(&self) -> Vec<Known> {
        let mut numbers: Vec<u32> = names(&self.dev)
            .filter_map(|name| name.strip_prefix("video").and_then(|number| number.parse().ok()))
            .collect();
        numbers.sort_unstable();
        let links: Vec<(String, PathBuf)> = names(&self.dev.join("v4l/by-id"))
            .filter_map(|name| Some((name.clone(), fs::canonicalize(self.dev.join("v4l/by-id").join(name)).ok()?)))
            .collect();
        let known = |number: u32| {
            let path = self.dev.join(format!("video{number}"));
            let resolved = fs::canonicalize(&path).ok();
            let link = links.iter().find(|(_, target)| Some(target) == resolved.as_ref());
            Known { serial: self.serial(number), by_id: link.map(|(name, _)| name.clone()), path }
        };
        numbers.into_iter().map(known).collect()
    }

    /// The serial number of the device, or of what it is a part of.
    fn serial(&self, number: u32) -> Option<String> {
        let device = fs::canonicalize(self.sys.join(format!("class/video4linux/video{number}/device"))).ok()?;
        let serial = device.ancestors().take(3).find_map(|folder| fs::read_to_string(folder.join("serial")).ok())?;
        let serial: String = serial.trim().chars().filter(char::is_ascii_graphic).take(100).collect();
        (!serial.is_empty()).then_some(serial)
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn cameras_are_found_by_path_serial_and_name() {
        let root = tempfile::tempdir().unwrap();
        let roots = Roots { dev: root.path().join("dev"), sys: root.path().join("sys") };
        fs::create_dir_all(roots.dev.join("v4l/by-id")).unwrap();
        for number in [0, 2, 10] {
            fs::write(roots.dev.join(format!("video{number}")), "").unwrap();
        }
        // As USB cameras lie: the interface below the device that has the serial number.
        let usb = root.path().join("sys/devices/usb1/1-2");
        fs::create_dir_all(usb.join("1-2:1.0")).unwrap();
        fs::write(usb.join("serial"), "SN-77\n").unwrap();
        for number in [2, 10] {
            let class = roots.sys.join(format!("class/video4linux/video{number}"));
            fs::create_dir_all(&class).unwrap();
            symlink(usb.join("1-2:1.0"), class.join("device")).unwrap();
        }
        symlink("../../video2", roots.dev.join("v4l/by-id/usb-Maker_Camera_SN-77-video-index0")).unwrap();

        let paths: Vec<_> = roots.known().into_iter().map(|known| known.path).collect();
        assert_eq!(paths, ["video0", "video2", "video10"].map(|name| roots.dev.join(name)));
        assert_eq!(roots.known()[1].by_id.as_deref(), Some("usb-Maker_Camera_SN-77-video-index0"));
        assert_eq!(roots.resolve("serial:SN-77"), Some(roots.dev.join("video2")));
        assert_eq!(roots.resolve("serial:other"), None);
        let by_id = roots.resolve("usb-Maker_Camera_SN-77-video-index0").unwrap();
        assert_eq!(fs::canonicalize(&by_id).unwrap(), fs::canonicalize(roots.dev.join("video2")).unwrap());
        assert_eq!(roots.known_at(&by_id).and_then(|known| known.serial).as_deref(), Some("SN-77"));
        assert_eq!(roots.known_at(Path::new("/dev/null")), None);
        assert_eq!(roots.resolve("usb-gone"), None);
        assert_eq!(roots.resolve("/dev/video9"), Some("/dev/video9".into()));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["/dev/video0", "serial:AB-12", "usb-Maker_Camera-video-index0"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in ["", "/", "/dev/video0\0", "../video0", "serial:", "serial:../x", ".hidden", "a b", "v4l/by-id/x"] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
