//! Principal components of vectors about one mean a class: what [`Subspace`] and the pose classifier are fitted with.
//! Deterministic: sums are taken in a fixed order whatever the number of threads.

use crate::random::SplitMix;
use anyhow::{Result, anyhow, ensure};
use rayon::prelude::*;
use roentgen::assess::gates::Subspace;

/// Vectors whose products are summed by one thread.
const CHUNK: usize = 512;
/// Directions beyond those asked for: they make the iteration converge faster.
const SPARE: usize = 8;
/// Steps of the orthogonal iteration. The last directions need not be exact: what they miss counts as residual.
const STEPS: usize = 40;
/// The least variance, where the data has none.
const FLOOR: f64 = 1e-9;

/// Means, the directions of greatest variance about them (orthonormal) and the variances, greatest first.
pub(crate) struct Principal {
    /// One a class.
    pub(crate) means: Vec<Vec<f64>>,
    /// At most as many as asked for.
    pub(crate) components: Vec<Vec<f64>>,
    /// Along each component.
    pub(crate) variances: Vec<f64>,
    /// The mean variance in all other directions.
    pub(crate) residual: f64,
}

impl Principal {
    /// Of `rows`, all of one length, of which `classes` gives the class, 0 to below `count`. At most `wanted` components, and
    /// no more than half the dimensions or an eighth of the rows bear.
    pub(crate) fn of(rows: &[Vec<f32>], classes: &[usize], count: usize, wanted: usize) -> Result<Self> {
        let width = rows.first().map_or(0, Vec::len);
        ensure!(width > 0 && rows.len() == classes.len(), "no vectors to fit a gate to");
        let means = means(rows, classes, count, width);
        let covariance = covariance(rows, classes, &means, width);
        let wanted = wanted.min(width / 2).min(rows.len() / 8).max(1);
        let (components, variances) = leading(&covariance, width, wanted);
        let trace: f64 = (0..width).map(|i| covariance[i * width + i]).sum();
        let others = (width - variances.len()).max(1) as f64;
        let residual = ((trace - variances.iter().sum::<f64>()) / others).max(FLOOR);
        let variances = variances.into_iter().map(|variance| variance.max(residual)).collect();
        Ok(Self { means, components, variances, residual })
    }

    /// The same as the gate that a box runs.
    pub(crate) fn subspace(&self) -> Result<Subspace> {
        let single = |rows: &[Vec<f64>]| rows.iter().flatten().map(|&value| value as f32).collect::<Vec<_>>();
        let variances = self.variances.iter().map(|&variance| variance as f32).collect();
        let width = self.means.first().map_or(0, Vec::len);
        Subspace::new(width, single(&self.means), single(&self.components), variances, self.residual as f32)
            .map_err(|reason| anyhow!("a gate could not be fitted: {reason}"))
    }
}

