//! A modality in the box's test: instances as it makes them, a provider to send them to, and a caller that says byte by byte
//! what it is told to. Not a test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

#[path = "../common/dicom.rs"]
pub(crate) mod dicom;

use dicom::{Dataset, EXPLICIT, PIXELS, chest};
use dicom_ul::Pdu;
use dicom_ul::pdu::{
    AssociationRQ, PDataValue, PDataValueType, PresentationContextProposed, UserVariableItem, read_pdu, write_pdu,
};
use roentgen::radiograph::phantom;
use roentgen::source::dicom_scp::{Config, Provider, Scp, Watch};
use roentgen::source::reserve;
use roentgen::source::spool::{Door, Spool};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const VERIFICATION: &str = "1.2.840.10008.1.1";

/// The SOP Instance UID of a numbered instance.
pub(crate) fn uid(number: u64) -> String {
    format!("1.2.826.0.1.3680043.9.7.{number}")
}

/// A chest radiograph of 12 bits; every number is another one.
pub(crate) fn instance(number: u64) -> Dataset {
    let size = 64;
    let words: Vec<u16> = phantom::phantom(number, size).into_iter().map(|level| u16::from(level) << 4).collect();
    described(chest(size as u16, size as u16, 16, 12), number).words(PIXELS, "OW", &words)
}

/// Another data set by the same number.
pub(crate) fn described(dataset: Dataset, number: u64) -> Dataset {
    dataset.text((0x0008, 0x0018), "UI", &uid(number)).text((0x0020, 0x000d), "UI", &format!("{}.1", uid(number))).text(
        (0x0020, 0x000e),
        "UI",
        &format!("{}.2", uid(number)),
    )
}

/// A provider of a test, on a port of its own.
pub(crate) struct Place {
    root: tempfile::TempDir,
    pub(crate) watch: Watch,
    pub(crate) port: u16,
    pub(crate) scp: Scp,
}

impl Place {
    /// One that takes instances from anybody on this machine.
    pub(crate) fn new() -> Self {
        Self::with(Config::default(), 1 << 20, 0)
    }

    /// One by a configuration, with a bound on instances, and bytes that must stay free.
    pub(crate) fn with(config: Config, max_file_bytes: u64, min_free_bytes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let allowed_peers = match &*config.allowed_peers {
            [] => vec!["CR1@127.0.0.1".to_owned()],
            peers => peers.to_vec(),
        };
        let config = Config { listen: "127.0.0.1:0".into(), allowed_peers, ..config };
        let spool = Spool::open(root.path(), Door::Dicom, &reserve::Config { min_free_bytes }).unwrap();
        let watch = Watch::default();
        let scp = Provider::prepare(&config, spool, max_file_bytes, watch.clone()).unwrap().start().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let port = loop {
            if let Some(address) = watch.now().listening {
                break address.parse::<std::net::SocketAddr>().unwrap().port();
            }
            assert!(Instant::now() < deadline, "{:?}", watch.now());
            std::thread::sleep(Duration::from_millis(5));
        };
        Self { root, watch, port, scp }
    }

    /// The files that were stored.
    pub(crate) fn stored(&self) -> Vec<PathBuf> {
        files(&self.root.path().join("spool/dicom/incoming"))
    }

    /// What is being written.
    pub(crate) fn arriving(&self) -> Vec<PathBuf> {
        files(&self.root.path().join("spool/dicom/arriving"))
    }

    /// A caller whom it accepts, for each of these syntaxes with a context of CR (1, 3, …), after one of Verification.
    pub(crate) fn caller(&self) -> Caller {
        let (caller, answer) = Caller::associate(self.port, &request());
        assert!(matches!(answer, Some(Pdu::AssociationAC(_))), "{answer:?}");
        caller
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// A request that is accepted: context 1 for Verification, 3 for CR in explicit little endian.
pub(crate) fn request() -> AssociationRQ {
    let context = |id, class: &str| PresentationContextProposed {
        id,
        abstract_syntax: class.into(),
        transfer_syntaxes: vec![EXPLICIT.into()],
    };
    AssociationRQ {
        protocol_version: 1,
        calling_ae_title: "CR1".into(),
        called_ae_title: "ROENTGEN".into(),
        application_context_name: "1.2.840.10008.3.1.1.1".into(),
        presentation_contexts: vec![context(1, VERIFICATION), context(3, dicom::CR)],
        user_variables: vec![
            UserVariableItem::MaxLength(16384),
            UserVariableItem::ImplementationClassUID("1.2.3.4".into()),
        ],
    }
}

pub(crate) fn bytes(pdu: &Pdu) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, pdu).unwrap();
    bytes
}

