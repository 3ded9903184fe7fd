//! What the figures mean for who uses the model, in plain words that follow from them and from nothing else. The
//! shortcut tests come first: they decide what every other figure is worth.

use super::Evaluation;
use super::numbers::{count, percent, percent_range, points};
use crate::out_of_domain::Rejection;
use crate::robustness::{Outcome, Suite};
use serde::{Deserialize, Serialize};

/// A loss of accuracy below this, in percentage points, is not spoken of.
const SMALL_LOSS: f64 = 2.0;

/// How many of the worst changes are named.
const WORST: usize = 3;

/// One sentence or two, and whether they should worry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Statement {
    /// Which figure it is about, e.g. `border_alone`.
    pub(crate) topic: String,
    /// Whether it is a reason not to trust the accuracy, or a bar that is missed.
    pub(crate) concern: bool,
    /// Whether the images are too few to tell.
    #[serde(default)]
    pub(crate) unclear: bool,
    /// The words.
    pub(crate) text: String,
}

fn statement(topic: &str, concern: bool, text: String) -> Statement {
    Statement { topic: topic.into(), concern, unclear: false, text }
}

impl Statement {
    /// The same, but for what too few images leave open.
    fn unclear_if(self, unclear: bool) -> Self {
        Self { unclear, ..self }
    }
}

/// All that can be said of the figures that are there.
pub(crate) fn statements(of: &Evaluation) -> Vec<Statement> {
    let mut out = Vec::new();
    if let Some(suite) = &of.shortcuts {
        for test in &suite.tests {
            out.push(match test.id.as_str() {
                "border_alone" => border_alone(suite, test),
                "centre_alone" => centre_alone(suite, test),
                _ => thumbnail(suite, test),
            });
        }
    }
    out.extend(paediatric(of));
    out.extend(populations(of));
    out.extend(source_alone(of));
    out.extend(of.robustness.as_ref().map(robustness));
    out.extend(of.out_of_domain.iter().map(rejection));
    out
}

/// "58.3 % (95 % interval 52.0–64.4 %; always naming the most frequent class: 40.0 %), mean recall of the classes 41.0 %
/// (33.1–49.0 %; guessing: 25.0 %)".
fn against_chance(suite: &Suite, test: &Outcome) -> String {
    let balanced = test.balanced_accuracy_ci95.map_or_else(String::new, |ends| percent_range(ends) + "; ");
    format!(
        "{} (95\u{a0}% interval {}; always naming the most frequent class: {}), mean recall of the classes {} ({balanced}\
         guessing: {})",
        percent(test.accuracy),
        percent_range(test.accuracy_ci95),
        percent(suite.chance),
        percent(test.balanced_accuracy),
        percent(suite.balanced_chance)
    )
}

/// Whether it is more often right than who does not look at the image. Accuracy alone would not tell: a model that says
/// "normal" in doubt has little of it, and may still recognise the other classes now and then.
fn above_chance(suite: &Suite, test: &Outcome) -> bool {
    let balanced = test.balanced_accuracy_ci95.is_some_and(|[low, _]| low > suite.balanced_chance);
    balanced || test.accuracy_ci95[0] > suite.chance
}

fn border_alone(suite: &Suite, test: &Outcome) -> Statement {
    let figures = against_chance(suite, test);
    let concern = above_chance(suite, test);
    let text = match concern {
        true => format!(
            "From the border alone, with the lungs hidden, the model still reaches {figures}: it partly recognises where \
             an image comes from instead of what it shows."
        ),
        false => format!(
            "From the border alone, with the lungs hidden, the model reaches {figures}: on these {} no more than by \
             guessing.",
            count(suite.n, "image")
        ),
    };
    statement(&test.id, concern, text)
}

fn centre_alone(suite: &Suite, test: &Outcome) -> Statement {
    let (concern, unclear) = (significant_loss(test), !excludes_loss(test));
    let kept = format!(
        "With the border hidden and the lungs left it reaches {} (95\u{a0}% interval {}), {} points against the whole \
         image ({})",
        percent(test.accuracy),
        percent_range(test.accuracy_ci95),
        points(test.accuracy_points),
        percent(suite.undisturbed.accuracy)
    );
    let text = match (concern, unclear) {
        (true, _) => format!("{kept}: it leans on what stands at the border, or on the frame itself."),
        (false, false) => format!("{kept}: it does not need the border."),
        (false, true) => {
            format!("{kept}: {} are too few to tell whether it needs the border.", count(suite.n, "image"))
        }
    };
    statement(&test.id, concern, text).unclear_if(!concern && unclear)
}

