//! Fuzz target: all that a DICOM caller can say. The first byte chooses whether an association that is accepted stands before
//! the rest. Nothing may be stored that is no DICOM file, and nothing half-written may be left.

use roentgen::source::dicom_scp::{Config, Connection, Provider, Stop, Watch};
use roentgen::source::reserve;
use roentgen::source::spool::{Door, Spool};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A caller whose words are known beforehand.
struct Words(io::Cursor<Vec<u8>>);

impl Read for Words {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Words {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Connection for Words {
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An association request that is accepted: Verification as context 1, CR as context 3.
fn request() -> Vec<u8> {
    let item = |kind: u8, value: &[u8]| [&[kind, 0][..], &(value.len() as u16).to_be_bytes(), value].concat();
    let syntaxes = [item(0x40, b"1.2.840.10008.1.2.1"), item(0x40, b"1.2.840.10008.1.2")].concat();
    let context = |id: u8, class: &[u8]| item(0x20, &[&[id, 0, 0, 0][..], &item(0x30, class), &syntaxes].concat());
    let mut body = vec![0, 1, 0, 0];
    body.extend(b"ROENTGEN        CALLER          ");
    body.extend([0; 32]);
    body.extend(item(0x10, b"1.2.840.10008.3.1.1.1"));
    body.extend(context(1, b"1.2.840.10008.1.1"));
    body.extend(context(3, b"1.2.840.10008.5.1.4.1.1.1"));
    body.extend(item(0x50, &item(0x51, &[0, 0, 64, 0])));
    [&[1, 0][..], &(body.len() as u32).to_be_bytes(), &body].concat()
}

/// Says the bytes to the box.
pub(crate) fn run(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(state) = tempfile::tempdir() else { return };
    let reserve = reserve::Config { min_free_bytes: 0 };
    let spool = Spool::open(state.path(), Door::Dicom, &reserve).expect("a scratch folder");
    let config = Config { allowed_peers: vec!["*".into()], ..Config::default() };
    let provider = Provider::prepare(&config, spool, 1 << 16, Watch::default()).expect("a sound configuration");
    let mut words = if first % 2 == 1 { request() } else { Vec::new() };
    words.extend(rest);
    provider.serve(Words(io::Cursor::new(words)), HERE, &Stop::default());
    let listed = |name| fs::read_dir(state.path().join("spool/dicom").join(name)).expect("the spool");
    assert_eq!(listed("arriving").count(), 0, "something half-written is left");
    for entry in listed("incoming") {
        let file = fs::read(entry.expect("the spool").path()).expect("the spool");
        assert!(file.get(128..132) == Some(b"DICM") && file.len() <= (1 << 16) + 1024, "{}", file.len());
    }
}
