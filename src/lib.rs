//! Roentgen: chest-radiograph screening on a clinic's edge box. It screens; it never diagnoses.
//!
//! # The flow
//!
//! ```text
//! file | frame | DICOM object ──Source──▶ Radiograph ──preprocess──▶ Tensor<u8> ──Classifier──▶ Evidence
//! broker ◀──Sink── Message ◀──Outbox── Report ◀──assess (calibrate, gate)──────────────────────────┘
//! ```
//!
//! A [`source::Source`] hands over a [`radiograph::Radiograph`]: one grey image in display sense (air dark, bone
//! bright) and its origin, in which no patient's name can be held. [`preprocess`] turns it into the 224 × 224 grey
//! levels that the network reads, bytes and nothing else. A [`classifier::Classifier`] returns
//! [`classifier::Evidence`]: a map of class logits and its mean. [`assess`] makes that a [`report::Report`], with
//! calibrated probabilities or an abstention that says why. The report is durable in the [`outbox`] before its file
//! leaves the drop folder, and a [`sink::Sink`] publishes it until the broker acknowledged. `src/doc/architecture.svg` draws
//! it; the pages beside that drawing are for those who use a box, not for those who change it.
//!
//! # The floors
//!
//! A module imports only from lower floors, or itself; `tests/floors.rs` enforces it.
//!
//! ```text
//! 7  pipeline      next → preprocess → classify → assess → outbox → settle
//!    web           the dashboard, /metrics and /healthz
//! 6  gallery       small copies of radiographs for the dashboard, where that is wanted
//!    config        one TOML, each module's own section, unknown keys refused
//!    status        what the box knows about itself: telemetry, health
//! 5  classifier    trait Classifier, Evidence; native (the engine), onnx (tract), tflite; edgetpu, which has a TFLite delegate
//!                  run the network in a child process, and the processor where that fails
//!    assess        Evidence → Report: calibration, the gates of abstention (quality, gates), the picture (heatmap)
//!    source        trait Source, Doors; folder; spool, for doors whose images are not files; dicom_scp, to which modalities
//!                  send; camera; decoder, which opens radiographs in a child process
//!    outbox        the durable queue (SQLite)
//!    sink          trait Sink; mqtt (3.1.1 and 5); home_assistant, what it is told; dicom_sr, which brings results back to
//!                  the PACS
//! 4  network       vgg (VGG16 as data), onnx (reading and writing), int8 (the definition of the forward pass); plan,
//!                  weights and engine, which run it on the kernels
//!    bundle        the model bundle: signature, manifest, hashes, golden vectors; the store of installed ones
//! 3  kernels       reference: the definition of every integer operation, as naive loops; direct, first and winograd, which
//!                  compute the same for one instruction set each
//! 2  preprocess    Radiograph → Tensor<u8>: the one path that training, calibration and the box share
//!    quant         scale, zero_point, Requantize: the equations, derived
//! 1  radiograph    Radiograph, Origin, open() by magic bytes; dicom, raster, phantom
//!    tensor  report  pseudonym
//! 0  plain_file    opening a named file without waiting for a pipe
//!    named_file    the certificates, keys and passwords that the configuration names
//!    process       child processes of this program: started, bounded, ended
//!    workers       a pool of threads for tasks of microseconds
//!    reload        the wish that the daemon read its configuration again
//! ```
//!
//! # Invariants
//!
//! - A file leaves `incoming/` only after its report is durable; a report is marked sent only on the broker's PubAck.
//! - An error about one image settles that image as rejected, with a reason a nurse can read, and the line goes on; an
//!   error about the daemon stops it with one clear line. The type decides.
//! - The quantized input *is* the image's bytes: there is no arithmetic between preprocessing and the first layer.
//! - Patient names and IDs are read into one sealed type of this crate, and only where `[dicom_results]` sends results back
//!   to a PACS ([`radiograph::dicom::Filing`]); else UIDs leave the radiograph floor only as keyed pseudonyms.

pub mod assess;
pub mod bundle;
pub mod classifier;
pub mod config;
pub mod gallery;
pub mod kernels;
pub mod named_file;
pub mod network;
pub mod outbox;
pub mod pipeline;
pub mod plain_file;
pub mod preprocess;
pub mod process;
pub mod pseudonym;
pub mod quant;
pub mod radiograph;
pub mod reload;
pub mod report;
pub mod sink;
pub mod source;
pub mod status;
pub mod tensor;
pub mod web;
pub mod workers;
