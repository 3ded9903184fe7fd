//! Finds the film in a frame: the four-sided shape whose sides are straight edges of one kind, dark within bright (a film on
//! a light box) or, where there is none, bright within dark (a radiograph on a screen). Not what is in it.
//!
//! On the frame made smaller: straight edges, every four of them that enclose something, and of these the one whose sides
//! are edges for most of their length, with an even surround. Then on the frame itself, along each side, where the light
//! changes most, and a line through those places that outliers (a finger, a reflection) do not move.

use super::flatten::evenness;
use super::grey::{Grey, Plane, Point, quantile};
use super::lines::{Line, contrast, lines};
use super::sides;
use std::f64::consts::PI;

/// The longer side of the small frame.
const SMALL: usize = 400;
/// The shortest side of a film in the small frame.
const LEAST_SIDE: f64 = 32.0;
/// Places along a side that are looked at.
const PLACES: usize = 32;
/// How far before and behind a side.
const REACH: f64 = 2.5;
/// A side is one where it has at least this share of the picture's contrast.
const FAINT: f32 = 0.05;
/// What is added to levels before their logarithm is taken: the dark of a room.
const DARK: f32 = 0.03;
/// What lies there has at least so much contrast, of full white, or it is paper.
const CONTENT: f32 = 0.06;
/// Where levels (their logarithms) lie so near a smooth surface there is nothing but light.
const EVEN: f64 = 0.07;
/// A picture with less contrast than this holds nothing.
const BLANK: f32 = 0.04;

/// What is around the film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Surround {
    /// It is darker than what is around it: a light box.
    Lit,
    /// It is brighter: a screen.
    Dark,
}

/// A film in a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its corners from the one at the upper left, clockwise.
    pub corners: [Point; 4],
    /// What is around it.
    pub surround: Surround,
    /// Over how many pixels its edges extend: 1 to 2 where the picture is sharp.
    pub edge: f64,
}

impl Found {
    /// The mean lengths of its upper and lower, and of its left and right side, in pixels.
    pub fn size(&self) -> (f64, f64) {
        let [a, b, c, d] = self.corners;
        ((a.distance(b) + d.distance(c)) / 2.0, (a.distance(d) + b.distance(c)) / 2.0)
    }
}

/// The film in a frame, if there is one and all of it is in view.
pub fn find(frame: &Grey) -> Option<Found> {
    let factor = frame.factor_for(SMALL);
    let plane = frame.reduced(factor);
    if contrast(&plane) < BLANK {
        return None;
    }
    let shapes = [Surround::Lit, Surround::Dark].into_iter().filter_map(|surround| {
        let (corners, _) = shape(&plane, surround)?;
        let corners = corners.map(|corner| corner.scaled(factor as f64));
        let (corners, edge) = sides::sharpened(frame, corners, factor as f64, surround)?;
        let found = Found { corners, surround, edge };
        (fits(frame, &corners) && is_picture(frame, &found)).then_some(found)
    });
    // The second is looked for only where there is no first: a light box is itself bright within a dark room.
    shapes.into_iter().next()
}

/// Whether the shape is convex, of a size and wholly in view.
fn fits(frame: &Grey, corners: &[Point; 4]) -> bool {
    let (width, height) = (frame.width() as f64, frame.height() as f64);
    let is_inside = |corner: &Point| (0.0..=width).contains(&corner.x) && (0.0..=height).contains(&corner.y);
    corners.iter().all(is_inside) && is_convex(corners) && is_even(corners)
}

/// Whether it turns the same way at every corner.
fn is_convex(corners: &[Point; 4]) -> bool {
    (0..4).all(|index| {
        let (a, b, c) = (corners[index], corners[(index + 1) % 4], corners[(index + 2) % 4]);
        (b.x - a.x) * (c.y - b.y) - (b.y - a.y) * (c.x - b.x) > 0.0
    })
}

/// Whether opposite sides are of similar length, and neighbours too: no film is a strip, and no camera looks so slantwise.
fn is_even(corners: &[Point; 4]) -> bool {
    let sides: [f64; 4] = std::array::from_fn(|index| corners[index].distance(corners[(index + 1) % 4]));
    let alike = |a: f64, b: f64, most: f64| a.max(b) <= most * a.min(b);
    alike(sides[0], sides[2], 1.8)
        && alike(sides[1], sides[3], 1.8)
        && alike(sides[0] + sides[2], sides[1] + sides[3], 2.2)
}

/// One side of a shape as it lies in the picture.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// The share of it that is an edge.
    support: f32,
    /// What it adds to the shape's worth.
    worth: f32,
}

