//! The network between box and broker: a TCP proxy that stalls, cuts and delays when it is told to. Knows no MQTT.

use crate::common::Random;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How often a connection looks at what the line is like now.
const LOOK: Duration = Duration::from_millis(20);

/// What the line is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// It passes everything on.
    Through,
    /// It ends standing connections and takes no new ones.
    Down,
    /// It takes connections and bytes, and passes nothing on; what it holds goes on when it heals.
    Stalled,
    /// It passes on up to so many bytes a connection from the box, mostly ending inside a packet, and then cuts it.
    Cutting(usize),
    /// It passes everything on, up to so many milliseconds late.
    Slow(usize),
}

/// The proxy.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) port: u16,
    line: Arc<Mutex<Line>>,
}

impl Proxy {
    /// Starts one that leads to a port on this machine; it ends with the test's process.
    pub(crate) fn to(port: u16, line: Line, mut random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let proxy = Self { port: listener.local_addr().expect("bound").port(), line: Arc::new(Mutex::new(line)) };
        let line = Arc::clone(&proxy.line);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                // Dropping it ends it.
                if *line.lock().expect("no panic") == Line::Down {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { continue };
                for (from, to, is_outward) in [(client, to_server, true), (server, to_client, false)] {
                    let pump =
                        Pump { from, to, is_outward, line: Arc::clone(&line), random: Random::new(random.next()) };
                    thread::spawn(move || pump.run());
                }
            }
        });
        proxy
    }

    /// Makes the line so from now on.
    pub(crate) fn set(&self, line: Line) {
        *self.line.lock().expect("no panic") = line;
    }
}

/// One direction of one connection.
struct Pump {
    from: TcpStream,
    to: TcpStream,
    /// From the box to the broker.
    is_outward: bool,
    line: Arc<Mutex<Line>>,
    random: Random,
}

impl Pump {
    fn run(mut self) {
        self.pass_on();
        // Whichever direction ends takes the other with it.
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// Until either end is gone, or the line is.
    fn pass_on(&mut self) {
        let mut buffer = [0; 4096];
        let mut left = None;
        if self.from.set_read_timeout(Some(LOOK)).is_err() {
            return;
        }
        loop {
            let length = match self.from.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
                Err(_) => return,
            };
            let line = loop {
                let line = *self.line.lock().expect("no panic");
                if line != Line::Stalled {
                    break line;
                }
                thread::sleep(LOOK);
            };
            let mut bytes = &buffer[..length];
            match line {
                Line::Down => return,
                Line::Slow(delay) if length > 0 => {
                    thread::sleep(Duration::from_millis(self.random.below(delay + 1) as u64));
                }
                Line::Cutting(most) if self.is_outward => {
                    let left = left.get_or_insert_with(|| self.random.below(most));
                    bytes = &bytes[..length.min(*left)];
                    *left -= bytes.len();
                    if *left == 0 {
                        let _ = self.to.write_all(bytes);
                        return;
                    }
                }
                _ => {}
            }
            if self.to.write_all(bytes).is_err() {
                return;
            }
        }
    }
}
