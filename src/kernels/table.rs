//! The table of kernels, and which of them this processor runs: the one place where instruction sets are detected.

use super::ceiling::{self, Ceiling};
use super::direct::{self, Direct};
use super::first::{self, First};
use super::winograd::{self, Winograd};

/// The kernels of one instruction set.
#[derive(Debug)]
pub struct Kernels {
    /// The name that configuration, log and `bench --kernel` use.
    pub name: &'static str,
    /// The first layer.
    pub first: First,
    /// Direct convolution.
    pub direct: Direct,
    /// Winograd convolution; the planner takes the first whose condition a layer's weights meet.
    pub winograd: &'static [Winograd],
    /// What one core could multiply at best.
    pub ceiling: Ceiling,
    /// Whether this processor has the instructions.
    detected: fn() -> bool,
}

/// AVX-512 VNNI: Intel since Ice Lake (servers and some of the desktop), AMD since Zen 4.
#[cfg(target_arch = "x86_64")]
static AVX512_VNNI: Kernels = Kernels {
    name: "avx512vnni",
    first: first::avx512vnni::FIRST,
    direct: direct::avx512vnni::DIRECT,
    winograd: &[winograd::avx512vnni::F4],
    ceiling: ceiling::avx512vnni::CEILING,
    detected: || {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
    },
};

/// AVX-VNNI, 256 bits: Intel's processors since 2021 that have no AVX-512, small ones among them.
#[cfg(target_arch = "x86_64")]
static AVX_VNNI: Kernels = Kernels {
    name: "avxvnni",
    first: first::avx2::FIRST,
    direct: direct::avxvnni::DIRECT,
    winograd: &[winograd::avxvnni::F4],
    ceiling: ceiling::avxvnni::CEILING,
    detected: || is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("avx2"),
};

/// Plain Rust, on every processor: what the others are compared with, and what is left where none of them runs.
static PORTABLE: Kernels = Kernels {
    name: "portable",
    first: first::portable::FIRST,
    direct: direct::portable::DIRECT,
    winograd: &[winograd::portable::F4, winograd::portable::F2],
    ceiling: ceiling::portable::CEILING,
    detected: || true,
};

/// x86-64 of the last ten years: products of i16, since those of bytes saturate.
#[cfg(target_arch = "x86_64")]
static AVX2: Kernels = Kernels {
    name: "avx2",
    first: first::avx2::FIRST,
    direct: direct::avx2::DIRECT,
    winograd: &[winograd::avx2::F4, winograd::avx2::F2],
    ceiling: ceiling::avx2::CEILING,
    detected: || is_x86_feature_detected!("avx2"),
};

/// Plain NEON, which every 64-bit ARM processor has: cortex-a53, a57, a72.
#[cfg(target_arch = "aarch64")]
static NEON: Kernels = Kernels {
    name: "neon",
    first: first::neon::FIRST,
    direct: direct::neon::DIRECT,
    // What F(4 × 4) refuses direct convolution does faster than F(2 × 2) in plain Rust.
    winograd: &[winograd::neon::F4],
    ceiling: ceiling::neon::NEON,
    detected: || std::arch::is_aarch64_feature_detected!("neon"),
};

/// NEON with dot products: cortex-a55, a75 to a78, neoverse-n1.
#[cfg(target_arch = "aarch64")]
static NEON_DOT: Kernels = Kernels {
    name: "neon_dot",
    first: first::neon_dot::FIRST,
    direct: direct::neon_dot::DIRECT,
    ceiling: ceiling::neon::DOT,
    detected: || (NEON.detected)() && std::arch::is_aarch64_feature_detected!("dotprod"),
    ..NEON
};

/// NEON with products of matrices: cortex-a510 and a710 on, neoverse-n2 and v1.
#[cfg(target_arch = "aarch64")]
static NEON_I8MM: Kernels = Kernels {
    name: "neon_i8mm",
    first: first::neon_dot::FIRST,
    direct: direct::neon_i8mm::DIRECT,
    ceiling: ceiling::neon::I8MM,
    detected: || (NEON_DOT.detected)() && std::arch::is_aarch64_feature_detected!("i8mm"),
    ..NEON
};

/// All kernels that this program was built with, the fastest first.
static TABLE: &[&Kernels] = &[
    #[cfg(target_arch = "x86_64")]
    &AVX512_VNNI,
    #[cfg(target_arch = "x86_64")]
    &AVX_VNNI,
    #[cfg(target_arch = "x86_64")]
    &AVX2,
    #[cfg(target_arch = "aarch64")]
    &NEON_I8MM,
    #[cfg(target_arch = "aarch64")]
    &NEON_DOT,
    #[cfg(target_arch = "aarch64")]
    &NEON,
    &PORTABLE,
];

/// The kernels that this processor runs, the fastest first; never empty, since the portable ones run everywhere.
pub fn available() -> impl Iterator<Item = &'static Kernels> {
    TABLE.iter().copied().filter(|kernels| (kernels.detected)())
}

/// The kernels of that name, if this program was built with them and this processor runs them.
pub fn named(name: &str) -> Option<&'static Kernels> {
    available().find(|kernels| kernels.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portable_kernels_are_always_there_and_last() {
        let names: Vec<&str> = available().map(|kernels| kernels.name).collect();
        println!("kernels on this processor: {}", names.join(" "));
        assert_eq!(names.last(), Some(&"portable"));
        assert!(names.iter().all(|name| named(name).is_some_and(|kernels| kernels.name == *name)));
    }

    /// A slip in a detection would take its kernels from the tests as well as from the program, and nothing else would fail.
    /// (On ARM `tests/arm` expects certain kernels of certain processors.)
    #[cfg(all(target_os = "linux", target_arch = "x86_64", not(miri)))]
    #[test]
    fn what_is_detected_is_what_linux_says_of_this_processor() {
        let text = std::fs::read_to_string("/proc/cpuinfo").expect("Linux describes its processors");
        let flags =
            text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':')).expect("a line of flags").1;
        let all = |wanted: &[&str]| wanted.iter().all(|wanted| flags.split_whitespace().any(|flag| flag == *wanted));
        let expected = [
            ("avx512vnni", all(&["avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"])),
            ("avxvnni", all(&["avx_vnni", "avx2"])),
            ("avx2", all(&["avx2"])),
            ("portable", true),
        ];
        let expected: Vec<&str> = expected.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        let found: Vec<&str> = available().map(|kernels| kernels.name).collect();
        assert_eq!(found, expected);
    }
}
