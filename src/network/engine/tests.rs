//! The engine against the definition, [`Network::forward`]: random networks in every mode, with every kernel that this
//! processor runs.

use super::*;
use crate::kernels::{available, reference};
use crate::network::int8::{Conv, Layer};
use crate::network::onnx;
use crate::network::plan::{Family, Memory, Tiling};
use crate::quant::QuantParams;
use proptest::prelude::*;

/// A network that the property tests draw, and how it is to be run.
#[derive(Debug, Clone)]
struct Case {
    input_size: usize,
    /// Channels, kernel and following poolings of each convolution of the trunk; of those that do not fit a few are left out.
    trunk: Vec<(usize, usize, usize)>,
    classes: usize,
    /// Greatest magnitude of weights; with 128 they are all of −128..=127.
    weight: i32,
    zero_points: bool,
    threads: usize,
    fuse_pool: bool,
    seed: u64,
}

/// Pseudorandom numbers with many extremes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn byte(&mut self) -> u8 {
        match self.next() % 8 {
            0 => 0,
            1 => 255,
            _ => self.next() as u8,
        }
    }
}

impl Case {
    fn network(&self) -> Network {
        let mut random = Random(self.seed);
        let params = |random: &mut Random| QuantParams {
            scale: 0.5 + (random.next() % 100) as f32 / 100.0,
            zero_point: if self.zero_points { random.byte() } else { 0 },
        };
        let mut before = (1, params(&mut random));
        let mut size = self.input_size;
        let mut conv = |name: String, channels: usize, kernel: usize, random: &mut Random| {
            let (in_channels, input) = before;
            let output = params(random);
            before = (channels, output);
            let taps = kernel * kernel * in_channels;
            let weight =
                |random: &mut Random| (random.next() as i32 % (2 * self.weight + 1) - self.weight).min(127) as i8;
            let usual = self.weight as f32 * 80.0 * (taps as f32).sqrt();
            Conv {
                name,
                in_channels,
                out_channels: channels,
                kernel,
                weights: (0..channels * taps).map(|_| weight(random)).collect(),
                weight_scales: (0..channels)
                    .map(|_| 100.0 * (1.0 + (random.next() % 64) as f32 / 64.0) / usual)
                    .collect(),
                bias: (0..channels).map(|_| random.next() as i32 % (usual as i32 + 1)).collect(),
                input,
                output,
            }
        };
        let mut trunk = Vec::new();
        for (index, &(channels, kernel, pools)) in self.trunk.iter().enumerate() {
            trunk.push(Layer::Conv(conv(format!("conv{index}"), channels, kernel, &mut random)));
            for _ in 0..pools {
                if size >= 2 {
                    trunk.push(Layer::MaxPool2);
                    size /= 2;
                }
            }
        }
        let head = conv("head".into(), self.classes, 1, &mut random);
        Network { input_size: self.input_size, trunk, head }
    }

    fn image(&self) -> Tensor<u8> {
        let mut random = Random(self.seed ^ 0x5555);
        let size = self.input_size;
        Tensor::new([1, size, size, 1], (0..size * size).map(|_| random.byte()).collect()).expect("the shape fits")
    }
}

prop_compose! {
    fn case()(
        input_size in 1usize..24,
        trunk in prop::collection::vec(
            (prop_oneof![Just(1usize), Just(3), Just(31), Just(32), Just(33), 1usize..70], prop_oneof![4 => Just(3usize), 1 => Just(1)], 0usize..3),
            1..5,
        ),
        classes in 1usize..40,
        weight in prop_oneof![Just(128), 1..128],
        zero_points in any::<bool>(), threads in 1usize..5, fuse_pool in any::<bool>(), seed in any::<u64>(),
    ) -> Case {
        Case { input_size, trunk, classes, weight, zero_points, threads, fuse_pool, seed }
    }
}

