//! The objects of this program, which lie on the disk in explicit VRs, for a PACS that takes implicit ones only: the transfer
//! syntax that everybody must know. Reads nothing else: no defined length in it is one of a sequence, see
//! [`crate::radiograph::dicom::Object`].

use std::io::{self, Read};

/// A data set in explicit VRs, little endian, as it reads in implicit ones.
pub(super) struct Implicit<'a> {
    from: &'a mut dyn Read,
    /// The header that is being handed out.
    header: Vec<u8>,
    /// Bytes of the value behind it.
    value: u64,
}

impl<'a> Implicit<'a> {
    pub(super) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, header: Vec::new(), value: 0 }
    }

    /// Reads the next element's header and turns it; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        let mut tag = [0; 4];
        match self.from.read(&mut tag)? {
            0 => return Ok(false),
            read => self.from.read_exact(&mut tag[read..])?,
        }
        let mut four = [0; 4];
        self.from.read_exact(&mut four)?;
        let length = if tag[..2] == [0xfe, 0xff] {
            // Items and delimiters have no VR.
            u32::from_le_bytes(four)
        } else if matches!(&four[..2], b"OB" | b"OW" | b"SQ" | b"UC" | b"UN" | b"UR" | b"UT") {
            self.from.read_exact(&mut four)?;
            u32::from_le_bytes(four)
        } else {
            u32::from(u16::from_le_bytes([four[2], four[3]]))
        };
        self.header = [tag, length.to_le_bytes()].concat();
        // An undefined length is that of a sequence or an item: elements follow.
        self.value = if length == u32::MAX { 0 } else { length.into() };
        Ok(true)
    }
}

impl Read for Implicit<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.header.is_empty() && self.value == 0 && !self.next()? {
            return Ok(0);
        }
        if self.header.is_empty() {
            let most = into.len().min(usize::try_from(self.value).unwrap_or(usize::MAX));
            let read = self.from.read(&mut into[..most])?;
            if read == 0 && most > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.value -= read as u64;
            return Ok(read);
        }
        let count = into.len().min(self.header.len());
        into[..count].copy_from_slice(&self.header[..count]);
        self.header.drain(..count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::radiograph::dicom::Object;
    use dicom_core::VR;
    use dicom_dictionary_std::tags;
    use dicom_object::InMemDicomObject;
    use dicom_transfer_syntax_registry::entries::IMPLICIT_VR_LITTLE_ENDIAN;

    #[test]
    fn another_library_reads_the_same_from_it() {
        let inner = || Object::default().text(tags::CODE_MEANING, VR::LO, "a meaning").number(tags::ROWS, 3);
        let file = Object::default()
            .text(tags::MODALITY, VR::CS, "SR")
            .items(tags::CONTENT_SEQUENCE, vec![inner().items(tags::CONTENT_SEQUENCE, vec![inner()]), inner()])
            .text(tags::TEXT_VALUE, VR::UT, "a long text")
            .items(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![])
            .bytes(tags::PIXEL_DATA, VR::OB, &[7; 1001])
            .file("1.2", "1.2.3");
        // Preamble, prefix, the group's length and what it counts.
        let length = u32::from_le_bytes(file[140..144].try_into().unwrap()) as usize;
        let mut data_set = &file[144 + length..];
        let mut implicit = Vec::new();
        Implicit::new(&mut data_set).read_to_end(&mut implicit).unwrap();
        let read = InMemDicomObject::read_dataset_with_ts(&implicit[..], &IMPLICIT_VR_LITTLE_ENDIAN.erased()).unwrap();
        assert_eq!(read.element(tags::MODALITY).unwrap().to_str().unwrap(), "SR");
        let items = read.element(tags::CONTENT_SEQUENCE).unwrap().items().unwrap();
        let deep = items[0].element(tags::CONTENT_SEQUENCE).unwrap().items().unwrap();
        assert_eq!((items.len(), deep[0].element(tags::ROWS).unwrap().to_int::<u16>().unwrap()), (2, 3));
        assert_eq!(read.element(tags::TEXT_VALUE).unwrap().to_str().unwrap(), "a long text ".trim_end());
        assert_eq!(read.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 1002);
    }

    #[test]
    fn a_file_that_was_cut_off_is_an_error() {
        let file = Object::default().text(tags::MODALITY, VR::CS, "SR").file("1.2", "1.2.3");
        let mut cut = &file[file.len() - 10..file.len() - 1];
        assert!(Implicit::new(&mut cut).read_to_end(&mut Vec::new()).is_err());
    }
}
