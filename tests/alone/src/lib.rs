//! The kernels, the network and what they stand on, by their paths in the main package; see `Cargo.toml`. No code of its
//! own.

#[path = "../../../src/kernels/mod.rs"]
pub mod kernels;
#[path = "../../../src/network/mod.rs"]
pub mod network;
#[path = "../../../src/plain_file.rs"]
pub mod plain_file;
#[path = "../../../src/quant.rs"]
pub mod quant;
#[path = "../../../src/tensor.rs"]
pub mod tensor;
#[path = "../../../src/workers/mod.rs"]
pub mod workers;

/// Stands for the main package's `report`, of which the network's writer wants the notice only.
pub mod report {
    /// What the written file says of itself.
    pub const NOTICE: &str = "Screens, never diagnoses.";
}
