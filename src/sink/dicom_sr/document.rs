//! The structured report: a Comprehensive 3D SR by TID 1500 (Measurement Report). Not where it is filed and kept.
//!
//! One measurement group a label: its finding, the calibrated probability as the certainty of that finding in percent, the
//! algorithm that says so, the image that it was said of. Then the qualitative evaluations: the decision, or the
//! abstention with its reasons, and the notice. An abstaining box reports its probabilities as well, as over MQTT; so each group
//! says by itself whether its finding is the reported one: in the Tracking Identifier, which readers show, and in a code of
//! ours.
//!
//! Its Completion Flag is COMPLETE, though nobody has read it: the flag speaks of the content, and this is all that the
//! device will ever say about the image; PARTIAL would promise more to come. That nobody stands for it is what
//! UNVERIFIED says, and PRELIMINARY that it is no final report.
//!
//! There is no Referenced Request Sequence, though the study's Accession Number is carried: that sequence stands where an
//! object fulfils a requested procedure, and nobody has requested a screening. The number files it, no more.

use super::Maker;
use super::codes::{self, Code};
use super::uid::Uids;
use crate::radiograph::dicom::{Filing, Object};
use crate::report::{Clock, Decision, Finding, NOTICE, Report};
use chrono::{DateTime, Local};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};

/// The SOP class of structured reports.
pub(super) const SOP_CLASS: &str = uids::COMPREHENSIVE3_DSR_STORAGE;

/// Numbers of the series, far from those that modalities count up to.
const SERIES_NUMBER: &str = "9301";

const UNSET_CLOCK: &str =
    "The device's clock was not known to be right: the dates and times of this report may be wrong.";

/// The structured report on a radiograph, as a file.
pub(super) fn file(maker: &Maker, filing: &Filing, report: &Report, uids: &Uids) -> Vec<u8> {
    let instance = uids.of("report instance");
    general(maker, filing, report, SOP_CLASS, &instance)
        .text(tags::MODALITY, VR::CS, "SR")
        .text(tags::SERIES_INSTANCE_UID, VR::UI, &uids.of("report series"))
        .text(tags::SERIES_NUMBER, VR::IS, SERIES_NUMBER)
        .text(tags::SERIES_DESCRIPTION, VR::LO, "Roentgen: screening report, not a diagnosis")
        .items(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, vec![])
        .items(tags::PERFORMED_PROCEDURE_CODE_SEQUENCE, vec![])
        .items(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE, vec![filing.evidence()])
        .text(tags::COMPLETION_FLAG, VR::CS, "COMPLETE")
        .text(tags::VERIFICATION_FLAG, VR::CS, "UNVERIFIED")
        .text(tags::PRELIMINARY_FLAG, VR::CS, "PRELIMINARY")
        .items(tags::CODING_SCHEME_IDENTIFICATION_SEQUENCE, vec![own_scheme()])
        .and(root(maker, filing, report, uids))
        .file(SOP_CLASS, &instance)
}

/// What every object says of itself: whose it is, which one, when and by what it was made.
pub(super) fn general(maker: &Maker, filing: &Filing, report: &Report, sop_class: &str, instance: &str) -> Object {
    let (date, time) = local(&report.received_at);
    let model = &report.model;
    let versions = format!("{} {}", model.name, model.version);
    filing
        .object()
        .text(tags::SOP_CLASS_UID, VR::UI, sop_class)
        .text(tags::SOP_INSTANCE_UID, VR::UI, instance)
        .text(tags::CONTENT_DATE, VR::DA, &date)
        .text(tags::CONTENT_TIME, VR::TM, &time)
        .text(tags::INSTANCE_NUMBER, VR::IS, "1")
        .text(tags::MANUFACTURER, VR::LO, super::MANUFACTURER)
        .text(tags::MANUFACTURER_MODEL_NAME, VR::LO, super::MODEL)
        .text(tags::STATION_NAME, VR::SH, &maker.device)
        .text(tags::DEVICE_SERIAL_NUMBER, VR::LO, &maker.device)
        .texts(tags::SOFTWARE_VERSIONS, VR::LO, &[env!("CARGO_PKG_VERSION"), &versions])
}

