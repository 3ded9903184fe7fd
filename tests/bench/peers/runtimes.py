"""The peers: how each loads its form of the network and infers. One function a runtime; imports happen inside.

Each takes the model's path, the number of threads and the bundle's contract, and returns a `Peer`. Timing: child.py.
"""

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from contract import Contract

Outputs = tuple[numpy.ndarray, numpy.ndarray]


@dataclass(frozen=True)
class Peer:
    """A loaded runtime."""

    prepare: Callable[[numpy.ndarray], Any]
    """From rows × columns of grey to what the runtime reads; not timed."""
    infer: Callable[[Any], Any]
    """One inference, image handed in and outputs taken out; timed."""
    outputs: Callable[[Any], Outputs]
    """From what `infer` gave to evidence and features as u8, rows × columns × channels; not timed."""
    kernels: str
    """What the runtime says that it computes the convolutions with, or nothing."""
    package: str
    """The PyPI package, for its version."""

    def version(self) -> str:
        """Version of the package."""
        return importlib.metadata.version(self.package)


def _channels_last(output: numpy.ndarray) -> numpy.ndarray:
    return numpy.ascontiguousarray(output[0].transpose(1, 2, 0))


def onnxruntime(path: str, threads: int, _contract: Contract, exact: bool = False) -> Peer:
    """model.onnx as it is. `exact`: without the instruction that saturates 16-bit sums on processors without VNNI."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Peer(
        prepare=lambda image: {"image": image[None, None]},
        infer=lambda feed: session.run(["evidence", "features"], feed),
        outputs=lambda given: (_channels_last(given[0]), _channels_last(given[1])),
        kernels="",
        package="onnxruntime",
    )


def openvino(path: str, threads: int, _contract: Contract) -> Peer:
    """The QuantizeLinear/DequantizeLinear form. Fails if any convolution does not run on u8: that would be no int8."""
    import openvino as ov

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(path, "CPU", settings)
    kernels = set()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        about = operation.get_rt_info()
        if about["layerType"].value == "Convolution":
            kernels.add(about["primitiveType"].value)
            if about["runtimePrecision"].value != "u8":
                raise RuntimeError(f"{operation.friendly_name} runs in {about['runtimePrecision'].value}, not in int8")
    request = compiled.create_infer_request()

    def infer(image: numpy.ndarray) -> Any:
        request.infer([image], share_inputs=True)
        return request.get_tensor("evidence").data, request.get_tensor("features").data

    return Peer(
        prepare=lambda image: numpy.ascontiguousarray(image[None, None]),
        infer=infer,
        outputs=lambda given: (_channels_last(given[0]), _channels_last(given[1])),
        kernels=", ".join(sorted(kernels)),
        package="openvino",
    )


def tflite(path: str, threads: int, _contract: Contract) -> Peer:
    """model.tflite with the XNNPACK delegate; its i8 is our u8 less 128."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    if "DELEGATE" not in {operation["op_name"] for operation in interpreter._get_ops_details()}:
        raise RuntimeError("XNNPACK did not take the network")
    image_index = interpreter.get_input_details()[0]["index"]
    indices = {output["name"]: output["index"] for output in interpreter.get_output_details()}

    def infer(image: numpy.ndarray) -> Any:
        interpreter.set_tensor(image_index, image)
        interpreter.invoke()
        return interpreter.get_tensor(indices["evidence"]), interpreter.get_tensor(indices["features"])

    return Peer(
        prepare=lambda image: (image[None, :, :, None] ^ 0x80).view(numpy.int8),
        infer=infer,
        outputs=lambda given: (given[0][0].view(numpy.uint8) ^ 0x80, given[1][0].view(numpy.uint8) ^ 0x80),
        kernels="XNNPACK",
        package="ai-edge-litert",
    )


def ncnn(path: str, threads: int, contract: Contract) -> Peer:
    """The .param and .bin of ncnn_form.py; its f32 outputs are quantized for the comparison."""
    import ncnn as library

    net = library.Net()
    net.opt.num_threads = threads
    if net.load_param(f"{path}.param") != 0 or net.load_model(f"{path}.bin") != 0:
        raise RuntimeError(f"ncnn does not read {path}.param and .bin")
    rows, columns = contract.size, contract.size

    def infer(image: numpy.ndarray) -> Any:
        extractor = net.create_extractor()
        extractor.input("image", library.Mat.from_pixels(image, library.Mat.PixelType.PIXEL_GRAY, columns, rows))
        return extractor.extract("evidence")[1], extractor.extract("features_0")[1]

    def quantized(name: str, values: Any) -> numpy.ndarray:
        scale, zero_point = contract.output(name)
        steps = numpy.rint(numpy.array(values) / scale) + zero_point
        return steps.clip(0, 255).astype(numpy.uint8).transpose(1, 2, 0)

    return Peer(
        prepare=lambda image: image,
        infer=infer,
        outputs=lambda given: (quantized("evidence", given[0]), quantized("features", given[1])),
        kernels="",
        package="ncnn",
    )


LOADERS: dict[str, Callable[..., Peer]] = {
    "onnxruntime": onnxruntime,
    "onnxruntime-exact": functools.partial(onnxruntime, exact=True),
    "openvino": openvino,
    "tflite": tflite,
    "ncnn": ncnn,
}
