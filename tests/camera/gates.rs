//! What a camera sees goes through the same gates as every file: with the bundle that is shipped, what is no chest radiograph
//! is not judged, and a radiograph is.

#[path = "../common/mod.rs"]
mod common;

use crate::light_box::Picture;
use crate::support::daemon::{Place, Received};
use crate::support::wait_for;
use crate::world::{Camera, film, lying};
use roentgen::radiograph::OriginKind;
use roentgen::report::Decision;
use std::path::Path;

/// The first images of a folder of real ones, as pictures.
fn some(inside: &str, suffix: &str, count: usize) -> Vec<Picture> {
    let files = common::shared_files(inside, suffix);
    let picture = |path| {
        let image = image::open(path).unwrap().into_luma8();
        Picture::of_bytes(image.width() as usize, image.height() as usize, image.as_raw())
    };
    files.iter().take(count).map(picture).collect()
}

#[test]
fn what_is_no_chest_radiograph_is_not_judged() {
    let Some(place) = Place::new() else { return };
    let camera = Camera::new(&place.path(""), "GREY 800 600 30 0\n");
    place.configure(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16"), "");
    place.configure_more(&camera.section(""));
    let _broker = place.broker();
    let received = Received::subscribe(place.port, "screen");
    camera.show(&lying(0.0), &film(1));
    let mut daemon = camera.daemon(&place);
    wait_for("the first report", || received.count() == 1);
    let mut others = vec![];
    others.extend(some("negatives/natural_skimage", ".png", 2));
    others.extend(some("negatives/ct_png", ".jpg", 1));
    for (number, picture) in others.iter().enumerate() {
        camera.show(&lying(number as f64), picture);
        wait_for("its report", || received.count() == 2 + number);
    }
    let reports = received.reports();
    for report in &reports {
        assert_eq!((report.origin.kind, report.model.name.as_str()), (OriginKind::Camera, "cxr-vgg16"));
        assert!(matches!(report.decision, Decision::Abstained { .. }), "{:?}", report.decision);
    }
    let radiographs = some("radiographs/test/normal", ".png", 3);
    for (number, picture) in radiographs.iter().enumerate() {
        camera.show(&lying(-(number as f64)), picture);
        wait_for("its report", || received.count() == reports.len() + 1 + number);
    }
    let judged = received.reports()[reports.len()..]
        .iter()
        .filter(|report| matches!(report.decision, Decision::Reported { .. }))
        .count();
    assert!(2 * judged >= radiographs.len(), "{judged} of {} radiographs were judged", radiographs.len());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0), "{}", place.log());
}
