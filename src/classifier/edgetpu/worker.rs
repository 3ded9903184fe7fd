//! The accelerator's process: takes its job, loads libraries and model, tries the golden vectors, then answers images until
//! the daemon closes the connection. Writes no file and no log; whatever it says goes over the socket.

use super::ffi::Interpreter;
use super::wire::{self, Answer, Job, MAX_MODEL, MAX_TEXT};
use crate::bundle::Output;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// A golden vector as it travels.
struct Golden {
    image: Vec<u8>,
    evidence: Vec<u8>,
    features: Vec<u8>,
}

/// Serves what comes over standard input, which is a socket, until that is closed.
pub fn serve() -> io::Result<()> {
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let Some(job) = wire::receive(&mut stream, MAX_TEXT)? else { return Ok(()) };
    let job: Job = serde_json::from_slice(&job)?;
    let model = expect(&mut stream, MAX_MODEL)?;
    let mut golden = Vec::new();
    for _ in 0..job.golden {
        golden.push(Golden {
            image: expect(&mut stream, job.size * job.size)?,
            evidence: expect(&mut stream, length(&job.outputs.evidence))?,
            features: expect(&mut stream, length(&job.outputs.features))?,
        });
    }
    let (mut interpreter, largest_difference) = match prepared(&job, model, &golden) {
        Ok(prepared) => prepared,
        Err(reason) => return wire::say(&mut stream, &Answer::Failed(reason)),
    };
    drop(golden);
    let version = interpreter.version().to_owned();
    wire::say(&mut stream, &Answer::Ready { version, largest_difference })?;
    while let Some(image) = wire::receive(&mut stream, job.size * job.size)? {
        match interpreter.run(&image) {
            Ok((evidence, features)) => {
                wire::say(&mut stream, &Answer::Done)?;
                wire::send(&mut stream, &evidence)?;
                wire::send(&mut stream, &features)?;
            }
            Err(reason) => wire::say(&mut stream, &Answer::Failed(reason))?,
        }
    }
    Ok(())
}

/// The bytes of an output.
pub(super) fn length(output: &Output) -> usize {
    output.rows * output.columns * output.channels
}

fn expect(stream: &mut UnixStream, most: usize) -> io::Result<Vec<u8>> {
    wire::receive(stream, most)?
        .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "a job that ends too early"))
}

/// The model, with its greatest difference from the golden outputs: a device or driver that computes something else must
/// judge nobody.
fn prepared(job: &Job, model: Vec<u8>, golden: &[Golden]) -> Result<(Interpreter, u8), String> {
    let mut interpreter = Interpreter::new(job, model)?;
    let mut largest = 0;
    for Golden { image, evidence, features } in golden {
        let (found_evidence, found_features) = interpreter.run(image)?;
        for (found, expected) in [(found_evidence, evidence), (found_features, features)] {
            let steps = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
            largest = largest.max(steps);
        }
    }
    if largest > job.tolerance {
        return Err(format!(
            "it computes something else than the bundle says: golden outputs differ by up to {largest} quantization steps, \
             and accelerator.tolerance allows {}",
            job.tolerance
        ));
    }
    Ok((interpreter, largest))
}
