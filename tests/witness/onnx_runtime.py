"""Runs an int8 model.onnx on ONNX Runtime and writes its two outputs as raw bytes, NHWC.

Usage: onnx_runtime.py MODEL IMAGES OUTPUT_FOLDER [--nodes]
IMAGES holds one or more images of size × size bytes, one after the other. For image i the evidence map goes to
OUTPUT_FOLDER/i.evidence.u8 and the features to OUTPUT_FOLDER/i.features.u8. With --nodes the output of every node goes to
OUTPUT_FOLDER/i.NODE.u8 instead.
Without arguments: exits 0 if onnxruntime, onnx and numpy can be imported.
"""

import sys

import numpy
import onnx
import onnxruntime


def main():
    model_path, images_path, folder = sys.argv[1:4]
    onnx.checker.check_model(model_path, full_check=True)
    model = onnx.load(model_path)
    outputs = {output.name: output.name for output in model.graph.output}
    if "--nodes" in sys.argv:
        outputs = {node.output[0]: node.name for node in model.graph.node}
        named = {output.name for output in model.graph.output}
        for tensor in outputs:
            if tensor not in named:
                model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Processors without VNNI multiply u8 by i8 in a saturating way by default; this asks for the exact one.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[2]
    images = numpy.fromfile(images_path, dtype=numpy.uint8).reshape(-1, 1, 1, size, size)
    for index, image in enumerate(images):
        results = session.run(list(outputs), {"image": image})
        for name, output in zip(outputs.values(), results):
            numpy.ascontiguousarray(output.transpose(0, 2, 3, 1)).tofile(f"{folder}/{index}.{name}.u8")
    print(f"onnxruntime {onnxruntime.__version__}")


if __name__ == "__main__" and len(sys.argv) > 1:
    main()
