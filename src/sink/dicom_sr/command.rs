//! The two messages of C-STORE (PS3.7 9.3.1): a few elements of fixed form, and what the status in the answer means. Not the
//! association that they go over.

/// What the PACS answered to one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has it.
    Stored,
    /// Not now: it is short of something.
    Busy(String),
    /// It does not take it. `lasting`: by what it says it never will.
    Refused {
        /// Why, in words.
        reason: String,
        /// Whether it never will.
        lasting: bool,
    },
}

/// One element of a command: group 0000, implicit VR.
fn element(out: &mut Vec<u8>, element: u16, value: &[u8]) {
    let padded = value.len() + value.len() % 2;
    out.extend([0, 0]);
    out.extend(element.to_le_bytes());
    // UIDs and numbers: far below.
    out.extend((padded as u32).to_le_bytes());
    out.extend(value);
    out.resize(out.len() + padded - value.len(), 0);
}

/// C-STORE-RQ (PS3.7 9.3.1.1).
pub(super) fn request(class: &str, instance: &str, message: u16) -> Vec<u8> {
    let mut rest = Vec::new();
    element(&mut rest, 0x0002, class.as_bytes());
    element(&mut rest, 0x0100, &1u16.to_le_bytes());
    element(&mut rest, 0x0110, &message.to_le_bytes());
    element(&mut rest, 0x0700, &0u16.to_le_bytes());
    element(&mut rest, 0x0800, &1u16.to_le_bytes());
    element(&mut rest, 0x1000, instance.as_bytes());
    let mut command = Vec::new();
    element(&mut command, 0x0000, &(rest.len() as u32).to_le_bytes());
    command.extend(rest);
    command
}

/// The message that is answered and the status, of a C-STORE-RSP; `None` where it is none.
pub(super) fn response(mut command: &[u8]) -> Option<(u16, u16)> {
    let (mut field, mut message, mut status) = (None, None, None);
    while let Some((head, rest)) = command.split_first_chunk::<8>() {
        let &[group, group_high, element, element_high, length @ ..] = head;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(length) as usize)?;
        let number = value.first_chunk::<2>().map(|bytes| u16::from_le_bytes(*bytes));
        match (u16::from_le_bytes([group, group_high]), u16::from_le_bytes([element, element_high])) {
            (0, 0x0100) => field = number,
            (0, 0x0120) => message = number,
            (0, 0x0900) => status = number,
            (0, _) => {}
            _ => return None,
        }
        command = rest;
    }
    if field == Some(0x8001) && command.is_empty() { Some((message?, status?)) } else { None }
}

/// What a status means (PS3.4 B.2.3, PS3.7 C).
pub(super) fn answer(status: u16) -> Answer {
    let refused = |what: &str, lasting| Answer::Refused { reason: format!("{what} (status {status:04X})"), lasting };
    match status {
        // Stored, with elements coerced or discarded, or there already.
        0x0000 | 0x0001 | 0x0111 | 0xb000..=0xbfff => Answer::Stored,
        0xa700..=0xa7ff => Answer::Busy(format!("it is out of resources (status {status:04X})")),
        0x0122 => refused("it does not support this SOP class", true),
        0xa900..=0xa9ff => refused("it says that the data set does not match its SOP class", true),
        0xc000..=0xcfff => refused("it says that it cannot understand the object", true),
        0x0124 => refused("it does not let this box store", false),
        _ => refused("it could not process the object", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_what_is_to_be_done_about_them() {
        for status in [0, 0xb000, 0xb006, 0x0111] {
            assert_eq!(answer(status), Answer::Stored, "{status:04x}");
        }
        assert!(matches!(answer(0xa700), Answer::Busy(_)));
        for (status, is_lasting) in [(0xa900, true), (0xc000, true), (0x0122, true), (0x0110, false), (0x0124, false)] {
            assert!(matches!(answer(status), Answer::Refused { lasting, .. } if lasting == is_lasting), "{status:04x}");
        }
    }

    #[test]
    fn only_an_answer_to_the_message_is_one() {
        let said = |field: u16, message: u16, status: u16| {
            let mut command = Vec::new();
            element(&mut command, 0x0000, &[0; 4]);
            element(&mut command, 0x0100, &field.to_le_bytes());
            element(&mut command, 0x0120, &message.to_le_bytes());
            element(&mut command, 0x0902, b"said of PATIENT^ANNA");
            element(&mut command, 0x0900, &status.to_le_bytes());
            command
        };
        assert_eq!(response(&said(0x8001, 7, 0xa700)), Some((7, 0xa700)));
        assert_eq!(response(&said(0x8030, 7, 0)), None);
        let whole = said(0x8001, 7, 0);
        for end in 0..whole.len() {
            assert_eq!(response(&whole[..end]), None, "{end}");
        }
        assert_eq!(response(&request("1.2", "1.2.3", 1)), None);
        assert_eq!(response(&[0xff; 64]), None);
    }
}
