//! Light boxes with films on them, and screens, as a camera sees them: drawn, so that it is known where each film lies. The
//! lamp is brighter in the middle, the film is seen slantwise and turned, the lens blurs, the sensor is noisy, something may
//! shine in it and a hand reach in. Not a test.

#![allow(dead_code, reason = "every test file uses its own part of this")]

use roentgen::source::camera::rectify::Perspective;
use roentgen::source::camera::{Grey, Point};

/// Numbers that look random and are the same everywhere (SplitMix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Between two numbers.
    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True this often.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.between(0.0, 1.0) < share
    }

    /// About normal, of variance 1.
    fn normal(&mut self) -> f64 {
        (0..6).map(|_| self.between(-1.0, 1.0)).sum::<f64>() / 2f64.sqrt()
    }
}

/// A radiograph's levels, 0..=1, row by row.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) levels: Vec<f32>,
}

impl Picture {
    pub(crate) fn of_bytes(width: usize, height: usize, bytes: &[u8]) -> Self {
        Self { width, height, levels: bytes.iter().map(|&level| f32::from(level) / 255.0).collect() }
    }

    fn at(&self, u: f64, v: f64) -> f64 {
        let place = |share: f64, length: usize| {
            let at = (share * length as f64 - 0.5).clamp(0.0, (length - 1) as f64);
            let whole = (at as usize).min(length.saturating_sub(2));
            (whole, at - whole as f64)
        };
        let ((x, right), (y, down)) = (place(u, self.width), place(v, self.height));
        let pixel =
            |x: usize, y: usize| f64::from(self.levels[y.min(self.height - 1) * self.width + x.min(self.width - 1)]);
        let line = |y: usize| pixel(x, y) * (1.0 - right) + pixel(x + 1, y) * right;
        line(y) * (1.0 - down) + line(y + 1) * down
    }
}

/// What is drawn.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Where the film lies, from the picture's upper left clockwise; none: the light box is empty.
    pub(crate) corners: Option<[Point; 4]>,
    /// On a screen in a dark room instead of a light box.
    pub(crate) is_screen: bool,
    /// The light box within the frame: left, top, right, bottom, as shares.
    pub(crate) lit: [f64; 4],
    /// How bright the lamp is, how much darker it is towards the corners, and to the right and downwards.
    pub(crate) lamp: [f64; 4],
    pub(crate) room: f64,
    /// What the film lets through where it is black and where it is white, and the exponent between.
    pub(crate) film: [f64; 3],
    /// Pixels by which the lens blurs.
    pub(crate) blur: f64,
    pub(crate) noise: f64,
    /// The exponent by which levels become light, and light becomes levels again when the sensor has seen it: then what the
    /// lens mixes is light. 1: levels are light.
    pub(crate) gamma: f64,
    /// Black and white are 16 and 235 of 255, as many cameras have it.
    pub(crate) is_limited: bool,
    /// Reflections: centre, radius, strength.
    pub(crate) glare: Vec<(Point, f64, f64)>,
    /// Fingers: from, to, thickness, how bright.
    pub(crate) fingers: Vec<(Point, Point, f64, f64)>,
    pub(crate) seed: u64,
}