/// What the definition gives after each layer, poolings that the engine fuses counted with their convolution.
fn layers(network: &Network, image: &Tensor<u8>, fuse_pool: bool) -> Vec<Tensor<u8>> {
    let mut outputs: Vec<Tensor<u8>> = Vec::new();
    let mut may_fuse = false;
    for layer in &network.trunk {
        let before = outputs.last().unwrap_or(image);
        match layer {
            Layer::Conv(conv) => {
                outputs.push(conv.forward(before).expect("a sound layer"));
                may_fuse = fuse_pool;
            }
            Layer::MaxPool2 => {
                let pooled = reference::max_pool_2(before);
                if may_fuse {
                    outputs.pop();
                }
                outputs.push(pooled);
                may_fuse = false;
            }
        }
    }
    let head = network.head.forward(outputs.last().unwrap_or(image)).expect("a sound head");
    outputs.push(head);
    outputs
}

/// Runs the plan twice on the image, so that the second run sees what the first left in memory, and compares every step.
fn check(network: &Network, plan: Plan, image: &Tensor<u8>, expected: &[Tensor<u8>]) {
    let table = plan.to_string();
    let mut engine = Engine::packed(network, plan, false).expect("an engine");
    for run in 0..2 {
        let mut found = Vec::new();
        let other: Vec<u8> = image.data().iter().map(|&x| !x).collect();
        if run == 1 {
            engine.infer(&other).expect("an image");
        }
        engine
            .infer_and_show(image.data(), &mut |step, bytes| found.push(unpack(step.output, bytes)))
            .expect("an image");
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert_eq!(found, expected, "step {index}, run {run} of\n{table}");
        }
        assert_eq!(&engine.evidence(), &expected[expected.len() - 1]);
        assert_eq!(&engine.features(), &expected[expected.len() - 2]);
    }
}

