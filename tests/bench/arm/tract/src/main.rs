//! Runs an ONNX model with tract on one thread, so that its guest instructions can be counted. Not a benchmark of time, and
//! not the backend `onnx`, whose way to call tract it repeats.
//!
//! Usage: tract-peer MODEL.onnx IMAGE.u8 TIMES OUTPUT. It prints a line after each inference. The smallest output (the evidence map) goes to OUTPUT as NHWC.

use std::error::Error;
use tract_onnx::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image, times, output] = &arguments[..] else {
        return Err("usage: tract-peer MODEL.onnx IMAGE.u8 TIMES OUTPUT".into());
    };
    let image = std::fs::read(image)?;
    let size = image.len().isqrt();
    let plan = tract_onnx::onnx()
        .model_for_path(model)?
        .with_input_fact(0, u8::fact([1, 1, size, size]).into())?
        .into_optimized()?
        .into_runnable()?;
    let mut outputs = TVec::new();
    for _ in 0..times.parse::<usize>()? {
        let input = Tensor::from_shape(&[1, 1, size, size], &image)?;
        outputs = plan.run(tvec!(input.into_tvalue()))?;
        println!("inference");
    }
    let evidence = outputs.iter().min_by_key(|tensor| tensor.len()).ok_or("no inference, no output")?;
    let nhwc = evidence.to_plain_array_view::<u8>()?.permuted_axes(&[0, 2, 3, 1][..]);
    std::fs::write(output, nhwc.iter().copied().collect::<Vec<u8>>())?;
    Ok(())
}
