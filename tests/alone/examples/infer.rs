//! Runs a network through the engine on one thread and prints a line after each step, so that a QEMU plugin
//! (`tests/bench/arm/count.c`) can count its instructions. Not a benchmark of time: that is `roentgend bench`.
//!
//! `infer MODEL.onnx IMAGE.u8 TIMES OUTPUT [KERNELS [FAMILY [MEMORY]]]`: the kernels' name (the best of this processor if none),
//! `any` or `direct`, `small`, `balanced` or `fast`. It prints `STEP`, tab, `KERNEL` after each step and `inference` after
//! each inference; the evidence map goes to OUTPUT, NHWC. The plan goes to standard error.

use roentgen_alone::kernels::{available, named};
use roentgen_alone::network::engine::Engine;
use roentgen_alone::network::onnx;
use roentgen_alone::network::plan::{Family, Memory, Options};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image, times, output, choices @ ..] = &arguments[..] else {
        return Err("usage: infer MODEL.onnx IMAGE.u8 TIMES OUTPUT [KERNELS [FAMILY [MEMORY]]]".into());
    };
    let kernels = choices.first().map_or_else(|| available().next(), |name| named(name));
    let mut options = Options::new(kernels.ok_or("no such kernels on this processor")?, 1);
    options.family = match choices.get(1).map(String::as_str) {
        None | Some("any") => Family::Any,
        Some("direct") => Family::Direct,
        Some(other) => return Err(format!("a family of kernels is any or direct, not {other}").into()),
    };
    options.memory = match choices.get(2).map(String::as_str) {
        None | Some("balanced") => Memory::Balanced,
        Some("small") => Memory::Small,
        Some("fast") => Memory::Fast,
        Some(other) => return Err(format!("memory is small, balanced or fast, not {other}").into()),
    };
    let network = onnx::read(&std::fs::read(model)?)?;
    let image = std::fs::read(image)?;
    let mut engine = Engine::new(&network, options, false)?;
    eprintln!("{}", engine.plan());
    let kernels: Vec<&str> = engine.plan().steps.iter().map(|step| step.work.kernel(engine.plan())).collect();
    for _ in 0..times.parse::<usize>()? {
        let mut kernels = kernels.iter();
        engine.infer_and_show(&image, &mut |step, _| {
            println!("{}\t{}", step.name, kernels.next().unwrap_or(&""));
        })?;
        println!("inference");
    }
    std::fs::write(output, engine.evidence().data())?;
    Ok(())
}
