//! Carrying out what came over MQTT: each command is checked, answered and handed to who does it. Not the parsing
//! ([`roentgen::sink::mqtt::command`]).

use super::desk::About;
use super::updates::{Order, What};
use super::{Picture, Rounds};
use roentgen::bundle::sha256_hex;
use roentgen::config::Config;
use roentgen::sink::mqtt::command::{self, Command, Name, Request, SignedManifest, Stage, Wanted};
use roentgen::sink::mqtt::{Received, Side};
use roentgen::source::camera::{Remote, Wish};
use std::path::Path;
use std::time::Instant;

impl Rounds {
    /// Takes the commands that came.
    pub(super) fn commands(&mut self, config: &Config, side: &Side, camera: Option<&Remote>, now: Instant) {
        let (received, dropped) = side.commands();
        for command in received {
            if self.desk.admits(now) {
                self.command(config, camera, &command);
            } else {
                self.rebuke(config, &command.name, now);
            }
        }
        if dropped > 0 {
            self.rebuke(config, "", now);
        }
        self.answer_reloads(config);
        self.answer_pictures(config);
        if let Some((id, stage, message)) = self.again.outcome() {
            self.reply(config, &id, Name::Reclassify.as_str(), stage, &message);
        }
    }

    fn command(&mut self, config: &Config, camera: Option<&Remote>, received: &Received) {
        let name = shown(&received.name);
        if received.retained {
            log::warn!("command {name}: the broker kept it, so it would come again at every connection; ignored");
            let message = "a retained command is ignored: publish commands without the retain flag, and clear this one \
                           with an empty retained message";
            return self.reply(config, "", &name, Stage::Rejected, message);
        }
        let Request { id, command } = match command::parse(&received.name, &received.payload) {
            Ok(request) => request,
            Err(refused) => return self.reply(config, &refused.id, &name, Stage::Rejected, &refused.reason),
        };
        if !config.commands.allow.contains(&command.name()) {
            let message = format!("[commands] allow does not list {:?} on this box", command.name().as_str());
            return self.reply(config, &id, &name, Stage::Rejected, &message);
        }
        log::info!("command {name}{}", if id.is_empty() { String::new() } else { format!(" ({id})") });
        match command {
            Command::Telemetry => {
                self.desk.ask_again();
                self.reply(config, &id, &name, Stage::Done, "telemetry follows");
            }
            Command::Reload => {
                self.tickets.push((self.reload.ask(), id.clone()));
                self.reply(config, &id, &name, Stage::Accepted, "the configuration is read again");
            }
            Command::Capture => self.picture(config, camera, id, name, Wish::Picture),
            Command::Reference => self.picture(config, camera, id, name, Wish::Reference),
            Command::Activate(version) => {
                self.order(config, Order { id, command: name, what: What::Activate(version) });
            }
            Command::Reclassify(report_id) => self.judge_again(config, id, name, report_id),
            Command::Rollback => self.order(config, Order { id, command: name, what: What::Rollback }),
            Command::Install(wanted) => match self.install(config, wanted) {
                Ok(what) => self.order(config, Order { id, command: name, what }),
                Err(reason) => self.reply(config, &id, &name, Stage::Rejected, &reason),
            },
        }
    }

    /// Which file is to be installed, and which bundle it must be; or why not.
    fn install(&self, config: &Config, wanted: Wanted) -> Result<What, String> {
        let sha256 = match wanted.manifest {
            Some(SignedManifest { manifest, signature }) => {
                let trust = config.bundles.trust().map_err(|error| error.to_string())?;
                let vouched = trust.vouches(manifest.as_bytes(), &signature, Path::new("signature"));
                vouched.map_err(|error| error.to_string())?;
                Some(sha256_hex(manifest.as_bytes()))
            }
            None => None,
        };
        let names = self.updates.names().map_err(|error| format!("bundles/incoming: {error}"))?;
        let name = match (wanted.file, names.as_slice()) {
            (Some(file), names) if names.contains(&file) => file,
            (Some(file), _) => return Err(format!("{file} does not lie in bundles/incoming: put it there first")),
            (None, [only]) => only.clone(),
            (None, []) => return Err("nothing lies in bundles/incoming: put the bundle there first".into()),
            (None, _) => return Err("several bundles lie in bundles/incoming: say which with \"file\"".into()),
        };
        Ok(What::Install { name, sha256 })
    }

    fn order(&mut self, config: &Config, order: Order) {
        let (id, command) = (order.id.clone(), order.command.clone());
        match self.updates.order(order) {
            Ok(()) => {
                self.reply(config, &id, &command, Stage::Accepted, "it is next, or after what is being installed")
            }
            Err(reason) => self.reply(config, &id, &command, Stage::Rejected, reason),
        }
    }

    /// Answers the reloads that have been done.
    fn answer_reloads(&mut self, config: &Config) {
        for (ticket, id) in std::mem::take(&mut self.tickets) {
            match self.reload.outcome(ticket) {
                None => self.tickets.push((ticket, id)),
                Some(Ok(told)) => self.reply(config, &id, "reload", Stage::Done, &told),
                Some(Err(reason)) => self.reply(config, &id, "reload", Stage::Rejected, &reason),
            }
        }
    }

    /// Has a radiograph judged again.
    fn judge_again(&mut self, config: &Config, id: String, command: String, report_id: String) {
        let model = self.status.setup().map(|setup| setup.model.sha256).unwrap_or_default();
        let message = match self.again.look_for(config, &id, report_id, model) {
            Ok(()) => "it is looked for among what the box has kept",
            Err(reason) => return self.reply(config, &id, &command, Stage::Failed, &reason),
        };
        self.reply(config, &id, &command, Stage::Accepted, message);
    }

    /// Asks the camera for a picture.
    fn picture(&mut self, config: &Config, camera: Option<&Remote>, id: String, command: String, wish: Wish) {
        let Some(camera) = camera else {
            let message = "this box has no camera: write [source.camera] into its configuration";
            return self.reply(config, &id, &command, Stage::Rejected, message);
        };
        let ticket = camera.ask(wish);
        self.reply(config, &id, &command, Stage::Accepted, "it is taken as soon as nothing moves before the camera");
        self.pictures.push(Picture { camera: camera.clone(), ticket, id, command });
    }

    /// Answers the pictures that were taken, or could not be.
    fn answer_pictures(&mut self, config: &Config) {
        for picture in std::mem::take(&mut self.pictures) {
            let Picture { camera, ticket, id, command } = &picture;
            match camera.outcome(*ticket) {
                None if camera.is_closed() => {
                    let message = "the camera was closed by a new configuration; send the command again";
                    self.reply(config, id, command, Stage::Failed, message);
                }
                None => self.pictures.push(picture),
                Some(Ok(told)) => self.reply(config, id, command, Stage::Done, &told),
                Some(Err(reason)) => self.reply(config, id, command, Stage::Failed, &reason),
            }
        }
    }

    fn rebuke(&mut self, config: &Config, name: &str, now: Instant) {
        if self.desk.may_rebuke(now) {
            log::warn!("too many commands over MQTT; some are not carried out");
            let message = "too many commands: at most ten a minute; this one was not carried out";
            self.reply(config, "", &shown(name), Stage::Rejected, message);
        }
    }

    fn reply(&mut self, config: &Config, id: &str, command: &str, stage: Stage, message: &str) {
        self.desk.answer(&config.device, About { id, command, file: None }, stage, message);
    }
}

/// A command's name as it may be repeated: strangers choose it.
fn shown(name: &str) -> String {
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_/".contains(*letter);
    name.chars().filter(plain).take(64).collect()
}
