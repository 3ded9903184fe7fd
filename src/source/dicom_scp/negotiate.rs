//! Whether an association is accepted, and for what: called and calling title, address, presentation contexts. Pure.
//!
//! Abstract syntaxes: Verification, and the SOP classes of radiographs that the drop folder judges
//! ([`dicom::SOP_CLASSES`]). All others are refused here, before a byte of them travels: mammograms, CT and ultrasound are
//! none of the box's business, nor are reports and presentation states, and what it took it would have to reject, and keep
//! with a patient's name on it. So is Digital X-Ray *for processing*, the detector's raw image: the box judges what readers
//! are shown. Storage commitment is refused for the reason that the module's page gives.
//!
//! Transfer syntaxes: those that the box decodes ([`dicom::transfer_syntaxes`]). Of several in one context the sender's
//! first that is among these is taken: it is mostly how the sender holds the image, and some cannot convert it.

use super::peers::Peers;
use super::store::{IMPLEMENTATION_CLASS, IMPLEMENTATION_VERSION};
use crate::radiograph::dicom;
use dicom_ul::pdu::{
    AssociationAC, AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason as AcseReason,
    AssociationRJServiceProviderPresentationReason as LocalReason, AssociationRJServiceUserReason as UserReason,
    AssociationRJSource, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason as ResultReason, UserVariableItem,
};
use std::collections::HashMap;
use std::net::IpAddr;

/// The one application context of DICOM.
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";

/// The SOP class of C-ECHO.
pub(super) const VERIFICATION: &str = "1.2.840.10008.1.1";

/// What a rejected context answers as its transfer syntax, which means nothing.
const INSIGNIFICANT: &str = "1.2.840.10008.1.2";

/// Most contexts that an association can have: their numbers are odd and have one byte.
const MAX_CONTEXTS: usize = 128;

/// What an accepted context is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) abstract_syntax: String,
    pub(super) transfer_syntax: &'static str,
}

/// The accepted contexts by their numbers.
pub(super) type Contexts = HashMap<u8, Context>;

/// Why an association is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// A version of the protocol that nobody speaks.
    Protocol,
    /// Not DICOM's application context.
    Application,
    /// It calls another title than the box's.
    Called,
    /// This title may not call, or not from there.
    Calling,
    /// As many associations as there may be are there.
    Busy,
}

impl Rejection {
    /// For counts.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Protocol => "protocol_version",
            Self::Application => "application_context",
            Self::Called => "called_ae_title",
            Self::Calling => "calling_ae_title",
            Self::Busy => "busy",
        }
    }

    /// As the standard has it.
    pub(super) fn pdu(self) -> AssociationRJ {
        let (result, source) = match self {
            Self::Protocol => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceProviderASCE(AcseReason::ProtocolVersionNotSupported),
            ),
            Self::Application => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceUser(UserReason::ApplicationContextNameNotSupported),
            ),
            Self::Called => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceUser(UserReason::CalledAETitleNotRecognized),
            ),
            Self::Calling => (
                AssociationRJResult::Permanent,
                AssociationRJSource::ServiceUser(UserReason::CallingAETitleNotRecognized),
            ),
            // It may come again.
            Self::Busy => (
                AssociationRJResult::Transient,
                AssociationRJSource::ServiceProviderPresentation(LocalReason::LocalLimitExceeded),
            ),
        };
        AssociationRJ { result, source }
    }
}

/// Whether this peer may associate at all.
pub(super) fn admit(request: &AssociationRQ, ae_title: &str, peers: &Peers, from: IpAddr) -> Result<(), Rejection> {
    if request.protocol_version & 1 == 0 {
        return Err(Rejection::Protocol);
    }
    if trimmed(&request.application_context_name) != APPLICATION_CONTEXT {
        return Err(Rejection::Application);
    }
    // The caller first: who may not call learns nothing about the box.
    if !peers.allow(trimmed(&request.calling_ae_title), from) {
        return Err(Rejection::Calling);
    }
    if trimmed(&request.called_ae_title) != ae_title {
        return Err(Rejection::Called);
    }
    Ok(())
}

/// Answers the proposed contexts; `None` where they are none that can be: too many, or a number that is even or comes twice.
pub(super) fn accept(request: &AssociationRQ, max_pdu_bytes: u32) -> Option<(AssociationAC, Contexts)> {
    let proposed = &request.presentation_contexts;
    let mut contexts = Contexts::new();
    let mut results = Vec::new();
    for context in proposed {
        let result = |reason, transfer_syntax: &str| PresentationContextResult {
            id: context.id,
            reason,
            transfer_syntax: transfer_syntax.to_owned(),
        };
        if context.id % 2 == 0 || results.iter().any(|known: &PresentationContextResult| known.id == context.id) {
            return None;
        }
        results.push(match choose(context) {
            Ok(transfer_syntax) => {
                let abstract_syntax = trimmed(&context.abstract_syntax).to_owned();
                contexts.insert(context.id, Context { abstract_syntax, transfer_syntax });
                result(ResultReason::Acceptance, transfer_syntax)
            }
            Err(reason) => result(reason, INSIGNIFICANT),
        });
    }
    if proposed.is_empty() || proposed.len() > MAX_CONTEXTS {
        return None;
    }
    let answer = AssociationAC {
        protocol_version: 1,
        calling_ae_title: request.calling_ae_title.clone(),
        called_ae_title: request.called_ae_title.clone(),
        application_context_name: APPLICATION_CONTEXT.into(),
        presentation_contexts: results,
        user_variables: vec![
            UserVariableItem::MaxLength(max_pdu_bytes),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS.into()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION.into()),
        ],
    };
    Some((answer, contexts))
}

