//! A PACS that does what a test tells it to: it stores an object, answers with a status, or hangs up over it. Not a test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use dicom_ul::Pdu;
use dicom_ul::association::server::ServerAssociationOptions;
use dicom_ul::pdu::{PDataValue, PDataValueType};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

pub(crate) const SR: &str = "1.2.840.10008.5.1.4.1.1.88.34";
pub(crate) const PICTURE: &str = "1.2.840.10008.5.1.4.1.1.7";

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The status of the answer; 0 stores it.
    Status(u16),
    /// The association is aborted.
    HangUp,
}

pub(crate) const STORE: Reply = Reply::Status(0);

/// An object that was stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) class: String,
    pub(crate) instance: String,
    /// Its data set as it came.
    pub(crate) data: Vec<u8>,
}

/// Which reply an object gets, by its SOP Instance UID.
type Manners = Box<dyn FnMut(&str) -> Reply + Send>;

struct Inside {
    syntax: &'static str,
    manners: Mutex<Manners>,
    offered: Mutex<Vec<String>>,
    stored: Mutex<Vec<Stored>>,
}

/// The PACS; it listens until the test's process ends.
pub(crate) struct StubPacs {
    pub(crate) port: u16,
    inside: Arc<Inside>,
}

impl StubPacs {
    /// One that takes this transfer syntax alone.
    pub(crate) fn new(syntax: &'static str, manners: impl FnMut(&str) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let manners: Mutex<Manners> = Mutex::new(Box::new(manners));
        let inside = Arc::new(Inside { syntax, manners, offered: Mutex::default(), stored: Mutex::default() });
        let shared = Arc::clone(&inside);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let inside = Arc::clone(&shared);
                thread::spawn(move || serve(stream.unwrap(), &inside));
            }
        });
        Self { port, inside }
    }

    /// From now on it does this.
    pub(crate) fn mend(&self, manners: impl FnMut(&str) -> Reply + Send + 'static) {
        *self.inside.manners.lock().unwrap() = Box::new(manners);
    }

    /// Everything that was stored, with repeats.
    pub(crate) fn stored(&self) -> Vec<Stored> {
        self.inside.stored.lock().unwrap().clone()
    }

    /// How many objects were stored.
    pub(crate) fn count(&self) -> usize {
        self.inside.stored.lock().unwrap().len()
    }

    /// The instances that were offered, with repeats.
    pub(crate) fn offered(&self) -> Vec<String> {
        self.inside.offered.lock().unwrap().clone()
    }
}

/// One association.
fn serve(stream: TcpStream, inside: &Inside) {
    let options = ServerAssociationOptions::new().accept_any().with_transfer_syntax(inside.syntax);
    // A connection that only looks whether somebody listens is none.
    let Ok(mut association) = options.with_abstract_syntax(SR).with_abstract_syntax(PICTURE).establish(stream) else {
        return;
    };
    let (mut command, mut data) = (Vec::new(), Vec::new());
    loop {
        let values = match association.receive() {
            Ok(Pdu::PData { data }) => data,
            Ok(Pdu::ReleaseRQ) => {
                let _ = association.send(&Pdu::ReleaseRP);
                return;
            }
            _ => return,
        };
        for value in values {
            let PDataValue { presentation_context_id, value_type, is_last, data: piece } = value;
            if value_type == PDataValueType::Command {
                command.extend(piece);
                continue;
            }
            data.extend(piece);
            if !is_last {
                continue;
            }
            let (request, data) = (std::mem::take(&mut command), std::mem::take(&mut data));
            let text = |tag| String::from_utf8(find(&request, tag)).unwrap().trim_end_matches('\0').to_owned();
            let (class, instance) = (text(0x0002), text(0x1000));
            inside.offered.lock().unwrap().push(instance.clone());
            let reply = (inside.manners.lock().unwrap())(&instance);
            let Reply::Status(status) = reply else {
                let _ = association.abort();
                return;
            };
            let answer = response(&find(&request, 0x0110), status);
            if reply == STORE {
                inside.stored.lock().unwrap().push(Stored { class, instance, data });
            }
            let value_type = PDataValueType::Command;
            let data = vec![PDataValue { presentation_context_id, value_type, is_last: true, data: answer }];
            if association.send(&Pdu::PData { data }).is_err() {
                return;
            }
        }
    }
}

/// The value of an element of a command.
fn find(mut command: &[u8], element: u16) -> Vec<u8> {
    while let Some((head, rest)) = command.split_first_chunk::<8>() {
        let (value, rest) = rest.split_at(u32::from_le_bytes(head[4..].try_into().unwrap()) as usize);
        if head[2..4] == element.to_le_bytes() {
            return value.to_vec();
        }
        command = rest;
    }
    panic!("no element {element:04x} in a command");
}

/// C-STORE-RSP.
fn response(message: &[u8], status: u16) -> Vec<u8> {
    let mut command = Vec::new();
    for (element, value) in
        [(0x0100, &0x8001u16.to_le_bytes()[..]), (0x0120, message), (0x0800, &[1, 1]), (0x0900, &status.to_le_bytes())]
    {
        command.extend([0, 0]);
        command.extend(u16::to_le_bytes(element));
        command.extend((value.len() as u32).to_le_bytes());
        command.extend(value);
    }
    command
}