/// A class without rows gets the mean of all.
fn means(rows: &[Vec<f32>], classes: &[usize], count: usize, width: usize) -> Vec<Vec<f64>> {
    let mean = |wanted: Option<usize>| {
        let chosen = || rows.iter().zip(classes).filter(|(_, class)| wanted.is_none_or(|wanted| **class == wanted));
        let mut sum = vec![0.0; width];
        for (row, _) in chosen() {
            sum.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let n = chosen().count();
        (n > 0).then(|| sum.into_iter().map(|sum| sum / n as f64).collect::<Vec<f64>>())
    };
    let all = mean(None).unwrap_or_else(|| vec![0.0; width]);
    (0..count).map(|class| mean(Some(class)).unwrap_or_else(|| all.clone())).collect()
}

/// The covariance within classes, `width` × `width`.
fn covariance(rows: &[Vec<f32>], classes: &[usize], means: &[Vec<f64>], width: usize) -> Vec<f64> {
    let parts: Vec<Vec<f64>> = rows
        .par_chunks(CHUNK)
        .zip(classes.par_chunks(CHUNK))
        .map(|(rows, classes)| {
            let mut sum = vec![0.0; width * width];
            for (row, &class) in rows.iter().zip(classes) {
                let centred: Vec<f64> = row.iter().zip(&means[class]).map(|(&x, mean)| f64::from(x) - mean).collect();
                for (i, &x) in centred.iter().enumerate() {
                    let line = &mut sum[i * width..][..width];
                    line[i..].iter_mut().zip(&centred[i..]).for_each(|(sum, y)| *sum += x * y);
                }
            }
            sum
        })
        .collect();
    let mut out = vec![0.0; width * width];
    for i in 0..width {
        for j in i..width {
            let value = parts.iter().map(|part| part[i * width + j]).sum::<f64>() / rows.len() as f64;
            out[i * width + j] = value;
            out[j * width + i] = value;
        }
    }
    out
}

/// The `wanted` eigenvectors of greatest eigenvalue of a symmetric matrix, and the eigenvalues: orthogonal iteration, then
/// Rayleigh and Ritz (Golub and Van Loan, Matrix Computations, 8.2.4 and 8.1.3).
fn leading(matrix: &[f64], width: usize, wanted: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let mut random = SplitMix::new(1);
    let many = (wanted + SPARE).min(width);
    let start = (0..many).map(|_| (0..width).map(|_| f64::from(random.normal())).collect()).collect();
    let times = |vectors: &[Vec<f64>]| -> Vec<Vec<f64>> {
        vectors.par_iter().map(|v| matrix.chunks_exact(width).map(|row| dot(row, v)).collect()).collect()
    };
    let mut basis = orthonormal(start);
    for _ in 0..STEPS {
        basis = orthonormal(times(&basis));
    }
    let image = times(&basis);
    let small: Vec<Vec<f64>> = basis.iter().map(|a| image.iter().map(|b| dot(a, b)).collect()).collect();
    let (values, vectors) = jacobi(small);
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(wanted);
    let combine = |&index: &usize| {
        let mut out = vec![0.0; width];
        for (vector, row) in basis.iter().zip(&vectors) {
            out.iter_mut().zip(vector).for_each(|(out, value)| *out += row[index] * value);
        }
        out
    };
    (order.iter().map(combine).collect(), order.iter().map(|&index| values[index].max(0.0)).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Modified Gram–Schmidt. A vector that depends on those before it becomes 0.
fn orthonormal(mut vectors: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
    for index in 0..vectors.len() {
        let (done, rest) = vectors.split_at_mut(index);
        let Some(vector) = rest.first_mut() else { break };
        let before = dot(vector, vector).sqrt();
        for other in done.iter() {
            let along = dot(vector, other);
            vector.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
        }
        let length = dot(vector, vector).sqrt();
        let scale = if length > before * 1e-10 && length > 0.0 { 1.0 / length } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= scale);
    }
    vectors
}

/// Eigenvalues and eigenvectors (in columns) of a small symmetric matrix, by Jacobi's rotations.
fn jacobi(mut a: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let n = a.len();
    let mut v: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    for _sweep in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j] * a[i][j]).sum();
        let all: f64 = (0..n).map(|i| a[i][i] * a[i][i]).sum();
        if off <= all * 1e-24 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                for row in &mut a {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                let (above, below) = a.split_at_mut(q);
                for (x, y) in above[p].iter_mut().zip(&mut below[0]) {
                    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                }
                for row in &mut v {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), v)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors that vary by 3 along (1, 1, 0, …)/√2, by 1 along the third axis and by 0.1 in all directions.
    fn sample(n: usize, width: usize) -> Vec<Vec<f32>> {
        let mut random = SplitMix::new(9);
        (0..n)
            .map(|_| {
                let mut x: Vec<f32> = (0..width).map(|_| 0.1 * random.normal()).collect();
                let (a, b) = (3.0 * random.normal() * std::f32::consts::FRAC_1_SQRT_2, random.normal());
                x[0] += 5.0 + a;
                x[1] += a;
                x[2] += b;
                x
            })
            .collect()
    }

    #[test]
    fn the_directions_of_greatest_variance_are_found() {
        let rows = sample(4000, 12);
        let found = Principal::of(&rows, &[0; 4000], 1, 2).unwrap();
        assert!((found.means[0][0] - 5.0).abs() < 0.15);
        let first = &found.components[0];
        assert!(
            (first[0].abs() - std::f64::consts::FRAC_1_SQRT_2).abs() < 0.01 && (first[0] - first[1]).abs() < 0.02,
            "{first:?}"
        );
        assert!(found.components[1][2].abs() > 0.99);
        assert!((found.variances[0] - 9.0).abs() < 0.6 && (found.variances[1] - 1.0).abs() < 0.1);
        assert!((found.residual - 0.01).abs() < 0.001);
        // Training vectors are at distance 1 on average.
        let space = found.subspace().unwrap();
        let real = |row: &Vec<f32>| row.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let mean = rows.iter().map(|row| space.distance(&real(row))).sum::<f64>() / 4000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn a_difference_between_classes_is_no_variance_within_them() {
        let mut rows = sample(800, 12);
        let classes: Vec<usize> = (0..800).map(|i| i % 2).collect();
        rows.iter_mut().zip(&classes).for_each(|(row, &class)| row[7] += 100.0 * class as f32);
        let found = Principal::of(&rows, &classes, 3, 2).unwrap();
        assert!((found.means[1][7] - found.means[0][7] - 100.0).abs() < 0.1);
        assert!(found.variances[0] < 12.0, "{:?}", found.variances);
        assert!((found.means[2][7] - 50.0).abs() < 0.1, "a class without rows has the mean of all");
    }

    #[test]
    fn vectors_that_do_not_vary_still_make_a_gate() {
        let rows = vec![vec![1.0f32; 6]; 16];
        let space = Principal::of(&rows, &[0; 16], 1, 4).unwrap().subspace().unwrap();
        assert!(space.distance(&[1.0; 6]) < 1e-6 && space.distance(&[2.0; 6]) > 1e6);
    }
}
