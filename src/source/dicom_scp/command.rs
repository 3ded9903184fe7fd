//! Command sets: the few elements of DIMSE messages that a storage provider needs, read and written in implicit little
//! endian, as the standard has them whatever the data set's transfer syntax. Decides nothing.

/// Command fields.
pub(super) const C_STORE_RQ: u16 = 0x0001;
pub(super) const C_ECHO_RQ: u16 = 0x0030;
pub(super) const C_CANCEL_RQ: u16 = 0x0fff;
/// What makes a request's command field its response's.
const RESPONSE: u16 = 0x8000;

/// The value of Command Data Set Type that says that none follows.
const NO_DATA_SET: u16 = 0x0101;

/// Longest UID.
const MAX_UID: usize = 64;

/// Longest Error Comment.
const MAX_COMMENT: usize = 64;

/// Elements of group 0000.
const GROUP_LENGTH: u16 = 0x0000;
const AFFECTED_SOP_CLASS_UID: u16 = 0x0002;
const COMMAND_FIELD: u16 = 0x0100;
const MESSAGE_ID: u16 = 0x0110;
const MESSAGE_ID_RESPONDED_TO: u16 = 0x0120;
const COMMAND_DATA_SET_TYPE: u16 = 0x0800;
const STATUS: u16 = 0x0900;
const ERROR_COMMENT: u16 = 0x0902;
const AFFECTED_SOP_INSTANCE_UID: u16 = 0x1000;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) field: u16,
    pub(super) message_id: u16,
    /// Empty where there is none, or none that is a UID.
    pub(super) sop_class: String,
    pub(super) sop_instance: String,
    pub(super) has_data_set: bool,
}

/// How a request ended: a status, and, where it is no success, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u16,
    /// For who reads the sender's log.
    pub(super) comment: &'static str,
    /// For counts.
    pub(super) reason: &'static str,
}

impl Status {
    pub(super) const SUCCESS: Self = Self { code: 0x0000, comment: "", reason: "" };
    pub(super) const NO_ROOM: Self =
        Self { code: 0xa700, comment: "The box has no room left: send it again later.", reason: "no_room" };
    pub(super) const FAILED: Self =
        Self { code: 0x0110, comment: "The box could not write it: send it again later.", reason: "failed" };
    pub(super) const MISMATCH: Self =
        Self { code: 0xa900, comment: "Data set and command name different instances.", reason: "mismatch" };
    pub(super) const NOT_UNDERSTOOD: Self =
        Self { code: 0xc000, comment: "No data set with SOP Class and Instance UID.", reason: "not_understood" };
    pub(super) const TOO_LARGE: Self =
        Self { code: 0xc001, comment: "Larger than limits.max_file_bytes of the box.", reason: "too_large" };
    pub(super) const OTHER_CLASS: Self =
        Self { code: 0x0122, comment: "Not the SOP Class of its context.", reason: "other_class" };
    pub(super) const NO_SUCH_OPERATION: Self =
        Self { code: 0x0211, comment: "Only C-STORE and C-ECHO are served.", reason: "no_such_operation" };
}

impl Command {
    /// Reads a whole command set; `None` where it is none, or no request.
    pub(super) fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut command = Self {
            field: 0,
            message_id: 0,
            sop_class: String::new(),
            sop_instance: String::new(),
            has_data_set: false,
        };
        let mut seen = 0;
        while !bytes.is_empty() {
            let (header, rest) = bytes.split_first_chunk::<8>()?;
            let [g0, g1, e0, e1, length @ ..] = *header;
            let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
            bytes = rest;
            if [g0, g1] != [0, 0] {
                return None;
            }
            let number = || <[u8; 2]>::try_from(value).ok().map(u16::from_le_bytes);
            match u16::from_le_bytes([e0, e1]) {
                COMMAND_FIELD => (command.field, seen) = (number()?, seen | 1),
                MESSAGE_ID => (command.message_id, seen) = (number()?, seen | 2),
                COMMAND_DATA_SET_TYPE => (command.has_data_set, seen) = (number()? != NO_DATA_SET, seen | 4),
                AFFECTED_SOP_CLASS_UID => command.sop_class = uid(value).unwrap_or_default(),
                AFFECTED_SOP_INSTANCE_UID => command.sop_instance = uid(value).unwrap_or_default(),
                _ => {}
            }
        }
        let is_cancel = command.field == C_CANCEL_RQ;
        (command.field & RESPONSE == 0 && (seen == 7 || is_cancel)).then_some(command)
    }

    /// The command set that answers it.
    pub(super) fn response(&self, status: Status) -> Vec<u8> {
        let mut body = Vec::new();
        put(&mut body, AFFECTED_SOP_CLASS_UID, self.sop_class.as_bytes(), 0);
        put(&mut body, COMMAND_FIELD, &(self.field | RESPONSE).to_le_bytes(), 0);
        put(&mut body, MESSAGE_ID_RESPONDED_TO, &self.message_id.to_le_bytes(), 0);
        put(&mut body, COMMAND_DATA_SET_TYPE, &NO_DATA_SET.to_le_bytes(), 0);
        put(&mut body, STATUS, &status.code.to_le_bytes(), 0);
        let comment = &status.comment.as_bytes()[..status.comment.len().min(MAX_COMMENT)];
        put(&mut body, ERROR_COMMENT, comment, b' ');
        put(&mut body, AFFECTED_SOP_INSTANCE_UID, self.sop_instance.as_bytes(), 0);
        let mut whole = Vec::new();
        put(&mut whole, GROUP_LENGTH, &(body.len() as u32).to_le_bytes(), 0);
        whole.extend(body);
        whole
    }
}

