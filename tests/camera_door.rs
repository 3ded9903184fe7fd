//! The promise: what the camera's thread does with a device that fails, a disk that is full and a clock that runs: it goes on
//! by itself, and hands each film over once. With drawn frames instead of a device; needs no camera.

#[path = "support/light_box.rs"]
mod light_box;

use light_box::{Picture, Scene};
use roentgen::radiograph::phantom;
use roentgen::source::camera::{Away, Config, Door, Eye, Grey, Remote, Wish};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the camera sees, and what is wrong with it.
#[derive(Clone, Default)]
struct World(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    frame: Option<Grey>,
    /// The device answers so instead.
    trouble: Option<Trouble>,
    /// Files that were handed over.
    stored: Vec<String>,
    /// The disk refuses so many times.
    full: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    Unplugged,
    Panics,
    Hangs,
}

struct Drawn(World);

impl Eye for Drawn {
    fn frame(&mut self, _: Instant, _: Duration) -> Result<Option<(Grey, Instant)>, Away> {
        thread::sleep(Duration::from_millis(20));
        let (trouble, frame) = {
            let state = self.0.0.lock().unwrap();
            (state.trouble, state.frame.clone())
        };
        match trouble {
            Some(Trouble::Unplugged) => Err(Away("it was unplugged".into())),
            Some(Trouble::Panics) => panic!("a mistake of the test's own making"),
            // As a call that the kernel does not come back from.
            Some(Trouble::Hangs) => loop {
                thread::park();
            },
            None => Ok(frame.map(|frame| (frame, Instant::now()))),
        }
    }

    fn name(&self) -> String {
        "Drawn".into()
    }

    fn mode(&self) -> String {
        "drawn".into()
    }

    fn is_deep(&self) -> bool {
        false
    }
}

impl World {
    fn show(&self, seed: Option<u64>) {
        let empty = Scene { noise: 0.002, ..Scene::empty(640, 480) };
        let film = Picture::of_bytes(160, 160, &phantom::phantom(seed.unwrap_or(0), 160));
        let scene = if seed.is_some() { empty.with_film((0.5, 0.5), 0.75, 0.85, 0.03, (0.0, 0.1)) } else { empty };
        self.0.lock().unwrap().frame = Some(scene.draw(&film));
    }

    fn is_in(&self, trouble: Option<Trouble>) {
        self.0.lock().unwrap().trouble = trouble;
    }

    fn stored(&self) -> usize {
        self.0.lock().unwrap().stored.len()
    }

    /// Starts the thread on it.
    fn door(&self, state_dir: &Path, config: &Config) -> Door {
        let (eyes, disk) = (self.clone(), self.clone());
        let open = move || -> Result<Box<dyn Eye>, Away> {
            match eyes.0.lock().unwrap().trouble {
                Some(Trouble::Unplugged) => Err(Away("it is not there".into())),
                _ => Ok(Box::new(Drawn(eyes.clone()))),
            }
        };
        let store = move |name: &str, png: &[u8]| {
            let mut state = disk.0.lock().unwrap();
            if state.full > 0 {
                state.full -= 1;
                return Err("the disk is full".to_owned());
            }
            assert!(png.starts_with(b"\x89PNG"));
            state.stored.push(name.to_owned());
            Ok(())
        };
        Door::start(config, state_dir, Box::new(open), Box::new(store)).unwrap()
    }
}

fn config() -> Config {
    Config { still_ms: 300, burst: 2, ..Config::default() }
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn outcome(remote: &Remote, wish: Wish) -> Result<String, String> {
    let ticket = remote.ask(wish);
    wait_for("an answer", || remote.outcome(ticket).is_some());
    remote.outcome(ticket).unwrap()
}

#[test]
fn a_full_disk_costs_no_film_and_hands_none_over_twice() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.show(Some(1));
    world.0.lock().unwrap().full = 3;
    let door = world.door(folder.path(), &config());
    let remote = door.remote();
    wait_for("the complaint", || remote.condition().complaint.is_some_and(|text| text.contains("the disk is full")));
    wait_for("the film", || world.stored() == 1);
    wait_for("the end of the complaint", || remote.condition().complaint.is_none());
    thread::sleep(Duration::from_secs(2));
    assert_eq!((world.stored(), remote.condition().films), (1, 1));
    // One that comes back is reported again, since it had left.
    world.show(None);
    thread::sleep(Duration::from_secs(3));
    world.show(Some(1));
    wait_for("the film that left and came back", || world.stored() == 2);
}

#[test]
fn what_is_asked_for_is_answered_whatever_happens() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.is_in(Some(Trouble::Unplugged));
    let door = world.door(folder.path(), &config());
    let remote = door.remote();
    wait_for("word that it is away", || remote.condition().away.is_some());
    assert!(outcome(&remote, Wish::Picture).is_err_and(|reason| reason.contains("not there")));
    world.show(Some(2));
    world.is_in(None);
    wait_for("the camera", || remote.condition().mode.as_deref() == Some("drawn"));
    wait_for("the film", || world.stored() == 1);
    assert!(outcome(&remote, Wish::Reference).is_err_and(|reason| reason.contains("take everything off")));
    assert!(outcome(&remote, Wish::Picture).is_ok());
    assert_eq!(world.stored(), 2);
    world.show(None);
    assert!(outcome(&remote, Wish::Reference).is_ok());
    assert!(remote.condition().has_reference && folder.path().join("camera/reference.png").is_file());
    assert!(outcome(&remote, Wish::Picture).is_err_and(|reason| reason.contains("no film is seen")));
    // A mistake in the code that looks at frames takes the camera away for some seconds, and not for ever.
    world.is_in(Some(Trouble::Panics));
    thread::sleep(Duration::from_millis(500));
    world.is_in(None);
    world.show(Some(3));
    wait_for("the film after the mistake", || world.stored() == 3);
    drop(door);
    assert!(remote.is_closed());
}

#[test]
fn a_film_that_stays_is_taken_again_at_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.show(Some(4));
    let start = Instant::now();
    let _door = world.door(folder.path(), &Config { interval_s: 10, ..config() });
    wait_for("the film", || world.stored() == 1);
    wait_for("the film again", || world.stored() == 2);
    assert!(start.elapsed() >= Duration::from_secs(10));
}

#[test]
fn a_thread_that_is_to_end_is_not_waited_for_long_even_where_the_device_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    for trouble in [Some(Trouble::Unplugged), Some(Trouble::Hangs), None] {
        world.is_in(trouble);
        let door = world.door(folder.path(), &config());
        thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        drop(door);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    }
}
