//! The figures of a fine-tuning run, a line a pass: the CSV log, and what the learning curves (see `curves`) are drawn
//! from.

/// One pass over the training images.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Epoch {
    /// Counted from 1.
    pub(crate) epoch: usize,
    /// Mean loss on training images, label smoothing and augmentation included.
    pub(crate) loss: f64,
    /// Accuracy on `val`, 0..1.
    pub(crate) accuracy: f64,
    /// Macro F1 on `val`, 0..1.
    pub(crate) macro_f1: f64,
    /// Mean negative log-likelihood on `val`.
    pub(crate) nll: f64,
    /// Minutes since the run began.
    pub(crate) minutes: f64,
}

/// The log's first line.
pub(crate) const HEADER: &str = "epoch,loss,val_accuracy,val_macro_f1,val_nll,minutes";

impl Epoch {
    /// The pass as a line of the log.
    pub(crate) fn csv(&self) -> String {
        let Self { epoch, loss, accuracy, macro_f1, nll, minutes } = self;
        format!("{epoch},{loss},{accuracy},{macro_f1},{nll},{minutes}")
    }

    /// Reads a line of the log.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let &[epoch, ref rest @ ..] = fields.as_slice() else {
            return None;
        };
        let numbers: Vec<f64> = rest.iter().map(|field| field.parse().ok()).collect::<Option<_>>()?;
        let &[loss, accuracy, macro_f1, nll, minutes] = numbers.as_slice() else {
            return None;
        };
        Some(Self { epoch: epoch.parse().ok()?, loss, accuracy, macro_f1, nll, minutes })
    }
}

/// The whole log.
pub(crate) fn csv(history: &[Epoch]) -> String {
    let lines: String = history.iter().map(|epoch| epoch.csv() + "\n").collect();
    format!("{HEADER}\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_the_same() {
        let epoch = Epoch { epoch: 3, loss: 0.1 + 0.2, accuracy: 1.0 / 3.0, macro_f1: 0.9, nll: 1e-9, minutes: 61.25 };
        assert_eq!(Epoch::parse(&epoch.csv()), Some(epoch.clone()));
        assert_eq!(csv(&[epoch]).lines().count(), 2);
        for broken in ["", "1,2,3", "x,1,1,1,1,1", "1,1,1,1,1,1,1"] {
            assert_eq!(Epoch::parse(broken), None, "{broken}");
        }
    }
}
