//! The native backend on the committed bundle and real radiographs: every byte of every layer is what the definition says,
//! and what ONNX Runtime gives at the output of every node; whatever the kernels, the memory and the number of threads.
//! Random networks are in `src/network/engine/tests.rs`. Without the radiographs phantoms take their place; without ONNX
//! Runtime that comparison is skipped; both are said.

mod common;
#[path = "common/networks.rs"]
mod networks;

use networks::{find_python, script};
use roentgen::bundle::Bundle;
use roentgen::kernels::{Kernels, available, reference};
use roentgen::network::engine::{Engine, unpack};
use roentgen::network::int8::{Layer, Network};
use roentgen::network::plan::{Family, Memory, Options};
use roentgen::preprocess::preprocess;
use roentgen::radiograph::phantom;
use roentgen::tensor::Tensor;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many radiographs of each of the four classes are compared.
const OF_EACH_CLASS: usize = 5;

fn bundle() -> Bundle {
    Bundle::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/cxr-vgg16")).expect("the committed bundle opens")
}

/// Twenty radiographs of the test split as the network sees them, or four phantoms.
fn images() -> Vec<Tensor<u8>> {
    let mut images = Vec::new();
    for class in ["covid", "lung_opacity", "normal", "viral_pneumonia"] {
        let files = common::shared_files(&format!("radiographs/test/{class}"), ".png");
        let step = (files.len() / OF_EACH_CLASS).max(1);
        for path in files.iter().step_by(step).take(OF_EACH_CLASS) {
            let radiograph = roentgen::radiograph::open(path, &Default::default(), &common::key());
            images.push(preprocess(&radiograph.unwrap_or_else(|refusal| panic!("{}: {refusal}", path.display()))));
        }
    }
    if images.is_empty() {
        images.extend((0..4).map(|seed| preprocess(&phantom::radiograph(seed, 300))));
    } else {
        assert_eq!(images.len(), 4 * OF_EACH_CLASS);
    }
    images
}

/// The kernels of this processor; the portable ones, which take seconds an image, only where there are no others.
fn kernels() -> Vec<&'static Kernels> {
    let all: Vec<_> = available().collect();
    let fast = all.iter().copied().filter(|kernels| kernels.name != "portable").collect::<Vec<_>>();
    if fast.is_empty() { all } else { fast }
}

/// Every layer's output by the definition, poolings too: its name and bytes, NHWC; the head's last.
fn layers(network: &Network, image: &Tensor<u8>) -> Vec<(String, Tensor<u8>)> {
    let mut outputs: Vec<(String, Tensor<u8>)> = Vec::new();
    let mut pools = 0;
    for layer in &network.trunk {
        let before = outputs.last().map_or(image, |(_, output)| output);
        let output = match layer {
            Layer::Conv(conv) => (conv.name.clone(), conv.forward(before).expect("a sound layer")),
            Layer::MaxPool2 => {
                pools += 1;
                (format!("pool{pools}"), reference::max_pool_2(before))
            }
        };
        outputs.push(output);
    }
    let (_, features) = outputs.last().expect("a trunk");
    let evidence = network.head.forward(features).expect("a sound head");
    outputs.push((network.head.name.clone(), evidence));
    outputs
}

/// Fails with the number of bytes that differ.
fn assert_same(what: &str, found: &Tensor<u8>, expected: &Tensor<u8>) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let different = found.data().iter().zip(expected.data()).filter(|(a, b)| a != b).count();
    assert_eq!(different, 0, "{what}: {different} of {} bytes differ", found.data().len());
}