/// Writes one element, where it has a value, padded to an even length.
fn put(into: &mut Vec<u8>, element: u16, value: &[u8], padding: u8) {
    if value.is_empty() {
        return;
    }
    let length = value.len() + value.len() % 2;
    into.extend([0, 0]);
    into.extend(element.to_le_bytes());
    into.extend((length as u32).to_le_bytes());
    into.extend(value);
    into.resize(into.len() + length - value.len(), padding);
}

/// A UID without its padding; `None` where this is none: digits in groups, a dot between each two, 64 letters at most.
pub(super) fn uid(value: &[u8]) -> Option<String> {
    let end = value.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |at| at + 1);
    let value = &value[..end];
    let is_uid = value.len() <= MAX_UID
        && value.split(|byte| *byte == b'.').all(|group| !group.is_empty() && group.iter().all(u8::is_ascii_digit));
    if is_uid { String::from_utf8(value.to_vec()).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, AFFECTED_SOP_CLASS_UID, b"1.2.840.10008.5.1.4.1.1.1", 0);
        put(&mut bytes, COMMAND_FIELD, &C_STORE_RQ.to_le_bytes(), 0);
        put(&mut bytes, MESSAGE_ID, &7u16.to_le_bytes(), 0);
        put(&mut bytes, COMMAND_DATA_SET_TYPE, &0u16.to_le_bytes(), 0);
        put(&mut bytes, AFFECTED_SOP_INSTANCE_UID, b"1.2.3", 0);
        bytes
    }

    #[test]
    fn a_request_is_read_and_its_response_names_it() {
        let command = Command::read(&store()).unwrap();
        assert_eq!((command.field, command.message_id, command.has_data_set), (C_STORE_RQ, 7, true));
        assert_eq!((&*command.sop_class, &*command.sop_instance), ("1.2.840.10008.5.1.4.1.1.1", "1.2.3"));
        let response = command.response(Status::NO_ROOM);
        assert!(response.len() % 2 == 0 && Command::read(&response).is_none(), "a response is no request");
        assert_eq!(u32::from_le_bytes(response[8..12].try_into().unwrap()) as usize, response.len() - 12);
        let status = [&[0, 0, 0, 9, 2, 0, 0, 0][..], &0xa700u16.to_le_bytes()].concat();
        assert!(response.windows(10).any(|window| window == status));
    }

    #[test]
    fn every_comment_fits_into_its_element() {
        for status in [
            Status::NO_ROOM,
            Status::FAILED,
            Status::MISMATCH,
            Status::NOT_UNDERSTOOD,
            Status::TOO_LARGE,
            Status::OTHER_CLASS,
            Status::NO_SUCH_OPERATION,
        ] {
            assert!((1..=MAX_COMMENT).contains(&status.comment.len()), "{}", status.comment);
        }
    }

    #[test]
    fn what_is_cut_off_or_of_another_group_is_none() {
        let bytes = store();
        for length in 1..bytes.len() {
            assert!(Command::read(&bytes[..length]).is_none_or(|command| command.sop_instance.is_empty()), "{length}");
        }
        let mut other = bytes.clone();
        other[0] = 8;
        assert!(Command::read(&other).is_none() && Command::read(&[]).is_none());
    }

    #[test]
    fn only_uids_are_uids() {
        assert_eq!(uid(b"1.2.840\0").as_deref(), Some("1.2.840"));
        for bad in [&b""[..], b"1..2", b".1", b"1.", b"../../etc", b"1.2\0.3", b"DOE^JANE", &[b'1'; 65]] {
            assert_eq!(uid(bad), None, "{bad:?}");
        }
    }
}
