//! The same figures for parts of the images: by population, by source. And what a model would reach that saw nothing but
//! the source.

use super::intervals::{Interval, wilson};
use super::{Answers, Judged};
use crate::metrics::{Metrics, ratio};
use roentgen::report::{Decision, Label};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The share of paediatric normal radiographs that may be called viral pneumonia, which in public data is a disease of
/// children only.
pub(crate) const PAEDIATRIC_LIMIT: f64 = 0.05;

/// The figures of one group of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its images.
    pub(crate) n: usize,
    /// Share of them that int8 judges right.
    pub(crate) accuracy: f64,
    /// Wilson interval of it.
    pub(crate) accuracy_ci95: Interval,
    /// Share of them that the float model judges right, where it was run.
    pub(crate) float_accuracy: Option<f64>,
    /// Wilson interval of it.
    pub(crate) float_accuracy_ci95: Option<Interval>,
    /// Share of them that the box abstains on.
    pub(crate) abstained: f64,
    /// Recall of each class that the group holds.
    pub(crate) classes: Vec<GroupClass>,
}

/// One class within a group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupClass {
    /// Which class.
    pub(crate) label: Label,
    /// Its images in the group.
    pub(crate) n: usize,
    /// Share of them that int8 finds.
    pub(crate) recall: f64,
    /// Wilson interval of it.
    pub(crate) recall_ci95: Interval,
    /// Share of them that the float model finds, where it was run.
    #[serde(default)]
    pub(crate) float_recall: Option<f64>,
    /// Wilson interval of it.
    #[serde(default)]
    pub(crate) float_recall_ci95: Option<Interval>,
}

/// How often something happened.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// Images looked at.
    pub(crate) n: usize,
    /// Those on which it happened.
    pub(crate) hits: usize,
    /// Their share.
    pub(crate) share: f64,
    /// Wilson interval of it.
    pub(crate) share_ci95: Interval,
    /// The most that is accepted.
    pub(crate) limit: f64,
}

/// What naming each source's most frequent class would reach: above this, accuracy on these images cannot tell the
/// disease from the source.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct SourceAlone {
    /// How many sources there are.
    pub(crate) sources: usize,
    /// How many of them hold images of one class only.
    pub(crate) of_one_class: usize,
    /// The accuracy.
    pub(crate) accuracy: f64,
}

/// The figures of every group; `names` has one entry an image, `None` where its group is not known.
pub(crate) fn groups(judged: &Judged, answers: &Answers, names: &[Option<String>]) -> BTreeMap<String, Group> {
    members(names).into_iter().map(|(name, members)| (name, group(judged, answers, &members))).collect()
}

/// The numbers of the images of every group.
fn members(names: &[Option<String>]) -> BTreeMap<String, Vec<usize>> {
    let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(name) = name {
            members.entry(name.clone()).or_default().push(index);
        }
    }
    members
}

fn group(judged: &Judged, answers: &Answers, members: &[usize]) -> Group {
    let count = |said: &[Label]| Metrics::count(members.iter().map(|&index| (answers.truth[index], said[index])));
    let int8 = count(&answers.int8);
    let float = answers.float.as_deref().map(count);
    let abstains = |index: &&usize| matches!(judged.int8[**index].decision, Decision::Abstained { .. });
    let classes = int8.classes.iter().filter(|class| class.n > 0).map(|class| GroupClass {
        label: class.label,
        n: class.n,
        recall: class.recall,
        recall_ci95: class.recall_ci95,
        float_recall: float.as_ref().map(|float| float.classes[class.label as usize].recall),
        float_recall_ci95: float.as_ref().map(|float| float.classes[class.label as usize].recall_ci95),
    });
    Group {
        n: int8.n,
        accuracy: int8.accuracy,
        accuracy_ci95: int8.accuracy_ci95,
        float_accuracy: float.as_ref().map(|float| float.accuracy),
        float_accuracy_ci95: float.as_ref().map(|float| float.accuracy_ci95),
        abstained: ratio(members.iter().filter(abstains).count(), members.len()),
        classes: classes.collect(),
    }
}

/// How often a normal radiograph of a child is called viral pneumonia, whether or not the box would report it; `None`
/// where the data name no such image.
pub(crate) fn paediatric_normals(judged: &Judged, answers: &Answers) -> Option<Rate> {
    let of_children = |index: &usize| {
        answers.truth[*index] == Label::Normal
            && judged.samples[*index].population.as_deref().is_some_and(|population| population.starts_with("paed"))
    };
    let children: Vec<usize> = (0..judged.samples.len()).filter(of_children).collect();
    let (n, hits) =
        (children.len(), children.iter().filter(|&&index| answers.int8[index] == Label::ViralPneumonia).count());
    let rate = Rate { n, hits, share: ratio(hits, n), share_ci95: wilson(hits, n), limit: PAEDIATRIC_LIMIT };
    (n > 0).then_some(rate)
}

/// `None` where fewer than two sources are known.
pub(crate) fn source_alone(truth: &[Label], sources: &[Option<String>]) -> Option<SourceAlone> {
    let members = members(sources);
    let counts = members.values().map(|members| {
        let mut counts = [0usize; 4];
        members.iter().for_each(|&index| counts[truth[index] as usize] += 1);
        counts
    });
    let counts: Vec<[usize; 4]> = counts.collect();
    let right: usize = counts.iter().map(|counts| counts.iter().copied().max().unwrap_or(0)).sum();
    let of_one_class = counts.iter().filter(|counts| counts.iter().filter(|&&count| count > 0).count() == 1).count();
    let known = sources.iter().flatten().count();
    (counts.len() > 1).then(|| SourceAlone { sources: counts.len(), of_one_class, accuracy: ratio(right, known) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_alone_names_the_most_frequent_class_of_each() {
        let truth = [Label::Covid, Label::Covid, Label::Normal, Label::Normal, Label::Covid];
        let sources = ["a", "a", "a", "b", "?"].map(|name| (name != "?").then(|| name.to_owned()));
        let found = source_alone(&truth, &sources).unwrap();
        assert_eq!((found.sources, found.of_one_class, found.accuracy), (2, 1, 0.75));
        assert_eq!(source_alone(&truth[..2], &sources[..2]), None);
    }
}