/// The best shape in the small frame, and its worth.
fn shape(plane: &Plane, surround: Surround) -> Option<([Point; 4], f32)> {
    // Bright within dark is dark within bright of the negative; in logarithms, since the air at a radiograph's edge is hardly
    // brighter than the dark around it, and the body within much more.
    let negative;
    let plane = match surround {
        Surround::Lit => plane,
        Surround::Dark => {
            negative =
                Plane { levels: plane.levels.iter().map(|level| -(level.max(0.0) + DARK).ln()).collect(), ..*plane };
            &negative
        }
    };
    let (least, mean) = match surround {
        Surround::Lit => (0.45, 0.65),
        // Air at the edge of a radiograph is as black as what is around it.
        Surround::Dark => (0.25, 0.5),
    };
    let lines = lines(plane);
    let contrast = contrast(plane);
    let count = lines.len();
    let meeting: Vec<Option<Point>> =
        lines.iter().flat_map(|a| lines.iter().map(|b| a.meets(b).filter(|point| is_within(plane, *point)))).collect();
    let mut known: Vec<Option<Side>> = vec![None; count * count * count];
    // The side on a line from where it meets the one before to where it meets the one behind, going round clockwise.
    let mut side = |before: usize, line: usize, behind: usize| -> Option<Side> {
        let (from, to) = (meeting[before * count + line]?, meeting[line * count + behind]?);
        let place = (before * count + line) * count + behind;
        Some(*known[place].get_or_insert_with(|| judged(plane, from, to, &lines[line], contrast)))
    };
    let follows = |line: usize, before: usize| (0.3 * PI..0.7 * PI).contains(&lines[line].turned_from(&lines[before]));
    let is_first = |line: &Line| (line.angle + 0.27 * PI).rem_euclid(2.0 * PI) < 0.54 * PI;
    let area = (plane.width * plane.height) as f64;
    let weight = if surround == Surround::Lit { 0.15 } else { 0.3 };
    let mut best: Option<([Point; 4], f32)> = None;
    for right in (0..count).filter(|&line| is_first(&lines[line])) {
        for bottom in (0..count).filter(|&line| follows(line, right)) {
            for left in (0..count).filter(|&line| follows(line, bottom)) {
                let Some(below) = side(right, bottom, left).filter(|side| side.support >= least) else { continue };
                for top in (0..count).filter(|&line| follows(line, left) && follows(right, line)) {
                    let Some(sides) = side(bottom, left, top)
                        .zip(side(left, top, right))
                        .zip(side(top, right, bottom))
                        .map(|((left, top), right)| [below, left, top, right])
                    else {
                        continue;
                    };
                    let support = sides.map(|side| side.support);
                    if support.iter().any(|&share| share < least) || support.iter().sum::<f32>() < 4.0 * mean {
                        continue;
                    }
                    let corner = |a: usize, b: usize| meeting[a * count + b];
                    let (Some(a), Some(b), Some(c), Some(d)) =
                        (corner(left, top), corner(top, right), corner(right, bottom), corner(bottom, left))
                    else {
                        continue;
                    };
                    let corners = [a, b, c, d];
                    // A light box's own edges are bright towards the inside.
                    let middle = a.towards(c, 0.5);
                    let is_outwards = |line: usize| lines[line].is_before(middle);
                    let is_around = [right, bottom, left, top].into_iter().all(is_outwards);
                    if !is_around || !is_convex(&corners) || !is_even(&corners) {
                        continue;
                    }
                    let share = (enclosed(&corners) / area).sqrt() as f32;
                    let worth = sides.iter().map(|side| side.worth).sum::<f32>() / 4.0 + weight * share;
                    if best.is_none_or(|(_, before)| worth > before) {
                        best = Some((corners, worth));
                    }
                }
            }
        }
    }
    best.map(|(corners, worth)| (from_upper_left(corners), worth))
}

fn is_within(plane: &Plane, point: Point) -> bool {
    (1.0..plane.width as f64 - 1.0).contains(&point.x) && (1.0..plane.height as f64 - 1.0).contains(&point.y)
}

/// The area of a four-sided shape.
fn enclosed(corners: &[Point; 4]) -> f64 {
    let cross = |index: usize| {
        let (a, b) = (corners[index], corners[(index + 1) % 4]);
        a.x * b.y - b.x * a.y
    };
    (0..4).map(cross).sum::<f64>().abs() / 2.0
}

/// The same corners, beginning with the one at the upper left.
fn from_upper_left(corners: [Point; 4]) -> [Point; 4] {
    let first = (0..4).min_by(|&a, &b| (corners[a].x + corners[a].y).total_cmp(&(corners[b].x + corners[b].y)));
    std::array::from_fn(|index| corners[(first.unwrap_or(0) + index) % 4])
}

