//! Reads a file of this program again, as far as sending it needs: which instance it is, and its data set as it stands.
//! No other file is one.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};

/// Preamble, prefix, and the element with the length of the file meta information.
const HEAD: usize = 144;

/// Bytes of the file meta information at most: ours has about 200.
const MAX_META: u64 = 4096;

/// Media Storage SOP Instance UID, with the VR that ours has.
const INSTANCE: [u8; 6] = [2, 0, 3, 0, b'U', b'I'];

/// The SOP Instance UID that a file of ours has, and its data set.
pub(super) fn opened(mut file: File) -> io::Result<(String, impl Read)> {
    let mut head = [0; HEAD];
    file.read_exact(&mut head)?;
    let (meta, length) = (&head[128..140], &head[140..]);
    let length = length.iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
    if meta != b"DICM\x02\0\0\0UL\x04\0" || length > MAX_META {
        return Err(strange());
    }
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut meta = Vec::new();
    if file.by_ref().take(length).read_to_end(&mut meta)? < length as usize {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let at = meta.windows(INSTANCE.len()).position(|window| window == INSTANCE).ok_or_else(strange)?;
    let value = meta[at + INSTANCE.len()..].split_first_chunk().and_then(|(&length, rest)| {
        // UIDs have lengths of 16 bits.
        rest.get(..u16::from_le_bytes(length).into())
    });
    let instance = value.and_then(|value| std::str::from_utf8(value).ok()).ok_or_else(strange)?.trim_end_matches('\0');
    let is_uid = instance.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !is_uid || !(1..=64).contains(&instance.len()) {
        return Err(strange());
    }
    Ok((instance.to_owned(), file))
}

fn strange() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "it is no object of this program")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::dicom::Object;
    use dicom_core::VR;
    use dicom_dictionary_std::tags;
    use std::io::{Seek, Write};

    fn of(bytes: &[u8]) -> io::Result<(String, Vec<u8>)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let (instance, mut data_set) = opened(file)?;
        let mut rest = Vec::new();
        data_set.read_to_end(&mut rest)?;
        Ok((instance, rest))
    }

    #[test]
    fn a_file_says_which_instance_it_is_and_what_is_none_of_ours_is_an_error() {
        let file = Object::default().text(tags::MODALITY, VR::CS, "SR").file("1.2.840.1", "2.25.77");
        let (instance, data_set) = of(&file).unwrap();
        assert_eq!((instance.as_str(), &data_set[..]), ("2.25.77", &b"\x08\0\x60\0CS\x02\0SR"[..]));
        // Even and odd lengths, which are padded.
        for uid in ["1", "2.25.7", "2.25.770"] {
            assert_eq!(of(&Object::default().file("1.2", uid)).unwrap().0, uid);
        }
        for end in 0..file.len() - data_set.len() {
            assert!(of(&file[..end]).is_err(), "{end}");
        }
        assert!(of(&Object::default().file("1.2", "no UID")).is_err());
        assert!(of(&[0; 1000]).is_err());
        let mut large = file.clone();
        large[143] = 0xff;
        assert!(of(&large).is_err());
    }
}