impl Scene {
    /// An empty light box that is seen well.
    pub(crate) fn empty(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            corners: None,
            is_screen: false,
            lit: [0.04, 0.04, 0.96, 0.96],
            lamp: [0.88, 0.15, 0.02, -0.03],
            room: 0.06,
            film: [0.05, 0.62, 1.0],
            blur: 0.8,
            noise: 0.008,
            gamma: 1.0,
            is_limited: false,
            glare: Vec::new(),
            fingers: Vec::new(),
            seed: 1,
        }
    }

    /// The same with a film: its middle, its height (as shares of the frame's), its proportions, by how much it is turned
    /// (radians), and tilted.
    pub(crate) fn with_film(
        mut self,
        middle: (f64, f64),
        height: f64,
        aspect: f64,
        turn: f64,
        tilt: (f64, f64),
    ) -> Self {
        let tall = height * self.height as f64 / 2.0;
        let distance = 4.0 * tall;
        let (sin, cos) = turn.sin_cos();
        let corners = [(-aspect, -1.0), (aspect, -1.0), (aspect, 1.0), (-aspect, 1.0)].map(|(x, y)| {
            let (x, y) = (x * tall, y * tall);
            let (x, y) = (x * cos - y * sin, x * sin + y * cos);
            // Away from the camera to the right and downwards.
            let depth = distance / (distance + x * tilt.0.sin() + y * tilt.1.sin());
            Point::new(
                middle.0 * self.width as f64 + x * tilt.0.cos() * depth,
                middle.1 * self.height as f64 + y * tilt.1.cos() * depth,
            )
        });
        self.corners = Some(corners);
        self
    }

    /// A scene as it may be anywhere, of a film of these proportions.
    pub(crate) fn any(seed: u64, aspect: f64) -> Self {
        let mut dice = Dice(seed);
        let (width, height) = if dice.chance(0.5) { (1280, 720) } else { (1024, 768) };
        let mut scene = Self::empty(width, height);
        scene.seed = seed;
        scene.is_screen = dice.chance(0.2);
        let margin = |dice: &mut Dice| if dice.chance(0.3) { -0.1 } else { dice.between(0.01, 0.06) };
        scene.lit = [margin(&mut dice), margin(&mut dice), 1.0 - margin(&mut dice), 1.0 - margin(&mut dice)];
        scene.lamp =
            [dice.between(0.55, 0.95), dice.between(0.0, 0.35), dice.between(-0.08, 0.08), dice.between(-0.08, 0.08)];
        scene.room = dice.between(0.02, 0.15);
        scene.film = if scene.is_screen {
            [dice.between(0.08, 0.15), dice.between(0.7, 0.95), dice.between(0.9, 1.1)]
        } else {
            [dice.between(0.03, 0.09), dice.between(0.5, 0.75), dice.between(0.8, 1.25)]
        };
        scene.blur = dice.between(0.4, 1.6);
        scene.noise = dice.between(0.003, 0.02);
        let tilt = (dice.between(-0.3, 0.3), dice.between(-0.3, 0.3));
        let middle = (dice.between(0.45, 0.55), dice.between(0.47, 0.53));
        scene = scene.with_film(middle, dice.between(0.5, 0.74), aspect, dice.between(-0.2, 0.2), tilt);
        let corners = scene.corners.expect("just laid there");
        let inside = |dice: &mut Dice| {
            let (u, v) = (dice.between(0.1, 0.9), dice.between(0.1, 0.9));
            corners[0].towards(corners[1], u).towards(corners[3].towards(corners[2], u), v)
        };
        let side = corners[0].distance(corners[3]);
        if dice.chance(0.3) {
            let centre = inside(&mut dice);
            scene.glare.push((centre, side * dice.between(0.03, 0.08), dice.between(0.1, 0.6)));
        }
        if dice.chance(0.25) {
            // A finger that holds the film at one of its sides.
            let index = if dice.chance(0.5) { 1 } else { 3 };
            let at = corners[index].towards(corners[(index + 1) % 4], dice.between(0.2, 0.8));
            let outwards = if index == 1 { width as f64 + 40.0 } else { -40.0 };
            let tip = at.towards(inside(&mut dice), 0.06);
            let from = Point::new(outwards, at.y + dice.between(-80.0, 80.0));
            scene.fingers.push((from, tip, side * dice.between(0.04, 0.09), dice.between(0.15, 0.4)));
        }
        scene
    }

    /// How bright the lamp is at a place.
    fn light(&self, x: f64, y: f64) -> f64 {
        let (u, v) = (x / self.width as f64 * 2.0 - 1.0, y / self.height as f64 * 2.0 - 1.0);
        self.lamp[0] * (1.0 - self.lamp[1] * (u * u + v * v) / 2.0) * (1.0 + self.lamp[2] * u + self.lamp[3] * v)
    }

    /// Draws it, with this picture on the film.
    pub(crate) fn draw(&self, picture: &Picture) -> Grey {
        let back = self.corners.map(|corners| Back::new(&corners));
        let level = |x: f64, y: f64| {
            let (u, v) = (x / self.width as f64, y / self.height as f64);
            let is_lit = (self.lit[0]..self.lit[2]).contains(&u) && (self.lit[1]..self.lit[3]).contains(&v);
            let light = self.light(x, y);
            let around = if self.is_screen {
                0.03
            } else if is_lit {
                light
            } else {
                self.room
            };
            let on_film = back.as_ref().and_then(|back| back.of(x, y));
            let mut level = match on_film {
                Some((u, v)) => {
                    let passed = self.film[0] + (self.film[1] - self.film[0]) * picture.at(u, v).powf(self.film[2]);
                    if self.is_screen { passed } else { passed * light }
                }
                None => around,
            };
            level = level.max(0.0).powf(self.gamma);
            for (centre, radius, strength) in &self.glare {
                let far = centre.distance(Point::new(x, y)) / radius;
                level += strength * (-far * far).exp();
            }
            for (from, to, thick, bright) in &self.fingers {
                let length = from.distance(*to);
                let along = (((x - from.x) * (to.x - from.x) + (y - from.y) * (to.y - from.y)) / (length * length))
                    .clamp(0.0, 1.0);
                if from.towards(*to, along).distance(Point::new(x, y)) < *thick {
                    level = bright.powf(self.gamma);
                }
            }
            level
        };
        // Four samples a pixel.
        let mut levels: Vec<f64> = Vec::with_capacity(self.width * self.height);
        for row in 0..self.height {
            for column in 0..self.width {
                let (x, y) = (column as f64, row as f64);
                let sum = level(x + 0.25, y + 0.25)
                    + level(x + 0.75, y + 0.25)
                    + level(x + 0.25, y + 0.75)
                    + level(x + 0.75, y + 0.75);
                levels.push(sum / 4.0);
            }
        }
        let levels = blurred(&blurred(&levels, self.width, self.height, self.blur), self.height, self.width, self.blur);
        let mut dice = Dice(self.seed ^ 0x5eed);
        let (black, white) = if self.is_limited { (16.0, 235.0) } else { (0.0, 255.0) };
        let eight_bits = |level: f64| ((black + level * (white - black)).clamp(0.0, 255.0).round() as u16) * 257;
        let seen = |light: f64| light.max(0.0).powf(1.0 / self.gamma);
        let levels = levels.into_iter().map(|light| eight_bits(seen(light) + self.noise * dice.normal())).collect();
        Grey::new(self.width, self.height, levels).expect("as large as it is drawn")
    }
}

