//! `Network` → TFLite: the same integers as `model.onnx`, in `CONV_2D` and `MAX_POOL_2D` only, which TFLite, TFLite Micro
//! and the Edge TPU's compiler all take. Not a general writer, and no reader.
//!
//! TFLite's activations are signed: every u8 here is an i8 less by 128 there, value and zero point alike, so that the
//! real numbers are the same. The input is the image's bytes less 128, that is, with their highest bit flipped. Weights
//! are stored as [`Conv`] holds them, one scale an output channel; biases in units of input scale × weight scale.
//!
//! ```text
//! image i8 [1,s,s,1] ─▶ CONV_2D block1_conv1 ─▶ … ─▶ MAX_POOL_2D pool5 ─▶ features i8 [1,s/32,s/32,512]
//!                                                          └─▶ CONV_2D head ─▶ evidence i8 [1,s/32,s/32,4]
//! ```
//!
//! TFLite's own kernels requantize in fixed point, XNNPACK in f32 as ONNX Runtime does, so that the former may be one
//! step off where a sum falls between two; `tests/tflite_witness.rs` holds both to that.

use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};
use roentgen::network::int8::{Conv, Layer, Network};
use roentgen::quant::QuantParams;
use roentgen::report::NOTICE;
use tract_tflite::tflite::{
    ActivationFunctionType, Buffer, BufferArgs, BuiltinOperator, BuiltinOptions, Conv2DOptions, Conv2DOptionsArgs,
    Model, ModelArgs, Operator, OperatorArgs, OperatorCode, OperatorCodeArgs, Padding, Pool2DOptions,
    Pool2DOptionsArgs, QuantizationParameters, QuantizationParametersArgs, SignatureDef, SignatureDefArgs, SubGraph,
    SubGraphArgs, Tensor, TensorArgs, TensorMap, TensorMapArgs, TensorType, finish_model_buffer,
};

/// What the schema asks the contents of buffers to be aligned to, in bytes.
const ALIGNMENT: usize = 16;

/// The version of the file format: that of all TFLite files.
const SCHEMA_VERSION: u32 = 3;

/// The operators, in the order of the file's list, with the first version of each that does what is asked here:
/// convolution with a scale an output channel, pooling of i8.
const OPERATORS: [(BuiltinOperator, i32); 2] = [(BuiltinOperator::CONV_2D, 3), (BuiltinOperator::MAX_POOL_2D, 2)];
const CONV_2D: u32 = 0;
const MAX_POOL_2D: u32 = 1;
#[cfg(test)]
const CUSTOM: u32 = 2;

/// Writes the network, which should have passed [`Network::check`], as a TFLite file.
pub(crate) fn write(network: &Network) -> Vec<u8> {
    let mut graph = Graph::default();
    let image = graph.image(network);
    graph.network(network, image, image)
}

/// The same behind an operator of somebody's own, by this name, that hands the image on: of the kind that Coral's compiler
/// makes, for tests of what runs such models.
#[cfg(test)]
#[allow(dead_code, reason = "the test files that take this one in use it")]
pub(crate) fn write_behind(network: &Network, operator: &str) -> Vec<u8> {
    let mut graph = Graph { custom: Some(operator.to_owned()), ..Graph::default() };
    let image = graph.image(network);
    let size = network.input_size;
    let handed_on = graph.activation("handed_on", [size, size, 1], network.input());
    graph.operator(CUSTOM, &[image], handed_on, None);
    graph.network(network, image, handed_on)
}

/// The index of a tensor in the graph.
type Index = i32;

/// The graph as far as it is written.
struct Graph<'a> {
    builder: FlatBufferBuilder<'a>,
    /// The first one is empty: it is the buffer of every tensor that holds no constant.
    buffers: Vec<WIPOffset<Buffer<'a>>>,
    tensors: Vec<WIPOffset<Tensor<'a>>>,
    operators: Vec<WIPOffset<Operator<'a>>>,
    /// The name of an operator that is none of TFLite's.
    custom: Option<String>,
}

impl Default for Graph<'_> {
    fn default() -> Self {
        let mut builder = FlatBufferBuilder::new();
        let buffers = vec![Buffer::create(&mut builder, &BufferArgs::default())];
        Self { builder, buffers, tensors: Vec::new(), operators: Vec::new(), custom: None }
    }
}

impl<'a> Graph<'a> {
    /// Adds the tensor of the image.
    fn image(&mut self, network: &Network) -> Index {
        let size = network.input_size;
        self.activation("image", [size, size, 1], network.input())
    }

