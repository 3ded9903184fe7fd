//! Where exactly a film's sides lie: from rough corners to such that are good to a part of a pixel, and how sharp its edges
//! are. Not the search: see [`super::find`].

use super::find::Surround;
use super::grey::{Grey, Point, quantile};

/// Places along a side that are looked at.
const PLACES: usize = 96;
/// The share of them that must show the edge.
const LEAST: f64 = 0.2;
/// Times that a line is fitted to them, each time with less weight on what lies far from it.
const ROUNDS: usize = 5;

/// Corners that are right to a part of a pixel, and the pixels over which an edge extends. `rough` are within about
/// `scale` pixels. `None` where a side shows no edge there.
pub(super) fn sharpened(frame: &Grey, rough: [Point; 4], scale: f64, surround: Surround) -> Option<([Point; 4], f64)> {
    let mut corners = rough;
    let mut edge = 0.0;
    for reach in [2.0 + 2.5 * scale, 2.0 + 1.2 * scale] {
        let mut fitted = Vec::with_capacity(4);
        let mut widths = Vec::new();
        for index in 0..4 {
            let (from, to) = (corners[index], corners[(index + 1) % 4]);
            let (places, found) = edges(frame, from, to, reach, surround);
            widths.extend(found);
            fitted.push(fit(&places)?);
        }
        for index in 0..4 {
            corners[index] = crossing(fitted[(index + 3) % 4], fitted[index])?;
        }
        edge = f64::from(quantile(&mut widths, 0.4));
    }
    // A fit that has run away has found something else.
    let strayed = rough.iter().zip(&corners).any(|(a, b)| a.distance(*b) > 4.0 + 6.0 * scale);
    (!strayed).then_some((corners, edge))
}

/// Where along a side the edge lies, with its strength, and over how many pixels it extends there.
fn edges(frame: &Grey, from: Point, to: Point, reach: f64, surround: Surround) -> (Vec<(Point, f64)>, Vec<f32>) {
    let length = from.distance(to).max(1e-9);
    let (along_x, along_y) = ((to.x - from.x) / length, (to.y - from.y) / length);
    // Going round clockwise the surround lies to the left.
    let (out_x, out_y) = (along_y, -along_x);
    let sign = if surround == Surround::Lit { 1.0 } else { -1.0 };
    let level = |at: f64, out: f64| {
        // Three places side by side: noise falls, the edge stays.
        let one = |shift: f64| {
            let at = at + shift;
            frame.at(Point::new(from.x + along_x * at + out_x * out, from.y + along_y * at + out_y * out))
        };
        (one(-1.0) + one(0.0) + one(1.0)) / 3.0
    };
    let steps = (reach * 2.0).round() as usize;
    let mut all = Vec::with_capacity(PLACES);
    for place in 0..PLACES {
        let at = length * (0.04 + 0.92 * place as f64 / (PLACES - 1) as f64);
        let profile: Vec<f32> =
            (0..=2 * steps).map(|step| sign * level(at, (step as f64 - steps as f64) / 2.0)).collect();
        // The rise over two pixels.
        let rise: Vec<f32> = profile.windows(5).map(|window| window[4] - window[0]).collect();
        let Some(top) = (0..rise.len()).max_by(|&a, &b| rise[a].total_cmp(&rise[b])) else { continue };
        let side = |index: Option<usize>| index.and_then(|index| rise.get(index)).copied().unwrap_or(rise[top]);
        let (before, behind) = (side(top.checked_sub(1)), side(Some(top + 1)));
        // The vertex of the parabola through three values.
        let bend = before - 2.0 * rise[top] + behind;
        let shift = if bend < 0.0 { f64::from(0.5 * (before - behind) / bend).clamp(-1.0, 1.0) } else { 0.0 };
        let out = ((top + 2) as f64 + shift - steps as f64) / 2.0;
        let point = Point::new(from.x + along_x * at + out_x * out, from.y + along_y * at + out_y * out);
        // From where it begins to rise to where it has risen.
        let (low, high) = range(&profile, top + 2);
        all.push((point, f64::from(rise[top]), (high - low) / rise[top].max(1e-6) * 2.0));
    }
    let mut rises: Vec<f32> = all.iter().map(|(_, rise, _)| *rise as f32).collect();
    let usual = f64::from(quantile(&mut rises, 0.6));
    all.retain(|(_, rise, _)| *rise > (0.25 * usual).max(0.004));
    (all.iter().map(|(point, rise, _)| (*point, *rise)).collect(), all.iter().map(|(.., width)| *width).collect())
}

/// The levels between which the profile rises around `middle` without falling.
fn range(profile: &[f32], middle: usize) -> (f32, f32) {
    let (mut low, mut high) = (middle.min(profile.len() - 1), middle.min(profile.len() - 1));
    while low > 0 && profile[low - 1] <= profile[low] {
        low -= 1;
    }
    while high + 1 < profile.len() && profile[high + 1] >= profile[high] {
        high += 1;
    }
    (profile[low], profile[high])
}

/// A line: a point on it and its direction.
type Fitted = (Point, (f64, f64));

/// The line through most of the places.
fn fit(places: &[(Point, f64)]) -> Option<Fitted> {
    if (places.len() as f64) < LEAST * PLACES as f64 {
        return None;
    }
    let mut weights: Vec<f64> = places.iter().map(|(_, rise)| rise.min(0.2)).collect();
    let mut line = None;
    for _ in 0..ROUNDS {
        let (point, direction) = weighted(places, &weights)?;
        let off = |place: &Point| (place.x - point.x) * direction.1 - (place.y - point.y) * direction.0;
        let mut distances: Vec<f32> = places.iter().map(|(place, _)| off(place).abs() as f32).collect();
        // Tukey's weights: nothing beyond four times the usual distance.
        let limit = 4.0 * f64::from(quantile(&mut distances, 0.5)).max(0.25);
        for (weight, (place, rise)) in weights.iter_mut().zip(places) {
            let share = off(place) / limit;
            *weight = if share.abs() < 1.0 { rise.min(0.2) * (1.0 - share * share).powi(2) } else { 0.0 };
        }
        line = Some((point, direction));
    }
    line
}

/// The line of least squared distances.
fn weighted(places: &[(Point, f64)], weights: &[f64]) -> Option<Fitted> {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let mean = |value: &dyn Fn(&Point) -> f64| {
        places.iter().zip(weights).map(|((place, _), weight)| value(place) * weight).sum::<f64>() / total
    };
    let middle = Point::new(mean(&|place| place.x), mean(&|place| place.y));
    let xx = mean(&|place| (place.x - middle.x).powi(2));
    let yy = mean(&|place| (place.y - middle.y).powi(2));
    let xy = mean(&|place| (place.x - middle.x) * (place.y - middle.y));
    let angle = 0.5 * (2.0 * xy).atan2(xx - yy);
    Some((middle, (angle.cos(), angle.sin())))
}

/// Where two lines cross.
fn crossing((a, along): Fitted, (b, across): Fitted) -> Option<Point> {
    let determinant = along.0 * across.1 - along.1 * across.0;
    let way = ((b.x - a.x) * across.1 - (b.y - a.y) * across.0) / determinant;
    (determinant.abs() > 0.2).then(|| Point::new(a.x + along.0 * way, a.y + along.1 * way))
}