/// The definition of every layer of every image. It takes seconds an image: they are shared out to all processors.
fn definitions(network: &Network, images: &[Tensor<u8>]) -> Vec<Vec<(String, Tensor<u8>)>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(|| {
                while let (index, Some(image)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    (index, images.get(index))
                } {
                    let layers = layers(network, image);
                    done.lock().expect("no panic before").push((index, layers));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic before");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, layers)| layers).collect()
}

#[test]
fn every_layer_is_the_definition_on_real_radiographs() {
    let (network, images) = (bundle().network().expect("a sound network"), images());
    let expected = definitions(&network, &images);
    assert_eq!(expected.len(), images.len());
    let mut compared = 0;
    let modes = [(Memory::Small, 2), (Memory::Balanced, 1), (Memory::Fast, 3)];
    let ways = [(false, Family::Any), (true, Family::Any), (true, Family::Direct)];
    for kernels in kernels() {
        for ((memory, threads), (fuse_pool, family)) in modes.into_iter().flat_map(|mode| ways.map(|way| (mode, way))) {
            let options = Options { memory, fuse_pool, family, ..Options::new(kernels, threads) };
            let mut engine = Engine::new(&network, options, false).expect("it takes the bundle");
            assert!(fuse_pool || engine.plan().steps.len() == network.trunk.len() + 1);
            for (image, expected) in images.iter().zip(&expected) {
                let mut compare = |step: &roentgen::network::plan::Step, bytes: &[u8]| {
                    // A convolution that pools gives what the pooling after it does.
                    let layer = expected.iter().position(|(layer, _)| *layer == step.name).expect("a layer");
                    let (layer, expected) = &expected[layer + usize::from(step.pool)];
                    assert_same(&format!("{}: {layer}", kernels.name), &unpack(step.output, bytes), expected);
                    compared += expected.data().len();
                };
                engine.infer_and_show(image.data(), &mut compare).expect("an image");
                assert_same(kernels.name, &engine.evidence(), &expected[expected.len() - 1].1);
                assert_same(kernels.name, &engine.features(), &expected[expected.len() - 2].1);
            }
        }
    }
    assert!(compared > 10_000_000 * images.len(), "only {compared} bytes were compared");
    println!("{compared} bytes of {} images compared, 0 differ", images.len());
}

#[test]
fn every_layer_is_what_onnx_runtime_gives_on_real_radiographs() {
    const SCRIPT: &str = "onnx_runtime.py";
    let Some(python) = find_python(SCRIPT, "onnxruntime, onnx and numpy") else { return };
    let bundle = bundle();
    let (network, images) = (bundle.network().expect("a sound network"), images());
    let options = Options { fuse_pool: false, ..Options::new(kernels()[0], 2) };
    let mut engine = Engine::new(&network, options, false).expect("it takes the bundle");
    // A few at a time: every output of one image is 14 MB.
    for images in images.chunks(OF_EACH_CLASS) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("model.onnx"), bundle.model_onnx().expect("model.onnx")).expect("writable");
        std::fs::write(path("images.u8"), images.iter().flat_map(|image| image.data().to_vec()).collect::<Vec<u8>>())
            .expect("writable");
        let mut command = Command::new(&python);
        command.arg(script(SCRIPT)).arg(path("model.onnx")).arg(path("images.u8")).arg(folder.path()).arg("--nodes");
        let output = command.output().expect("the interpreter ran before");
        assert!(output.status.success(), "ONNX Runtime: {}", String::from_utf8_lossy(&output.stderr));
        for (index, image) in images.iter().enumerate() {
            let mut steps = 0;
            let mut compare = |step: &roentgen::network::plan::Step, bytes: &[u8]| {
                let found = unpack(step.output, bytes);
                let bytes = std::fs::read(path(&format!("{index}.{}.u8", step.name))).expect("the node's output");
                let expected = Tensor::new(found.shape(), bytes).expect("an output of the same shape");
                assert_same(&format!("ONNX Runtime: {}", step.name), &found, &expected);
                steps += 1;
            };
            engine.infer_and_show(image.data(), &mut compare).expect("an image");
            assert_eq!(steps, network.trunk.len() + 1);
        }
    }
}

#[test]
fn the_result_does_not_depend_on_threads_or_on_what_was_inferred_before() {
    let (network, images) = (bundle().network().expect("a sound network"), images());
    for kernels in kernels() {
        let outputs = |threads: usize| {
            let mut engine = Engine::new(&network, Options::new(kernels, threads), threads == 2).expect("an engine");
            let mut run = |image: &Tensor<u8>| {
                engine.infer(image.data()).expect("an image");
                (engine.evidence(), engine.features())
            };
            let first = run(&images[0]);
            run(&images[1]);
            assert_eq!(run(&images[0]), first, "{threads} threads");
            first
        };
        let one = outputs(1);
        for threads in [2, 3, 4, 7] {
            assert_eq!(outputs(threads), one, "{threads} threads");
        }
    }
}