    /// Adds the whole network, which reads the tensor `reads`, and finishes the file, whose input is `image`.
    fn network(mut self, network: &Network, image: Index, mut reads: Index) -> Vec<u8> {
        let (map, mut size) = (network.map_size(), network.input_size);
        let (mut channels, mut params) = (1, network.input());
        let mut pools = 0;
        for (index, layer) in network.trunk.iter().enumerate() {
            let last = index + 1 == network.trunk.len();
            let named = |name: &str| if last { "features".to_owned() } else { name.to_owned() };
            match layer {
                Layer::Conv(conv) => {
                    (channels, params) = (conv.out_channels, conv.output);
                    let writes = self.activation(&named(&conv.name), [size, size, channels], params);
                    self.conv(conv, reads, writes);
                    reads = writes;
                }
                Layer::MaxPool2 => {
                    pools += 1;
                    size /= 2;
                    let writes = self.activation(&named(&format!("pool{pools}")), [size, size, channels], params);
                    self.max_pool(reads, writes);
                    reads = writes;
                }
            }
        }
        let evidence = self.activation("evidence", [map, map, network.head.out_channels], network.head.output);
        self.conv(&network.head, reads, evidence);
        self.finish(image, evidence, reads)
    }

    /// Adds a tensor of activations; `extents` are rows, columns, channels.
    fn activation(&mut self, name: &str, extents: [usize; 3], params: QuantParams) -> Index {
        let shape: Vec<usize> = std::iter::once(1).chain(extents).collect();
        let zero_point = i64::from(params.zero_point) - 128;
        self.tensor(name, TensorType::INT8, &shape, 0, (&[params.scale], &[zero_point]))
    }

    /// Adds a constant, quantized symmetrically with a scale for each of its first extent.
    fn constant(&mut self, name: &str, type_: TensorType, shape: &[usize], bytes: &[u8], scales: &[f32]) -> Index {
        // The file is built from its end: once the contents are in, what is there must be a whole number of blocks.
        let built = self.builder.unfinished_data().len() + bytes.len();
        for _ in 0..built.next_multiple_of(ALIGNMENT) - built {
            self.builder.push(0u8);
        }
        let data = Some(self.builder.create_vector(bytes));
        let buffer = Buffer::create(&mut self.builder, &BufferArgs { data });
        self.buffers.push(buffer);
        let buffer = self.buffers.len() as u32 - 1;
        self.tensor(name, type_, shape, buffer, (scales, &vec![0; scales.len()]))
    }

    fn tensor(
        &mut self,
        name: &str,
        type_: TensorType,
        shape: &[usize],
        buffer: u32,
        (scales, zero_points): (&[f32], &[i64]),
    ) -> Index {
        let name = Some(self.builder.create_string(name));
        let shape: Vec<i32> = shape.iter().map(|&extent| extent as i32).collect();
        let shape = Some(self.builder.create_vector(&shape));
        let scale = Some(self.builder.create_vector(scales));
        let zero_point = Some(self.builder.create_vector(zero_points));
        let quantization = QuantizationParametersArgs { scale, zero_point, ..Default::default() };
        let quantization = Some(QuantizationParameters::create(&mut self.builder, &quantization));
        let args = TensorArgs { shape, type_, buffer, name, quantization, has_rank: true, ..Default::default() };
        self.tensors.push(Tensor::create(&mut self.builder, &args));
        self.tensors.len() as Index - 1
    }

    fn conv(&mut self, conv: &Conv, reads: Index, writes: Index) {
        let kernel = [conv.out_channels, conv.kernel, conv.kernel, conv.in_channels];
        let weights: Vec<u8> = conv.weights.iter().map(|&w| w as u8).collect();
        let bias: Vec<u8> = conv.bias.iter().flat_map(|b| b.to_le_bytes()).collect();
        let bias_scales: Vec<f32> = conv.weight_scales.iter().map(|&scale| conv.input.scale * scale).collect();
        let name = |what: &str| format!("{}.{what}", conv.name);
        let weights = self.constant(&name("weight"), TensorType::INT8, &kernel, &weights, &conv.weight_scales);
        let bias = self.constant(&name("bias"), TensorType::INT32, &kernel[..1], &bias, &bias_scales);
        // With the least integer for 0.0 the saturation is the ReLU already; saying so changes no integer and tells
        // runtimes and readers what it is.
        let relu = conv.output.zero_point == 0;
        let options = Conv2DOptionsArgs {
            padding: Padding::SAME,
            stride_w: 1,
            stride_h: 1,
            fused_activation_function: if relu { ActivationFunctionType::RELU } else { ActivationFunctionType::NONE },
            dilation_w_factor: 1,
            dilation_h_factor: 1,
        };
        let options = Conv2DOptions::create(&mut self.builder, &options).as_union_value();
        self.operator(CONV_2D, &[reads, weights, bias], writes, Some((BuiltinOptions::Conv2DOptions, options)));
    }