/// Most bytes of a PDU that the peer takes; `None`: any.
pub(super) fn their_max(request: &AssociationRQ) -> Option<usize> {
    request.user_variables.iter().find_map(|variable| match variable {
        UserVariableItem::MaxLength(0) => None,
        UserVariableItem::MaxLength(length) => usize::try_from(*length).ok(),
        _ => None,
    })
}

/// The transfer syntax of a context, or why it is refused.
fn choose(context: &PresentationContextProposed) -> Result<&'static str, ResultReason> {
    let class = trimmed(&context.abstract_syntax);
    let is_verification = class == VERIFICATION;
    if !is_verification && !dicom::SOP_CLASSES.contains(&class) {
        return Err(ResultReason::AbstractSyntaxNotSupported);
    }
    let offered = context.transfer_syntaxes.iter().map(|uid| trimmed(uid));
    let chosen = offered.into_iter().find_map(|uid| dicom::transfer_syntaxes().find(|own| *own == uid));
    chosen.ok_or(ResultReason::TransferSyntaxesNotSupported)
}

/// A UID or title without its padding: of titles spaces, by the standard; some senders take zeros.
fn trimmed(text: &str) -> &str {
    text.trim_matches(['\0', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CR: &str = "1.2.840.10008.5.1.4.1.1.1";

    fn request(contexts: &[(u8, &str, &[&str])]) -> AssociationRQ {
        let context = |(id, class, syntaxes): &(u8, &str, &[&str])| PresentationContextProposed {
            id: *id,
            abstract_syntax: (*class).into(),
            transfer_syntaxes: syntaxes.iter().map(|uid| (*uid).into()).collect(),
        };
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "CR1".into(),
            called_ae_title: "ROENTGEN".into(),
            application_context_name: APPLICATION_CONTEXT.into(),
            presentation_contexts: contexts.iter().map(context).collect(),
            user_variables: vec![UserVariableItem::MaxLength(16384)],
        }
    }

    #[test]
    fn each_context_is_answered_on_its_own() {
        let (big, odd) = ("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.100");
        let request = request(&[
            (1, VERIFICATION, &["1.2.840.10008.1.2"]),
            (3, CR, &[odd, "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.1\0"]),
            (5, CR, &[odd]),
            (7, "1.2.840.10008.5.1.4.1.1.2", &[big]),
            (9, "1.2.840.10008.5.1.4.1.1.1.1.1", &[big]),
            (11, "1.2.840.10008.1.20.1", &[big]),
        ]);
        let (answer, contexts) = accept(&request, 65536).unwrap();
        let reasons: Vec<_> = answer.presentation_contexts.iter().map(|result| result.reason.clone() as u8).collect();
        assert_eq!(reasons, [0, 0, 4, 3, 3, 3]);
        assert_eq!(contexts.len(), 2);
        assert_eq!(contexts[&3].transfer_syntax, "1.2.840.10008.1.2.4.70", "the sender's first that is read");
        assert_eq!((their_max(&request), answer.user_variables.len()), (Some(16384), 3));
    }

    #[test]
    fn contexts_that_cannot_be_are_no_association() {
        let implicit: &[&str] = &["1.2.840.10008.1.2"];
        assert!(accept(&request(&[]), 65536).is_none());
        assert!(accept(&request(&[(2, CR, implicit)]), 65536).is_none());
        assert!(accept(&request(&[(1, CR, implicit), (1, CR, implicit)]), 65536).is_none());
        assert!(accept(&request(&[(1, CR, &[])]), 65536).unwrap().1.is_empty());
    }

    #[test]
    fn titles_addresses_and_protocol_are_held_against_what_is_allowed() {
        let peers = Peers::parse(&["CR1@10.0.0.0/8".to_owned()]).unwrap();
        let admit = |change: fn(&mut AssociationRQ), from: &str| {
            let mut request = request(&[]);
            change(&mut request);
            super::admit(&request, "ROENTGEN", &peers, from.parse().unwrap())
        };
        assert_eq!(admit(|_| (), "10.1.1.1"), Ok(()));
        let padded = |request: &mut AssociationRQ| {
            request.calling_ae_title = "CR1\0\0".into();
            request.called_ae_title = "ROENTGEN\0".into();
        };
        assert_eq!(admit(padded, "10.1.1.1"), Ok(()));
        assert_eq!(admit(|_| (), "192.168.1.1"), Err(Rejection::Calling));
        assert_eq!(admit(|request| request.calling_ae_title = "CR2".into(), "10.1.1.1"), Err(Rejection::Calling));
        assert_eq!(admit(|request| request.called_ae_title = "PACS".into(), "10.1.1.1"), Err(Rejection::Called));
        assert_eq!(admit(|request| request.protocol_version = 2, "10.1.1.1"), Err(Rejection::Protocol));
        let other = |request: &mut AssociationRQ| request.application_context_name = "1.2.3".into();
        assert_eq!(admit(other, "10.1.1.1"), Err(Rejection::Application));
    }
}
