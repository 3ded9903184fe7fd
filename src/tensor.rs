//! `Tensor<T>`: a contiguous block of numbers with its shape. Not a tensor library: no views, no strides, no broadcasting.

/// A contiguous tensor in NHWC order: batch, rows, columns, channels; the channel index runs fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    shape: [usize; 4],
    data: Vec<T>,
}

impl<T> Tensor<T> {
    /// Wraps `data` as a tensor of `shape` (NHWC). `None` when the lengths disagree.
    pub fn new(shape: [usize; 4], data: Vec<T>) -> Option<Self> {
        let expected = shape.iter().try_fold(1usize, |product, &extent| product.checked_mul(extent))?;
        (expected == data.len()).then_some(Self { shape, data })
    }

    /// Batch, rows, columns, channels.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// All elements, channel index fastest.
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// Gives the elements back.
    pub fn into_data(self) -> Vec<T> {
        self.data
    }
}

impl<T: Clone> Tensor<T> {
    /// A tensor of `shape` (NHWC) whose elements all equal `value`.
    pub fn filled(shape: [usize; 4], value: T) -> Self {
        Self { shape, data: vec![value; shape.iter().product()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_disagrees_with_the_shape_is_refused() {
        assert!(Tensor::new([1, 2, 2, 3], vec![0u8; 12]).is_some());
        assert!(Tensor::new([1, 2, 2, 3], vec![0u8; 11]).is_none());
        assert!(Tensor::new([usize::MAX, 2, 1, 1], vec![0u8; 2]).is_none());
    }
}
