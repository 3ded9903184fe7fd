//! Fuzz target: all that a DICOM caller can say. The first byte chooses whether an association that is accepted stands before
//! the rest. Nothing may be stored that is no DICOM file, and nothing half-written may be left.

#![no_main]

use libfuzzer_sys::fuzz_target;
use roentgen::source::dicom_scp::{Config, Connection, Provider, Stop, Watch};
use roentgen::source::reserve;
use roentgen::source::spool::{Door, Spool};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::OnceLock;

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

/// The provider and the spool's folder, for all inputs.
fn provider() -> &'static (Provider, PathBuf) {
    static PROVIDER: OnceLock<(Provider, PathBuf)> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let state = tempfile::tempdir().expect("a scratch folder").keep();
        let spool = Spool::open(&state, Door::Dicom, &reserve::Config { min_free_bytes: 0 }).expect("a scratch folder");
        let config = Config { allowed_peers: vec!["*".into()], ..Config::default() };
        let provider = Provider::prepare(&config, spool, 1 << 16, Watch::default()).expect("a sound configuration");
        (provider, state.join("spool/dicom"))
    })
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

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (provider, spool) = provider();
    let mut words = if first % 2 == 1 { request() } else { Vec::new() };
    words.extend(rest);
    provider.serve(Words(io::Cursor::new(words)), HERE, &Stop::default());
    assert_eq!(fs::read_dir(spool.join("arriving")).expect("the spool").count(), 0, "something half-written is left");
    for entry in fs::read_dir(spool.join("incoming")).expect("the spool") {
        let path = entry.expect("the spool").path();
        let file = fs::read(&path).expect("the spool");
        assert!(file.get(128..132) == Some(b"DICM") && file.len() <= (1 << 16) + 1024, "{}", file.len());
        fs::remove_file(path).expect("the spool");
    }
});