    fn max_pool(&mut self, reads: Index, writes: Index) {
        let options = Pool2DOptionsArgs {
            padding: Padding::VALID,
            stride_w: 2,
            stride_h: 2,
            filter_width: 2,
            filter_height: 2,
            fused_activation_function: ActivationFunctionType::NONE,
        };
        let options = Pool2DOptions::create(&mut self.builder, &options).as_union_value();
        self.operator(MAX_POOL_2D, &[reads], writes, Some((BuiltinOptions::Pool2DOptions, options)));
    }

    fn operator(
        &mut self,
        opcode_index: u32,
        reads: &[Index],
        writes: Index,
        options: Option<(BuiltinOptions, WIPOffset<UnionWIPOffset>)>,
    ) {
        let inputs = Some(self.builder.create_vector(reads));
        let outputs = Some(self.builder.create_vector(&[writes]));
        let builtin_options_type = options.map_or(BuiltinOptions::NONE, |(kind, _)| kind);
        let builtin_options = options.map(|(_, options)| options);
        let args =
            OperatorArgs { opcode_index, inputs, outputs, builtin_options_type, builtin_options, ..Default::default() };
        self.operators.push(Operator::create(&mut self.builder, &args));
    }

    /// The finished file.
    fn finish(mut self, image: Index, evidence: Index, features: Index) -> Vec<u8> {
        let signature = self.signature(image, &[("evidence", evidence), ("features", features)]);
        let builder = &mut self.builder;
        let args = SubGraphArgs {
            tensors: Some(builder.create_vector(&self.tensors)),
            inputs: Some(builder.create_vector(&[image])),
            outputs: Some(builder.create_vector(&[evidence, features])),
            operators: Some(builder.create_vector(&self.operators)),
            name: Some(builder.create_string("roentgen")),
        };
        let graph = SubGraph::create(builder, &args);
        let own = self.custom.iter().map(|_| (BuiltinOperator::CUSTOM, 1));
        let operators: Vec<_> = OPERATORS.into_iter().chain(own).collect();
        let code = |(builtin_code, version): (BuiltinOperator, i32)| {
            // The older field of the same meaning, which readers of before 2020 look at; all codes fit it.
            let deprecated_builtin_code = builtin_code.0 as i8;
            let name = self.custom.as_deref().filter(|_| builtin_code == BuiltinOperator::CUSTOM);
            let custom_code = name.map(|name| builder.create_string(name));
            OperatorCode::create(
                builder,
                &OperatorCodeArgs { deprecated_builtin_code, version, builtin_code, custom_code },
            )
        };
        let codes: Vec<_> = operators.into_iter().map(code).collect();
        let args = ModelArgs {
            version: SCHEMA_VERSION,
            operator_codes: Some(builder.create_vector(&codes)),
            subgraphs: Some(builder.create_vector(&[graph])),
            description: Some(builder.create_string(&format!("Chest radiograph screening, int8 VGG. {NOTICE}"))),
            buffers: Some(builder.create_vector(&self.buffers)),
            signature_defs: Some(builder.create_vector(&[signature])),
            ..Default::default()
        };
        let model = Model::create(builder, &args);
        finish_model_buffer(builder, model);
        whole_blocks(builder.finished_data())
    }

    /// Names the inputs and outputs for runtimes that ask by name.
    fn signature(&mut self, image: Index, outputs: &[(&str, Index)]) -> WIPOffset<SignatureDef<'a>> {
        let mut named = |(name, index): (&str, Index)| {
            let name = Some(self.builder.create_string(name));
            TensorMap::create(&mut self.builder, &TensorMapArgs { name, tensor_index: index as u32 })
        };
        let inputs = [named(("image", image))];
        let outputs: Vec<_> = outputs.iter().copied().map(&mut named).collect();
        let args = SignatureDefArgs {
            inputs: Some(self.builder.create_vector(&inputs)),
            outputs: Some(self.builder.create_vector(&outputs)),
            signature_key: Some(self.builder.create_string("serving_default")),
            subgraph_index: 0,
        };
        SignatureDef::create(&mut self.builder, &args)
    }
}

/// Makes the file's length a multiple of the alignment, by which what is aligned from its end is so from its start: zeros
/// are put between the header (the offset of the root, counted from the start, and the identifier) and the rest.
fn whole_blocks(file: &[u8]) -> Vec<u8> {
    let (header, rest) = file.split_at(8);
    let gap = file.len().next_multiple_of(ALIGNMENT) - file.len();
    let root = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) + gap as u32;
    let mut out = Vec::with_capacity(file.len() + gap);
    out.extend(root.to_le_bytes());
    out.extend(&header[4..]);
    out.extend(std::iter::repeat_n(0, gap));
    out.extend(rest);
    out
}
