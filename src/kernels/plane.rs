//! The geometry of activations: blocks of 32 channels, each with a border of one pixel. Not the bytes themselves, which
//! lie in an arena of [`crate::network`].

use super::BLOCK;

/// The shape of a plane. Offsets are in bytes from the plane's first byte; the picture stands in [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// Rows, the border not counted.
    pub rows: usize,
    /// Columns, the border not counted.
    pub columns: usize,
    /// Channels in use; those that fill up the last block hold whatever a kernel made of zero weights.
    pub channels: usize,
}

impl Plane {
    /// Blocks of 32 channels.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(BLOCK)
    }

    /// Bytes from a row to the next.
    pub fn row_bytes(&self) -> usize {
        (self.columns + 2) * BLOCK
    }

    /// Bytes from a block to the next.
    pub fn block_bytes(&self) -> usize {
        (self.rows + 2) * self.row_bytes()
    }

    /// Bytes after the last block that a kernel may read: the tiles of 4 × 4 outputs and of 32 pixels reach up to three
    /// rows below the border, and beyond the end of the last of them.
    pub fn slack(&self) -> usize {
        4 * self.row_bytes() + 40 * BLOCK
    }

    /// All bytes, slack included.
    pub fn bytes(&self) -> usize {
        self.blocks() * self.block_bytes() + self.slack()
    }

    /// Where the window of the pixel (`row`, 0) begins in a block: for a 3 × 3 kernel its top left neighbour, for 1 × 1 the
    /// pixel itself.
    pub fn window(&self, block: usize, row: usize, kernel: usize) -> usize {
        let inset = usize::from(kernel == 1);
        block * self.block_bytes() + (row + inset) * self.row_bytes() + inset * BLOCK
    }

    /// Where the pixel (`row`, 0) of a block is.
    pub fn pixel(&self, block: usize, row: usize) -> usize {
        self.window(block, row, 1)
    }

    /// Fills the border of every block with `zero_point`.
    pub fn fill_border(&self, bytes: &mut [u8], zero_point: u8) {
        for block in bytes.chunks_exact_mut(self.block_bytes()).take(self.blocks()) {
            self.fill_border_of_rows(0, block, zero_point);
        }
    }

    /// Fills what belongs to the border in some whole rows of one block. Rows are counted from the border's first.
    pub fn fill_border_of_rows(&self, first: usize, rows: &mut [u8], zero_point: u8) {
        let row_bytes = self.row_bytes();
        for (row, bytes) in (first..).zip(rows.chunks_exact_mut(row_bytes)) {
            if row == 0 || row == self.rows + 1 {
                bytes.fill(zero_point);
            } else {
                bytes[..BLOCK].fill(zero_point);
                bytes[row_bytes - BLOCK..].fill(zero_point);
            }
        }
    }

    /// The plane's channels in NHWC order, appended to `nhwc`.
    pub fn unpack(&self, bytes: &[u8], nhwc: &mut Vec<u8>) {
        for row in 0..self.rows {
            for column in 0..self.columns {
                for block in 0..self.blocks() {
                    let at = self.pixel(block, row) + column * BLOCK;
                    let channels = (self.channels - block * BLOCK).min(BLOCK);
                    nhwc.extend_from_slice(&bytes[at..at + channels]);
                }
            }
        }
    }

    /// Writes an image (NHWC, rows × columns × channels) into the plane's pixels. Neither border nor padding channels.
    pub fn pack(&self, nhwc: &[u8], bytes: &mut [u8]) {
        for (index, pixel) in nhwc.chunks_exact(self.channels.max(1)).enumerate().take(self.rows * self.columns) {
            let (row, column) = (index / self.columns, index % self.columns);
            for (block, channels) in pixel.chunks(BLOCK).enumerate() {
                let at = self.pixel(block, row) + column * BLOCK;
                bytes[at..at + channels.len()].copy_from_slice(channels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_and_unpacking_give_the_image_back_and_the_border_lies_around_it() {
        let plane = Plane { rows: 3, columns: 2, channels: 35 };
        let image: Vec<u8> = (0..3 * 2 * 35).map(|i| (i % 199) as u8).collect();
        let mut bytes = vec![255; plane.bytes()];
        plane.fill_border(&mut bytes, 200);
        plane.pack(&image, &mut bytes);
        let mut back = Vec::new();
        plane.unpack(&bytes, &mut back);
        assert_eq!(back, image);
        let border = bytes.iter().filter(|&&byte| byte == 200).count();
        assert_eq!(border, 2 * (5 * 4 - 3 * 2) * BLOCK);
        assert_eq!(bytes[plane.window(1, 0, 3)], 200);
        assert_eq!(bytes[plane.pixel(1, 2)], image[(2 * 2) * 35 + 32]);
    }
}