/// Blurs along rows and turns rows into columns: twice gives both directions, and turns it back.
fn blurred(levels: &[f64], width: usize, height: usize, sigma: f64) -> Vec<f64> {
    let reach = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f64> = (-reach..=reach).map(|at| (-(at as f64 / sigma.max(0.1)).powi(2) / 2.0).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut turned = vec![0.0; levels.len()];
    for (row, line) in levels.chunks_exact(width).enumerate() {
        for column in 0..width {
            let sum: f64 = (-reach..=reach)
                .zip(&weights)
                .map(|(shift, weight)| line[(column as isize + shift).clamp(0, width as isize - 1) as usize] * weight)
                .sum();
            turned[column * height + row] = sum / total;
        }
    }
    turned
}

/// From a place in the frame to the one on the film: the perspective, turned round by a matrix' inverse.
struct Back([[f64; 3]; 3]);

impl Back {
    fn new(corners: &[Point; 4]) -> Self {
        let perspective = Perspective::onto(corners).expect("no film is a line");
        // Its matrix, column by column, from what it does to three points and to the origin at infinity's depth.
        let at = |u: f64, v: f64| perspective.at(u, v);
        let (o, far_x, far_y) = (at(0.0, 0.0), at(1e9, 0.0), at(0.0, 1e9));
        let corner = at(1.0, 1.0);
        // Columns are multiples of (far_x, 1), (far_y, 1) and (o, 1); their factors follow from the corner.
        let columns = [[far_x.x, far_x.y, 1.0], [far_y.x, far_y.y, 1.0], [o.x, o.y, 1.0]];
        let inverse = inverted(&transposed(&columns));
        let factor = |row: usize| inverse[row][0] * corner.x + inverse[row][1] * corner.y + inverse[row][2];
        let factors = [factor(0), factor(1), factor(2)];
        let mut matrix = transposed(&columns);
        for line in &mut matrix {
            for (value, factor) in line.iter_mut().zip(factors) {
                *value *= factor;
            }
        }
        Self(inverted(&matrix))
    }

    /// The place on the film, if it is one.
    fn of(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        let row = |row: usize| self.0[row][0] * x + self.0[row][1] * y + self.0[row][2];
        let (u, v, depth) = (row(0), row(1), row(2));
        let (u, v) = (u / depth, v / depth);
        ((0.0..1.0).contains(&u) && (0.0..1.0).contains(&v)).then_some((u, v))
    }
}

fn transposed(matrix: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    std::array::from_fn(|row| std::array::from_fn(|column| matrix[column][row]))
}

fn inverted(m: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    let minor = |a: usize, b: usize, c: usize, d: usize| m[a][b] * m[c][d] - m[a][d] * m[c][b];
    let determinant = m[0][0] * minor(1, 1, 2, 2) - m[0][1] * minor(1, 0, 2, 2) + m[0][2] * minor(1, 0, 2, 1);
    let cofactor = [
        [minor(1, 1, 2, 2), -minor(0, 1, 2, 2), minor(0, 1, 1, 2)],
        [-minor(1, 0, 2, 2), minor(0, 0, 2, 2), -minor(0, 0, 1, 2)],
        [minor(1, 0, 2, 1), -minor(0, 0, 2, 1), minor(0, 0, 1, 1)],
    ];
    cofactor.map(|row| row.map(|value| value / determinant))
}
