//! Certificate authorities for tests, made with openssl: keys and certificates that are worth nothing an hour later, and a
//! broker that asks for them. Not a test.

use super::{Process, free_port, mosquitto, start_mosquitto, tiny_bundle, user};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// A folder of keys and certificates, with the tiny bundle, and mosquitto's program.
pub(crate) struct Authorities {
    root: tempfile::TempDir,
    mosquitto: PathBuf,
    bundle: PathBuf,
}

impl Authorities {
    /// Makes the authorities `ca` and `stranger`, and the broker's certificate `broker`, for localhost, by `ca`.
    pub(crate) fn new() -> Option<Self> {
        let mosquitto = mosquitto()?;
        let root = tempfile::tempdir().unwrap();
        let bundle = tiny_bundle(root.path());
        let made = Self { root, mosquitto, bundle };
        for authority in ["ca", "stranger"] {
            made.openssl(&format!(
                "req -x509 {NEW_KEY} -keyout {authority}.key -out {authority}.pem -subj /CN={authority} -days 2"
            ));
        }
        made.sign("broker", "localhost", "ca", 2);
        Some(made)
    }

    /// A certificate `name`.pem with `name`.key, for a host or box, by an authority; negative days: expired.
    pub(crate) fn sign(&self, name: &str, subject: &str, authority: &str, days: i32) {
        self.openssl(&format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={subject}"));
        self.write("names", &format!("subjectAltName=DNS:{subject}\n"), 0o600);
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -extfile names \
             -days {days} -out {name}.pem"
        ));
    }

    /// Runs openssl here.
    pub(crate) fn openssl(&self, arguments: &str) {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(self.root.path()).output();
        let made = made.expect("openssl");
        assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Starts mosquitto with a TLS listener, with these lines more, and a plain one on which everybody may listen; returns
    /// both ports.
    pub(crate) fn broker(&self, certificate: &str, lines: &str) -> (Process, u16, u16) {
        let (port, plain) = (free_port(), free_port());
        let folder = self.root.path().display();
        let text = format!(
            "per_listener_settings true\nuser {}\nlistener {plain} 127.0.0.1\nallow_anonymous true\n\
             listener {port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/{certificate}.pem\n\
             keyfile {folder}/{certificate}.key\n{lines}\n",
            user()
        );
        let config = self.path(&format!("mosquitto-{port}.conf"));
        fs::write(&config, text).unwrap();
        (start_mosquitto(&self.mosquitto, &config, port), port, plain)
    }

    /// Writes the daemon's configuration: the broker's address and the other lines of `[mqtt]`.
    pub(crate) fn configure(&self, url: &str, mqtt: &str) -> PathBuf {
        let path = self.path("roentgend.toml");
        let text = format!(
            "device = \"box-t\"\nbundle = {:?}\nstate_dir = {:?}\nbundles.allow_unsigned = true\n\
             [source.folder]\nincoming = {:?}\nsettle_ms = 200\npoll_ms = 100\n[mqtt]\nurl = {url:?}\n{mqtt}\n",
            self.bundle,
            self.path("state"),
            self.path("incoming")
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// A password file as mosquitto reads it.
    pub(crate) fn mosquitto_passwords(&self, name: &str, user: &str, password: &str) -> PathBuf {
        let path = self.path(name);
        let made = Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&path).args([user, password]).output();
        assert!(made.expect("mosquitto_passwd, of the package mosquitto").status.success());
        path
    }
}

/// A key or certificate as the configuration names it.
pub(crate) fn line(key: &str, path: &Path) -> String {
    format!("{key} = {path:?}\n")
}