/// How well a side lies in the picture. Its surround is where its line is brighter.
fn judged(plane: &Plane, from: Point, to: Point, line: &Line, contrast: f32) -> Side {
    let length = from.distance(to);
    if length < LEAST_SIDE {
        return Side { support: 0.0, worth: 0.0 };
    }
    let (sin, cos) = line.angle.sin_cos();
    let shifted = |point: Point, by: f64| Point::new(point.x + cos * by, point.y + sin * by);
    let is_edge = |point: Point| plane.at(shifted(point, REACH)) - plane.at(shifted(point, -REACH));
    let along = |index: usize| 0.04 + 0.92 * index as f64 / (PLACES - 1) as f64;
    let mut steps: Vec<f32> = (0..PLACES).map(|index| is_edge(from.towards(to, along(index)))).collect();
    let support = steps.iter().filter(|&&step| step >= FAINT * contrast).count() as f32 / PLACES as f32;
    let step = quantile(&mut steps, 0.5).max(0.0) / contrast;
    let mut surround: Vec<f32> =
        (0..PLACES).map(|index| plane.at(shifted(from.towards(to, along(index)), 1.6 * REACH))).collect();
    let uneven = (quantile(&mut surround, 0.8) - quantile(&mut surround, 0.2)) / contrast;
    // A side ends at its corners; the line of a light box's frame or of a wall goes on.
    let beyond = [-0.12, -0.06, 1.06, 1.12].map(|share| is_edge(from.towards(to, share)));
    let beyond = beyond.iter().filter(|&&step| step >= 2.0 * FAINT * contrast).count() as f32 / beyond.len() as f32;
    let worth = support * (0.6 + 0.4 * (step / 0.3).min(1.0)) - 0.5 * uneven.min(0.6) - 0.2 * beyond;
    Side { support, worth }
}

/// A place along a side and so deep within it, as shares of the film.
type Rim = fn(f64, f64) -> (f64, f64);

/// Whether nothing lies within these corners: light and nothing else where a film was darker than that, and nothing at all
/// where it was a picture on a screen.
pub(super) fn is_bare(frame: &Grey, corners: &[Point; 4], is_lit: bool) -> bool {
    let [a, b, c, d] = *corners;
    let places = |count: usize| (0..count).map(move |index| (index as f64 + 0.5) / count as f64);
    let all: Vec<Point> =
        places(30).flat_map(|v| places(30).map(move |u| a.towards(b, u).towards(d.towards(c, u), v))).collect();
    let mut levels: Vec<f32> = all.iter().map(|&point| frame.at(point)).collect();
    let (low, middle, high) = (quantile(&mut levels, 0.05), quantile(&mut levels, 0.5), quantile(&mut levels, 0.95));
    if !is_lit {
        return high - low < CONTENT;
    }
    // The light box is the brightest that is seen.
    let brightest = frame.reduced(frame.factor_for(SMALL)).quantile(0.98);
    middle > 0.15 && middle > 0.5 * brightest && evenness(frame, &all, EVEN) > 0.9
}

/// Whether what is enclosed is a picture, and not paper, nor the light box itself, with or without something on it.
fn is_picture(frame: &Grey, found: &Found) -> bool {
    let inside = |(u, v): (f64, f64)| {
        let [a, b, c, d] = found.corners;
        a.towards(b, u).towards(d.towards(c, u), v)
    };
    let places = |count: usize| (0..count).map(move |index| (index as f64 + 0.5) / count as f64);
    let all: Vec<Point> = places(40).flat_map(|v| places(40).map(move |u| (u, v))).map(inside).collect();
    let mut levels: Vec<f32> = all.iter().map(|&point| frame.at(point)).collect();
    let (low, high) = (quantile(&mut levels, 0.05), quantile(&mut levels, 0.95));
    if high - low < CONTENT {
        return false;
    }
    if found.surround == Surround::Lit {
        return true;
    }
    // A light box is bright and smooth along its rim, if not everywhere: a film may hang over its edge. A radiograph is not.
    let side = |of: Rim| {
        let rim = places(40).flat_map(|at| [0.03, 0.06].map(|deep| inside(of(at, deep))));
        let mut levels: Vec<f32> = rim.map(|point| frame.at(point)).collect();
        let (low, middle, top) = (quantile(&mut levels, 0.2), quantile(&mut levels, 0.5), quantile(&mut levels, 0.8));
        middle > 0.75 * high && top - low < 0.12 * top
    };
    let sides: [Rim; 4] =
        [|at, deep| (at, deep), |at, deep| (at, 1.0 - deep), |at, deep| (deep, at), |at, deep| (1.0 - deep, at)];
    let lit = sides.into_iter().filter(|of| side(*of)).count();
    lit < 2 && evenness(frame, &all, EVEN) < 0.8
}