fn outline(network: &Network) -> Outline {
    Outline::of(network).expect("a sound network")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_mode_equals_the_definition(case in case()) {
        let (network, image) = (case.network(), case.image());
        let (evidence, features) = network.forward(&image).expect("a sound network");
        let expected = layers(&network, &image, case.fuse_pool);
        prop_assert_eq!(&expected[expected.len() - 2..], [features, evidence]);
        for kernels in available() {
            for memory in [Memory::Small, Memory::Balanced, Memory::Fast] {
                for family in [Family::Any, Family::Direct] {
                    let mut options = Options::new(kernels, case.threads);
                    (options.memory, options.family, options.fuse_pool) = (memory, family, case.fuse_pool);
                    let plan = Plan::new(&outline(&network), options).expect("a plan");
                    check(&network, plan, &image, &expected);
                }
            }
        }
    }

    /// Winograd for every layer that it can do, its tiles shared out in every way.
    #[test]
    fn every_tiling_equals_the_definition(case in case(), stored in any::<bool>(), strip in 1usize..5, step in 1usize..5,
        round in prop_oneof![Just(None), (1usize..4).prop_map(Some)], rows in 1usize..6, which in 0usize..2) {
        let (network, image) = (case.network(), case.image());
        let expected = layers(&network, &image, case.fuse_pool);
        for kernels in available() {
            let options = Options { fuse_pool: case.fuse_pool, ..Options::new(kernels, case.threads) };
            let plan = Plan::with(&outline(&network), options, |index, shape| {
                if index == 0 && shape.kernel == 3 && rows > 2 {
                    return Work::First { strip: rows };
                }
                let winograd = kernels.winograd.get(which % kernels.winograd.len()).filter(|_| shape.winograd.is_some());
                match winograd {
                    Some(winograd) => Work::Winograd(Tiling { winograd, stored, strip, step, round }),
                    None => Work::Direct { strip: rows },
                }
            });
            check(&network, plan.expect("a plan"), &image, &expected);
        }
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let case = Case {
        input_size: 37,
        trunk: vec![(64, 3, 0), (65, 3, 1), (96, 3, 1)],
        classes: 4,
        weight: 90,
        zero_points: true,
        threads: 1,
        fuse_pool: true,
        seed: 3,
    };
    let (network, image) = (case.network(), case.image());
    let (evidence, features) = network.forward(&image).expect("a sound network");
    for kernels in available() {
        for threads in 1..9 {
            let mut engine = Engine::new(&network, Options::new(kernels, threads), true).expect("an engine");
            for _ in 0..3 {
                engine.infer(image.data()).expect("an image");
                assert_eq!((&engine.evidence(), &engine.features()), (&evidence, &features), "{threads} threads");
            }
        }
    }
}

/// The deepest layers' 512 channels: sixteen blocks of input and of output. Small weights, so that Winograd may do them.
#[test]
fn layers_of_512_channels_equal_the_definition() {
    let case = Case {
        input_size: 5,
        trunk: vec![(32, 3, 0), (512, 3, 0), (512, 3, 0)],
        classes: 4,
        weight: 30,
        zero_points: true,
        threads: 2,
        fuse_pool: true,
        seed: 5,
    };
    let (network, image) = (case.network(), case.image());
    let expected = layers(&network, &image, case.fuse_pool);
    for kernels in available() {
        for (memory, family) in
            [(Memory::Small, Family::Any), (Memory::Fast, Family::Any), (Memory::Fast, Family::Direct)]
        {
            let options = Options { memory, family, ..Options::new(kernels, case.threads) };
            check(&network, Plan::new(&outline(&network), options).expect("a plan"), &image, &expected);
        }
    }
}

#[test]
fn images_and_weights_of_another_size_are_refused() {
    let case = Case {
        input_size: 8,
        trunk: vec![(3, 3, 0)],
        classes: 2,
        weight: 9,
        zero_points: false,
        threads: 2,
        fuse_pool: true,
        seed: 1,
    };
    let network = case.network();
    let kernels = available().next().expect("the portable ones at least");
    let options = Options::new(kernels, 2);
    let mut engine = Engine::new(&network, options, false).expect("an engine");
    assert!(matches!(engine.infer(&[0; 63]), Err(EngineError::Image(_))));
    assert!(engine.infer(&[0; 64]).is_ok());
    let mut smaller = network.clone();
    smaller.head = Conv { out_channels: 40, ..network.head.clone() };
    smaller.head.weights = vec![0; 40 * 3];
    (smaller.head.bias, smaller.head.weight_scales) = (vec![0; 40], vec![1.0; 40]);
    let (small, large) = (
        Plan::new(&outline(&network), options).expect("a plan"),
        Plan::new(&outline(&smaller), options).expect("a plan"),
    );
    let Ok(weights) = Weights::pack(&small, network.convolutions().map(Ok::<_, Infallible>));
    assert!(matches!(Engine::with(large, weights, false), Err(EngineError::Weights { .. })));
}

/// Graphs that somebody damaged, from the bytes of the file to the result: each is refused, or runs as the definition says.
#[test]
fn damaged_graphs_are_refused_or_run_as_defined() {
    let case = Case {
        input_size: 9,
        trunk: vec![(5, 3, 1), (33, 3, 0), (4, 1, 0)],
        classes: 3,
        weight: 100,
        zero_points: true,
        threads: 2,
        fuse_pool: true,
        seed: 7,
    };
    let whole = onnx::write(&case.network());
    let mut random = Random(11);
    let (mut refused, mut run) = (0, 0);
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.next() % 3 {
            let at = random.next() as usize % bytes.len();
            match random.next() % 4 {
                0 => bytes[at] ^= 1 << (random.next() % 8),
                1 => bytes[at] = random.byte(),
                2 => bytes.truncate(at.max(1)),
                // Lengths, extents and attributes are small numbers: one of them for another.
                _ => bytes[at] = bytes[random.next() as usize % bytes.len()] % 12,
            }
        }
        let Ok(network) = onnx::read(&bytes) else {
            refused += 1;
            continue;
        };
        let image = Tensor::filled([1, network.input_size, network.input_size, 1], 200);
        let kernels = available().next().expect("the portable ones at least");
        let plan = Plan::new(&outline(&network), Options::new(kernels, 2)).expect("small ones are planned");
        if plan.bytes() > 20 << 20 {
            continue;
        }
        let mut engine = Engine::new(&network, plan.options, false).expect("an engine");
        engine.infer(image.data()).expect("an image");
        let expected = network.forward(&image).expect("a sound network");
        assert_eq!((engine.evidence(), engine.features()), expected);
        run += 1;
    }
    assert!(refused > 300 && run > 300, "{refused} refused, {run} run: too few of either to say much");
}
