//! The VOI LUT functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, as the standard writes them, and lookup tables (C.11.1.1,
//! C.11.2.1.1). Not the choice among them (see `display`).

/// VOI LUT Function (0028,1056).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// The default: a window of `width` *values*, counted, around `center`.
    Linear,
    /// A window of exactly `width`.
    LinearExact,
    /// A logistic curve.
    Sigmoid,
}

impl Function {
    /// The function of a code string; an unknown one is `LINEAR`, as an absent one is.
    pub fn from_code(code: Option<&str>) -> Self {
        match code {
            Some("LINEAR_EXACT") => Self::LinearExact,
            Some("SIGMOID") => Self::Sigmoid,
            _ => Self::Linear,
        }
    }

    /// Its code string.
    pub fn code(self) -> &'static str {
        match self {
            Self::Linear => "LINEAR",
            Self::LinearExact => "LINEAR_EXACT",
            Self::Sigmoid => "SIGMOID",
        }
    }
}

/// A window: Window Center (0028,1050), Window Width (0028,1051) and the function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Window Center.
    pub center: f64,
    /// Window Width: at least 1 for `LINEAR`, above 0 for the others.
    pub width: f64,
    /// The function.
    pub function: Function,
}

impl Window {
    /// A window, if the standard allows its width.
    pub fn new(center: f64, width: f64, function: Function) -> Option<Self> {
        let allowed = if function == Function::Linear { width >= 1.0 } else { width > 0.0 };
        (allowed && center.is_finite() && width.is_finite()).then_some(Self { center, width, function })
    }

    /// Where a value stands in the output range, 0..=1.
    pub fn apply(&self, x: f64) -> f64 {
        let Self { center: c, width: w, .. } = *self;
        match self.function {
            Function::Linear if x <= c - 0.5 - (w - 1.0) / 2.0 => 0.0,
            Function::Linear if x > c - 0.5 + (w - 1.0) / 2.0 => 1.0,
            Function::Linear => (x - (c - 0.5)) / (w - 1.0) + 0.5,
            Function::LinearExact if x <= c - w / 2.0 => 0.0,
            Function::LinearExact if x > c + w / 2.0 => 1.0,
            Function::LinearExact => (x - c) / w + 0.5,
            Function::Sigmoid => 1.0 / (1.0 + (-4.0 * (x - c) / w).exp()),
        }
    }
}

/// A lookup table: an item of Modality LUT Sequence or VOI LUT Sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lut {
    /// The value that the first entry stands for.
    pub first: i32,
    /// Bits of an entry, 1..=16.
    pub bits: u32,
    /// The entries, never none.
    pub entries: Vec<u16>,
}

impl Lut {
    /// A table from LUT Descriptor and entries: entry count (0 means 65536), first value mapped, bits an entry. `signed`
    /// says whether the first value is read as a signed number. `None` where they contradict each other.
    pub fn new(descriptor: [u16; 3], signed: bool, mut entries: Vec<u16>) -> Option<Self> {
        let [count, first, bits] = descriptor;
        let count = if count == 0 { 65536 } else { usize::from(count) };
        if entries.len() < count || !(1..=16).contains(&bits) {
            return None;
        }
        entries.truncate(count);
        let first = if signed { i32::from(first as i16) } else { i32::from(first) };
        Some(Self { first, bits: u32::from(bits), entries })
    }

    /// The entry of a value; beyond the ends the first or last one.
    pub fn entry(&self, value: f64) -> u16 {
        // `as` saturates, NaN becomes 0.
        let index = (value.round() - f64::from(self.first)).clamp(0.0, (self.entries.len() - 1) as f64) as usize;
        self.entries[index]
    }

    /// Where a value's entry stands in the output range, 0..=1.
    pub fn apply(&self, value: f64) -> f64 {
        (f64::from(self.entry(value)) / f64::from((1u32 << self.bits) - 1)).min(1.0)
    }
}