fn thumbnail(suite: &Suite, test: &Outcome) -> Statement {
    let reached =
        format!("From a thumbnail, on which no reader could see a finding, it reaches {}", against_chance(suite, test));
    let concern = above_chance(suite, test);
    let text = match concern {
        true => format!(
            "{reached}: part of what it uses is the coarse shape and brightness of the picture, which tell of age, \
             positioning and scanner."
        ),
        false => format!("{reached}: on these {} no more than by guessing.", count(suite.n, "image")),
    };
    statement(&test.id, concern, text)
}

fn paediatric(of: &Evaluation) -> Option<Statement> {
    let rate = of.paediatric_normals.as_ref()?;
    let met = rate.share <= rate.limit;
    let mut text = format!(
        "Of {} of children it calls {} viral pneumonia: {} (95\u{a0}% interval {}), {} the {:.0}\u{a0}% that are accepted.",
        count(rate.n, "normal radiograph"),
        rate.hits,
        percent(rate.share),
        percent_range(rate.share_ci95),
        if met { "within" } else { "above" },
        100.0 * rate.limit
    );
    let unclear = met && rate.share_ci95[1] > rate.limit;
    if unclear {
        text += " They are too few to be sure of it.";
    }
    Some(statement("paediatric_normals", !met, text).unclear_if(unclear))
}

fn populations(of: &Evaluation) -> Option<Statement> {
    let by_accuracy = |a: &(&String, _), b: &(&String, _)| f64::total_cmp(&accuracy(a.1), &accuracy(b.1));
    fn accuracy(group: &super::Group) -> f64 {
        group.accuracy
    }
    let worst = of.populations.iter().min_by(by_accuracy)?;
    let best = of.populations.iter().max_by(by_accuracy)?;
    if worst.0 == best.0 {
        return None;
    }
    let apart = worst.1.accuracy_ci95[1] < best.1.accuracy_ci95[0];
    let text = format!(
        "By population: {} {} (95\u{a0}% interval {}, n\u{a0}{}), {} {} ({}, n\u{a0}{}).",
        best.0,
        percent(best.1.accuracy),
        percent_range(best.1.accuracy_ci95),
        best.1.n,
        worst.0,
        percent(worst.1.accuracy),
        percent_range(worst.1.accuracy_ci95),
        worst.1.n
    );
    let text = if apart { text + " The difference is more than chance." } else { text };
    Some(statement("populations", apart, text))
}

fn source_alone(of: &Evaluation) -> Option<Statement> {
    let alone = of.source_alone.as_ref()?;
    let concern = alone.accuracy >= of.int8.accuracy;
    let text = format!(
        "Of the {} sources of these images {} hold one class only: who knew nothing but the source would be right for {}. ",
        alone.sources,
        alone.of_one_class,
        percent(alone.accuracy)
    );
    let text = text
        + match concern {
            true => "So a high accuracy here cannot show by itself that the model reads the lungs.",
            false => "The model's accuracy is above that.",
        };
    Some(statement("source_alone", concern, text))
}

/// Whether the paired interval lies below nothing, and the loss is worth speaking of.
fn significant_loss(test: &Outcome) -> bool {
    test.accuracy_points_ci95.is_some_and(|[_, high]| high < 0.0) && test.accuracy_points <= -SMALL_LOSS
}

/// Whether a loss that is worth speaking of lies outside the paired interval.
fn excludes_loss(test: &Outcome) -> bool {
    test.accuracy_points_ci95.is_some_and(|[low, _]| low > -SMALL_LOSS)
}

/// What the box makes of one kind of picture that it should not judge.
fn rejection(of: &Rejection) -> Statement {
    let met = of.share >= of.at_least;
    let mut text = format!(
        "{}: of {} it does not judge {} (95\u{a0}% interval {}), {} the {:.0}\u{a0}% that are asked for.",
        of.title,
        of.n,
        percent(of.share),
        percent_range(of.share_ci95),
        if met { "not below" } else { "below" },
        100.0 * of.at_least
    );
    let unclear = met && of.share_ci95[0] < of.at_least;
    if unclear {
        text += " They are too few to be sure of it.";
    }
    statement(&of.id, !met, text).unclear_if(unclear)
}