/// A command set of these elements of group 0000.
pub(crate) fn command(elements: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (element, value) in elements {
        bytes.extend([0, 0]);
        bytes.extend(element.to_le_bytes());
        bytes.extend((value.len().next_multiple_of(2) as u32).to_le_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len() + value.len() % 2, 0);
    }
    bytes
}

/// The command of C-STORE for a class and instance.
pub(crate) fn store_command(class: &str, instance: &str) -> Vec<u8> {
    command(&[
        (0x0002, class.as_bytes()),
        (0x0100, &1u16.to_le_bytes()),
        (0x0110, &7u16.to_le_bytes()),
        (0x0700, &0u16.to_le_bytes()),
        (0x0800, &0u16.to_le_bytes()),
        (0x1000, instance.as_bytes()),
    ])
}

/// The command of C-ECHO.
pub(crate) fn echo_command() -> Vec<u8> {
    command(&[
        (0x0002, VERIFICATION.as_bytes()),
        (0x0100, &0x30u16.to_le_bytes()),
        (0x0110, &8u16.to_le_bytes()),
        (0x0800, &0x101u16.to_le_bytes()),
    ])
}

/// One piece of a message as a PDU of its own.
pub(crate) fn piece(context: u8, is_command: bool, is_last: bool, data: &[u8]) -> Pdu {
    let value_type = if is_command { PDataValueType::Command } else { PDataValueType::Data };
    let value = PDataValue { presentation_context_id: context, value_type, is_last, data: data.to_vec() };
    Pdu::PData { data: vec![value] }
}

/// A caller.
pub(crate) struct Caller(pub(crate) TcpStream);

impl Caller {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Calls, and hears the answer.
    pub(crate) fn associate(port: u16, request: &AssociationRQ) -> (Self, Option<Pdu>) {
        let mut caller = Self::connect(port);
        caller.send(&request.clone().into());
        let answer = caller.receive();
        (caller, answer)
    }

    /// Sends; the other side may have hung up.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    pub(crate) fn send(&mut self, pdu: &Pdu) {
        self.send_bytes(&bytes(pdu));
    }

    /// The next PDU; `None` at the end.
    pub(crate) fn receive(&mut self) -> Option<Pdu> {
        let mut whole = vec![0; 6];
        self.0.read_exact(&mut whole).ok()?;
        let length = u32::from_be_bytes(whole[2..6].try_into().unwrap());
        whole.resize(6 + length as usize, 0);
        self.0.read_exact(&mut whole[6..]).ok()?;
        read_pdu(&*whole, 1 << 20, false).expect("what the box says is a PDU")
    }

    /// The status of the next response.
    pub(crate) fn status(&mut self) -> u16 {
        let answer = self.receive();
        let Some(Pdu::PData { data }) = &answer else { panic!("no response but {answer:?}") };
        let mut rest = &*data[0].data;
        while let Some((head, after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_le_bytes(head[4..].try_into().unwrap()) as usize;
            if head[..4] == [0, 0, 0, 9] {
                return u16::from_le_bytes(after[..2].try_into().unwrap());
            }
            rest = &after[length..];
        }
        panic!("a response without a status: {answer:?}");
    }

    /// Sends an instance in pieces of 10000 bytes and gives the status.
    pub(crate) fn store(&mut self, class: &str, instance: &str, data: &[u8]) -> u16 {
        self.send(&piece(3, true, true, &store_command(class, instance)));
        let pieces: Vec<_> = data.chunks(10_000).collect();
        for (at, bytes) in pieces.iter().enumerate() {
            self.send(&piece(3, false, at + 1 == pieces.len(), bytes));
        }
        self.status()
    }

    /// Sends a numbered instance as it should be.
    pub(crate) fn store_number(&mut self, number: u64) -> u16 {
        self.store(dicom::CR, &uid(number), &instance(number).bare(EXPLICIT))
    }

    pub(crate) fn echo(&mut self) -> u16 {
        self.send(&piece(1, true, true, &echo_command()));
        self.status()
    }

    /// Ends the association as it should be.
    pub(crate) fn release(mut self) {
        self.send(&Pdu::ReleaseRQ);
        assert_eq!(self.receive(), Some(Pdu::ReleaseRP));
        assert_eq!(self.receive(), None);
    }
}
