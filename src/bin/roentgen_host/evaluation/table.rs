//! The figures of an evaluation as a person reads them in a terminal. Not the page (see `page`).

use super::{Evaluation, FloatFigures, Source};
use crate::robustness::Suite;
use roentgen::report::NOTICE;

impl Evaluation {
    /// Tables that a person reads.
    pub(crate) fn table(&self) -> String {
        let split = self.split.as_deref().map_or_else(String::new, |split| format!(", split {split}"));
        let mut out = format!("{} {}: {} images{split}\n", self.model, self.version, self.n);
        out += &format!("\nint8 ({})  {}", self.backend, self.int8.table());
        match &self.float {
            Some(FloatFigures { source: Source::Measured, metrics }) => {
                out += &format!("\nfloat, measured on the same images  {}", metrics.table());
            }
            Some(FloatFigures { source: Source::Recorded, metrics }) => {
                out += &format!(
                    "\nfloat, as recorded when the bundle was made, on its own test images (not measured now; give \
                     --model to measure)  {}",
                    metrics.table()
                );
            }
            None => out += "\nfloat: unknown; give --model to measure it\n",
        }
        if let Some(cost) = &self.cost {
            out += &format!(
                "\nint8 against float: accuracy {:+.2} points, same label on {:.2} % of the images, probabilities differ \
                 by {:.4} on average and {:.4} at most\n",
                cost.accuracy_points,
                100.0 * cost.label_agreement,
                cost.mean_probability_difference,
                cost.max_probability_difference
            );
        }
        let calibrated = &self.int8_probabilities.calibrated;
        out += &format!(
            "int8 probabilities: expected calibration error {:.4} (uncalibrated {:.4})\n",
            calibrated.ece, self.int8_probabilities.uncalibrated.ece
        );
        for (what, groups) in [("population", &self.populations), ("source", &self.sources)] {
            for (name, group) in groups {
                out += &format!("{what} {name}: accuracy {:.4}, n {}\n", group.accuracy, group.n);
            }
        }
        out += &format!("abstained on {:.2} % of the images", 100.0 * self.abstained);
        out += &format!("; accuracy on the others {:.4}\n", self.abstention.reported_accuracy);
        for (reason, count) in &self.abstention.reasons {
            out += &format!("  {reason}: {count}\n");
        }
        for kind in &self.out_of_domain {
            out += &format!("{}: {:.2} % of {} not judged", kind.title, 100.0 * kind.share, kind.n);
            out += &format!(" ({} refused, {} abstained on)\n", kind.refused, kind.abstained);
            for (reason, count) in &kind.reasons {
                out += &format!("  {reason}: {count}\n");
            }
            for file in &kind.judged {
                out += &format!("  judged all the same: {file}\n");
            }
        }
        for (what, suite) in [("what should not matter", &self.robustness), ("shortcut tests", &self.shortcuts)] {
            if let Some(suite) = suite {
                out += &format!("\n{what}: {}", suite.table());
            }
        }
        out += "\n";
        for statement in &self.statements {
            out += &format!("- {}\n", statement.text);
        }
        for refused in &self.refused {
            out += &format!("not judged: {refused}\n");
        }
        out + NOTICE + "\n"
    }
}

impl Suite {
    /// A line a change.
    fn table(&self) -> String {
        let mut out = format!("int8 on {} of {} images, chance {:.4}\n", self.n, self.of, self.chance);
        out += &format!("{:34} {:>8} {:>15} {:>8} {:>9}\n", "", "accuracy", "95 % interval", "points", "abstained");
        for test in std::iter::once(&self.undisturbed).chain(&self.tests) {
            let interval = format!("{:.3} to {:.3}", test.accuracy_ci95[0], test.accuracy_ci95[1]);
            out += &format!(
                "{:34} {:>8.4} {interval:>15} {:>+8.1} {:>9.4}\n",
                test.title, test.accuracy, test.accuracy_points, test.abstained
            );
        }
        out
    }
}
