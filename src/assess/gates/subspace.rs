//! How far a vector lies from those a model was fitted on: probabilistic principal component analysis (Tipping and Bishop
//! 1999) about one mean, or about the nearest of several, which is the class-conditional Mahalanobis distance with a
//! shared covariance (Lee et al. 2018) in low-rank form. Not the fitting, which the host does.

/// Means, the directions in which the fitted vectors vary most, and how much they vary in those and in all others.
#[derive(Debug, Clone, PartialEq)]
pub struct Subspace {
    dimensions: usize,
    /// One row of `dimensions` a mean.
    means: Vec<f32>,
    /// One row of `dimensions` a component; orthonormal, as fitted.
    components: Vec<f32>,
    /// Variance along each component.
    variances: Vec<f32>,
    /// Variance in every direction beside the components.
    residual: f32,
}

impl Subspace {
    /// From means (rows of `dimensions`), components (likewise), their variances and the variance beside them. What does
    /// not fit together, is not finite, or a variance that is not above 0 is refused with the reason.
    pub fn new(
        dimensions: usize,
        means: Vec<f32>,
        components: Vec<f32>,
        variances: Vec<f32>,
        residual: f32,
    ) -> Result<Self, String> {
        if dimensions == 0 || means.is_empty() || !means.len().is_multiple_of(dimensions) {
            return Err(format!("{} means of {dimensions} dimensions", means.len()));
        }
        if Some(components.len()) != variances.len().checked_mul(dimensions) || variances.len() > dimensions {
            let (found, count) = (components.len(), variances.len());
            return Err(format!("{count} components of {dimensions} dimensions, but {found} numbers for them"));
        }
        if !means.iter().chain(&components).all(|value| value.is_finite()) {
            return Err("a number that is not finite".into());
        }
        if !variances.iter().chain([&residual]).all(|&variance| variance.is_normal() && variance > 0.0) {
            return Err("a variance that is not above 0".into());
        }
        Ok(Self { dimensions, means, components, variances, residual })
    }

    /// Numbers a vector must have.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Means, components, variances and the residual variance, as given to [`Subspace::new`].
    pub fn parts(&self) -> (&[f32], &[f32], &[f32], f32) {
        (&self.means, &self.components, &self.variances, self.residual)
    }

    /// The squared Mahalanobis distance of `x` from the nearest mean, divided by the number of dimensions: 1 on average over
    /// what was fitted on. Infinite for a vector of another length.
    pub fn distance(&self, x: &[f64]) -> f64 {
        if x.len() != self.dimensions {
            return f64::INFINITY;
        }
        let from = |mean: &[f32]| {
            let centred: Vec<f64> = x.iter().zip(mean).map(|(x, &mean)| x - f64::from(mean)).collect();
            let mut beside: f64 = centred.iter().map(|value| value * value).sum();
            let mut within = 0.0;
            for (component, &variance) in self.components.chunks_exact(self.dimensions).zip(&self.variances) {
                let along: f64 = centred.iter().zip(component).map(|(value, &part)| value * f64::from(part)).sum();
                within += along * along / f64::from(variance);
                beside -= along * along;
            }
            (within + beside.max(0.0) / f64::from(self.residual)) / self.dimensions as f64
        };
        self.means.chunks_exact(self.dimensions).map(from).fold(f64::INFINITY, f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_distance_is_that_of_the_definition() {
        // Two means; variance 4 along x, 0.25 beside it (y and z).
        let means = vec![0.0, 0.0, 0.0, 10.0, 0.0, 0.0];
        let space = Subspace::new(3, means, vec![1.0, 0.0, 0.0], vec![4.0], 0.25).expect("sound");
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(space.distance(&[2.0, 0.5, 0.0]), (1.0 + 1.0) / 3.0);
        near(space.distance(&[9.0, 0.0, 0.0]), 0.25 / 3.0);
        assert_eq!(space.distance(&[1.0, 2.0]), f64::INFINITY);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let refused = |d, means: &[f32], parts: &[f32], variances: &[f32], residual| {
            Subspace::new(d, means.to_vec(), parts.to_vec(), variances.to_vec(), residual).is_err()
        };
        assert!(!refused(2, &[0.0, 0.0], &[1.0, 0.0], &[1.0], 1.0));
        assert!(refused(0, &[], &[], &[], 1.0));
        assert!(refused(2, &[0.0], &[1.0, 0.0], &[1.0], 1.0));
        assert!(refused(2, &[0.0, 0.0], &[1.0], &[1.0], 1.0));
        assert!(refused(2, &[0.0, f32::NAN], &[1.0, 0.0], &[1.0], 1.0));
        assert!(refused(2, &[0.0, 0.0], &[1.0, 0.0], &[0.0], 1.0));
        assert!(refused(2, &[0.0, 0.0], &[1.0, 0.0], &[1.0], f32::INFINITY));
        assert!(refused(1, &[0.0], &[1.0, 1.0], &[1.0, 1.0], 1.0));
    }

    proptest! {
        #[test]
        fn no_vector_is_nearer_than_its_mean(x in prop::collection::vec(-1e6f64..1e6, 4)) {
            let space = Subspace::new(4, vec![1.0; 4], vec![0.5; 4], vec![3.0], 2.0).expect("sound");
            prop_assert!(space.distance(&x) >= space.distance(&[1.0; 4]));
            prop_assert!(space.distance(&x).is_finite());
        }
    }
}
