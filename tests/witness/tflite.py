"""Runs an int8 model.tflite on LiteRT (TensorFlow Lite) and writes what it holds and what it computes.

Usage: tflite.py MODEL IMAGES OUTPUT_FOLDER KERNELS
KERNELS is `plain` (TFLite's own kernels), `reference` (its reference kernels) or `xnnpack` (the XNNPACK delegate).
IMAGES holds one or more images of size × size bytes, one after the other. What is i8 in TFLite is written as u8, more by
128. For image i the output of every operation (with XNNPACK: the two outputs) goes to OUTPUT_FOLDER/i.NAME.u8, NHWC; the
constants go to OUTPUT_FOLDER/NAME.bin, and operations and tensors are described in OUTPUT_FOLDER/model.json.
Without arguments: exits 0 if ai_edge_litert and numpy can be imported.
"""

import json
import sys

import numpy
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {
    "plain": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
    "xnnpack": OpResolverType.AUTO,
}


def unsigned(values):
    assert values.dtype == numpy.int8, values.dtype
    return values.view(numpy.uint8) ^ 0x80


def describe(interpreter):
    def quantization(tensor):
        given = tensor["quantization_parameters"]
        return {
            "scales": given["scales"].tolist(),
            "zero_points": given["zero_points"].tolist(),
            "axis": given["quantized_dimension"],
        }

    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    name = lambda index: tensors[index]["name"]
    return {
        "operations": [
            {
                "kind": op["op_name"],
                "reads": [name(index) for index in op["inputs"]],
                "writes": [name(index) for index in op["outputs"]],
            }
            for op in interpreter._get_ops_details()
        ],
        "tensors": {
            tensor["name"]: {
                "shape": tensor["shape"].tolist(),
                "type": numpy.dtype(tensor["dtype"]).name,
                **quantization(tensor),
            }
            for tensor in tensors.values()
        },
        "inputs": [tensor["name"] for tensor in interpreter.get_input_details()],
        "outputs": [tensor["name"] for tensor in interpreter.get_output_details()],
        "signatures": interpreter.get_signature_list(),
    }


def main():
    model_path, images_path, folder, kernels = sys.argv[1:]
    inside = kernels != "xnnpack"  # a delegate keeps what is between its operations to itself
    interpreter = Interpreter(
        model_path,
        num_threads=1,
        experimental_op_resolver_type=RESOLVERS[kernels],
        experimental_preserve_all_tensors=inside,
    )
    if inside:
        model = describe(interpreter)
        with open(f"{folder}/model.json", "w") as file:
            json.dump(model, file)
    interpreter.allocate_tensors()
    if not inside:
        kinds = {op["op_name"] for op in interpreter._get_ops_details()}
        assert "DELEGATE" in kinds, f"XNNPACK did not take the network: {kinds}"
    image = interpreter.get_input_details()[0]
    if inside:
        written = {name for op in model["operations"] for name in op["writes"]}
    else:
        written = {tensor["name"] for tensor in interpreter.get_output_details()}
    indices = {tensor["name"]: tensor["index"] for tensor in interpreter.get_tensor_details()}
    for name in indices:
        if name.endswith((".weight", ".bias")) and inside:
            interpreter.get_tensor(indices[name]).tofile(f"{folder}/{name}.bin")
    images = numpy.fromfile(images_path, dtype=numpy.uint8).reshape(-1, *image["shape"])
    for number, values in enumerate(images):
        interpreter.set_tensor(image["index"], (values ^ 0x80).view(numpy.int8))
        interpreter.invoke()
        for name in written:
            unsigned(interpreter.get_tensor(indices[name])).tofile(f"{folder}/{number}.{name}.u8")


if __name__ == "__main__" and len(sys.argv) > 1:
    main()
