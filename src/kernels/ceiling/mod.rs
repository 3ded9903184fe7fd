//! How fast this processor could multiply: loops of a kernel's own multiply instruction on registers only, with no load and no
//! store. Not a kernel: what kernels are measured against, since clocks and widths differ from box to box. One file per
//! instruction set.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512vnni;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avxvnni;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

/// The ceilings of one instruction set: each runs so many iterations of its loop and returns how many products it added up.
/// Divided by the time that took, that is the greatest rate one core can have.
#[derive(Debug, Clone, Copy)]
pub struct Ceiling {
    /// Products u8 × i8 of the direct kernel.
    pub direct: fn(iterations: u64) -> u64,
    /// Products i16 × i16 of Winograd's multiplication.
    pub winograd: fn(iterations: u64) -> u64,
}

#[cfg(test)]
mod tests {
    /// Only that the count follows the iterations: that a loop does what it counts shows in the time alone, which no test
    /// asserts (`bench --plan` shows kernels' shares of it: more than 100 % would give it away).
    #[test]
    fn what_a_ceiling_counts_follows_its_iterations() {
        for kernels in crate::kernels::available() {
            for ceiling in [kernels.ceiling.direct, kernels.ceiling.winograd] {
                let (once, thrice) = (ceiling(1), ceiling(3));
                assert!(once > 0 && thrice == 3 * once, "{}: {once} {thrice}", kernels.name);
            }
        }
    }
}