fn robustness(suite: &Suite) -> Statement {
    let mut worst: Vec<&Outcome> = suite.tests.iter().filter(|test| significant_loss(test)).collect();
    worst.sort_by(|a, b| a.accuracy_points.total_cmp(&b.accuracy_points));
    let all = suite.tests.len();
    if worst.is_empty() {
        let open = suite.tests.iter().filter(|test| !excludes_loss(test)).count();
        let mut text = format!(
            "None of {all} changes that should not matter (blur, noise, resolution, JPEG, crop, rotation, exposure) lowers the \
             accuracy on {} by more than {SMALL_LOSS:.0} points, beyond chance.",
            count(suite.n, "image")
        );
        if open > 0 {
            text += &format!(" For {open} of them the images are too few to exclude it.");
        }
        return statement("robustness", false, text).unclear_if(open > 0);
    }
    let named: Vec<String> = worst
        .iter()
        .take(WORST)
        .map(|test| {
            format!("{} ({} points)", test.title.to_lowercase().replace("jpeg", "JPEG"), points(test.accuracy_points))
        })
        .collect();
    let text = format!(
        "Of {all} changes that should not matter {} lower{} the accuracy on {} by more than {SMALL_LOSS:.0} points, beyond \
         chance; worst: {}.",
        worst.len(),
        if worst.len() == 1 { "s" } else { "" },
        count(suite.n, "image"),
        named.join(", ")
    );
    statement("robustness", true, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::intervals::wilson;

    fn outcome(id: &str, hits: usize, n: usize, points: f64) -> Outcome {
        Outcome {
            id: id.into(),
            title: "Blur".into(),
            accuracy: hits as f64 / n as f64,
            accuracy_ci95: wilson(hits, n),
            accuracy_points: points,
            accuracy_points_ci95: Some([points - 1.0, points + 1.0]),
            balanced_accuracy: 0.25,
            balanced_accuracy_ci95: Some([0.25; 2]),
            recalls: [None; 4],
            abstained: 0.0,
            reported_accuracy: None,
        }
    }

    fn suite(tests: Vec<Outcome>) -> Suite {
        let undisturbed = outcome("undisturbed", 190, 200, 0.0);
        Suite { n: 200, of: 500, seed: 1, chance: 0.4, balanced_chance: 0.25, undisturbed, tests }
    }

    #[test]
    fn words_follow_the_figures() {
        let suite_of = |hits| suite(vec![outcome("border_alone", hits, 200, -30.0)]);
        let said = |hits| border_alone(&suite_of(hits), &suite_of(hits).tests[0]);
        assert!(
            said(116).concern && said(116).text.contains("58.0\u{a0}%") && said(116).text.contains("recognises where")
        );
        assert!(!said(84).concern && said(84).text.contains("guessing."), "42 % of 200 is chance: {}", said(84).text);

        // No more accurate than who always says "normal", but right on the other classes too often for a guess.
        let mut hidden = suite_of(84);
        hidden.tests[0].balanced_accuracy_ci95 = Some([0.28, 0.38]);
        assert!(border_alone(&hidden, &hidden.tests[0]).concern);

        let whole = suite(Vec::new());
        assert!(centre_alone(&whole, &outcome("centre_alone", 150, 200, -20.0)).concern);
        let said = |points| {
            let said = centre_alone(&whole, &outcome("centre_alone", 188, 200, points));
            (said.concern, said.unclear, said.text.contains("does not need"), said.text.contains("too few to tell"))
        };
        assert_eq!(said(-0.5), (false, false, true, false));
        // An interval from −2.5 to −0.5 excludes neither that nothing is lost worth a word, nor that something is.
        assert_eq!(said(-1.5), (false, true, false, true));
        let mut unknown = outcome("centre_alone", 188, 200, -0.5);
        unknown.accuracy_points_ci95 = None;
        assert!(centre_alone(&whole, &unknown).unclear);

        let calm = suite(vec![outcome("blur_1", 189, 200, -0.5), outcome("blur_2", 195, 200, 2.5)]);
        assert!(!robustness(&calm).concern && !robustness(&calm).unclear);
        let open = suite(vec![outcome("blur_1", 189, 200, -0.5), outcome("blur_2", 187, 200, -1.5)]);
        assert!(robustness(&open).unclear && robustness(&open).text.contains("For 1 of them"));
        let shaken = suite(vec![outcome("blur_1", 150, 200, -20.0), outcome("blur_2", 189, 200, -0.5)]);
        assert!(
            robustness(&shaken).text.contains("1 lowers") && robustness(&shaken).text.contains("blur (−20.0 points)")
        );

        let stopped = |hits, n| {
            let (share, share_ci95) = (hits as f64 / n as f64, wilson(hits, n));
            let (id, title) = ("negatives".into(), "Other pictures".into());
            let (reasons, judged) = (Default::default(), Vec::new());
            let of = Rejection {
                id,
                title,
                n,
                refused: 0,
                abstained: hits,
                share,
                share_ci95,
                at_least: 0.95,
                reasons,
                judged,
            };
            let said = rejection(&of);
            (said.concern, said.unclear)
        };
        assert_eq!(
            [stopped(380, 380), stopped(38, 38), stopped(30, 38)],
            [(false, false), (false, true), (true, false)]
        );
    }
}