fn own_scheme() -> Object {
    Object::default()
        .text(tags::CODING_SCHEME_DESIGNATOR, VR::SH, codes::OWN)
        .text(tags::CODING_SCHEME_NAME, VR::ST, "Roentgen")
        .text(tags::CODING_SCHEME_RESPONSIBLE_ORGANIZATION, VR::ST, "The Roentgen authors")
}

/// The root of the content tree.
fn root(maker: &Maker, filing: &Filing, report: &Report, uids: &Uids) -> Object {
    let (date, time) = local(&report.received_at);
    let context = |name, kind, value: &str| text(Relation::HasObsContext, name, kind, value);
    let children = vec![
        code(Relation::HasConceptMod, codes::LANGUAGE, codes::ENGLISH),
        code(Relation::HasObsContext, codes::OBSERVER_TYPE, codes::DEVICE),
        context(codes::OBSERVER_UID, Kind::UidRef, &maker.observer),
        context(codes::OBSERVER_NAME, Kind::Text, &maker.device),
        context(codes::OBSERVER_MANUFACTURER, Kind::Text, super::MANUFACTURER),
        context(codes::OBSERVER_MODEL, Kind::Text, super::MODEL),
        code(Relation::HasConceptMod, codes::PROCEDURE, codes::RADIOGRAPHY),
        container(
            codes::MEASUREMENTS,
            report.findings.iter().map(|finding| group(filing, report, finding, uids)).collect(),
        ),
        container(codes::EVALUATIONS, evaluations(report)),
    ];
    content(codes::REPORT, "CONTAINER")
        .text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE")
        .text(tags::OBSERVATION_DATE_TIME, VR::DT, &format!("{date}{time}"))
        .items(tags::CONTENT_TEMPLATE_SEQUENCE, vec![template("1500")])
        .items(tags::CONTENT_SEQUENCE, children)
}

/// The measurement group of one label (TID 1501).
fn group(filing: &Filing, report: &Report, finding: &Finding, uids: &Uids) -> Object {
    let label = finding.label;
    let model = &report.model;
    let is_reported = report.decision == Decision::Reported { label };
    let standing = if is_reported { codes::REPORTED } else { codes::NOT_REPORTED };
    let tracking = match report.decision {
        Decision::Reported { .. } if is_reported => format!("{label} (reported)"),
        Decision::Reported { .. } => format!("{label} (not reported)"),
        Decision::Abstained { .. } => format!("{label} (not reported: abstained)"),
    };
    let algorithm = |name, value: &str| text(Relation::HasConceptMod, name, Kind::Text, value);
    let source = content(codes::SOURCE, "IMAGE")
        .text(tags::RELATIONSHIP_TYPE, VR::CS, Relation::Contains.name())
        .items(tags::REFERENCED_SOP_SEQUENCE, vec![filing.reference()]);
    let mut children = vec![
        text(Relation::HasObsContext, codes::TRACKING, Kind::Text, &tracking),
        text(Relation::HasObsContext, codes::TRACKING_UID, Kind::UidRef, &uids.of(&format!("tracking {label}"))),
        code(Relation::Contains, codes::FINDING, codes::of_label(label)),
        code(Relation::HasConceptMod, codes::SITE, codes::LUNG),
        algorithm(codes::ALGORITHM, &model.name),
        algorithm(codes::ALGORITHM_VERSION, &model.version),
        algorithm(codes::ALGORITHM_PARAMETERS, &format!("bundle sha256 {}", model.sha256)),
        algorithm(codes::ALGORITHM_PARAMETERS, &format!("backend {}", report.backend)),
    ];
    // What is no number, which no report of ours holds, has no measurement.
    if finding.probability.is_finite() {
        children.push(percent(f64::from(finding.probability)));
    }
    children.push(code(Relation::Contains, codes::STANDING, standing));
    children.push(source);
    container(codes::GROUP, children).items(tags::CONTENT_TEMPLATE_SEQUENCE, vec![template("1501")])
}

/// The decision, its reasons, and the notice.
fn evaluations(report: &Report) -> Vec<Object> {
    let mut items = match &report.decision {
        Decision::Reported { label } => vec![code(Relation::Contains, codes::DECISION, codes::of_label(*label))],
        Decision::Abstained { .. } => vec![code(Relation::Contains, codes::DECISION, codes::ABSTAINED)],
    };
    if let Decision::Abstained { reasons } = &report.decision {
        items.extend(reasons.iter().map(|reason| {
            let said = format!("{} (measured {}, limit {})", reason.message, reason.value, reason.limit);
            let said = text(Relation::HasProperties, codes::COMMENT, Kind::Text, &said);
            code(Relation::Contains, codes::REASON, codes::of_reason(reason.code))
                .items(tags::CONTENT_SEQUENCE, vec![said])
        }));
    }
    let id = format!("Report {} of {}", report.report_id, report.device);
    let clock = (report.clock == Clock::Unsynchronised).then_some(UNSET_CLOCK);
    let said = [NOTICE, &id].into_iter().chain(clock);
    items.extend(said.map(|said| text(Relation::Contains, codes::COMMENT, Kind::Text, said)));
    items
}

/// How a content item stands to the one that it belongs to.
#[derive(Clone, Copy)]
enum Relation {
    Contains,
    HasConceptMod,
    HasObsContext,
    HasProperties,
}

impl Relation {
    fn name(self) -> &'static str {
        match self {
            Relation::Contains => "CONTAINS",
            Relation::HasConceptMod => "HAS CONCEPT MOD",
            Relation::HasObsContext => "HAS OBS CONTEXT",
            Relation::HasProperties => "HAS PROPERTIES",
        }
    }
}

/// The kinds of content items that hold a text.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    UidRef,
}

fn content(name: Code, value_type: &str) -> Object {
    Object::default()
        .text(tags::VALUE_TYPE, VR::CS, value_type)
        .items(tags::CONCEPT_NAME_CODE_SEQUENCE, vec![name.item()])
}

fn container(name: Code, children: Vec<Object>) -> Object {
    content(name, "CONTAINER")
        .text(tags::RELATIONSHIP_TYPE, VR::CS, Relation::Contains.name())
        .text(tags::CONTINUITY_OF_CONTENT, VR::CS, "SEPARATE")
        .items(tags::CONTENT_SEQUENCE, children)
}

fn code(relation: Relation, name: Code, value: Code) -> Object {
    content(name, "CODE")
        .text(tags::RELATIONSHIP_TYPE, VR::CS, relation.name())
        .items(tags::CONCEPT_CODE_SEQUENCE, vec![value.item()])
}

fn text(relation: Relation, name: Code, kind: Kind, value: &str) -> Object {
    let (value_type, tag, vr) = match kind {
        Kind::Text => ("TEXT", tags::TEXT_VALUE, VR::UT),
        Kind::UidRef => ("UIDREF", tags::UID, VR::UI),
    };
    content(name, value_type).text(tags::RELATIONSHIP_TYPE, VR::CS, relation.name()).text(tag, vr, value)
}

/// A probability as a measurement in percent.
fn percent(probability: f64) -> Object {
    let percent = probability * 100.0;
    let value = Object::default()
        .items(tags::MEASUREMENT_UNITS_CODE_SEQUENCE, vec![codes::PERCENT.item()])
        .double(tags::FLOATING_POINT_VALUE, percent)
        .text(tags::NUMERIC_VALUE, VR::DS, &format!("{percent:.2}"));
    content(codes::CERTAINTY, "NUM")
        .text(tags::RELATIONSHIP_TYPE, VR::CS, Relation::Contains.name())
        .items(tags::MEASURED_VALUE_SEQUENCE, vec![value])
}

fn template(id: &str) -> Object {
    Object::default().text(tags::MAPPING_RESOURCE, VR::CS, "DCMR").text(tags::TEMPLATE_IDENTIFIER, VR::CS, id)
}

/// A time of a report as date and time of the box's own zone, in which a PACS shows them beside those of the modalities.
/// Without an offset: dcmtk 3.6.7 takes +0000 for none.
fn local(rfc3339: &str) -> (String, String) {
    // A report's own time, which always is one.
    let time = DateTime::parse_from_rfc3339(rfc3339).unwrap_or_default().with_timezone(&Local);
    (time.format("%Y%m%d").to_string(), time.format("%H%M%S").to_string())
}
