"""Does the exported integer model compute what was trained? Compared integer by integer on real inputs.

A trained module that is evaluated in fake quantization and an exported one that runs in integers are two programs.
They may differ where a value falls within rounding error of the middle between two steps, by one step. Anything more
is a defect: a grid on the wrong tensor, a bias on another scale, a kernel that saturates.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from halve.errors import ModelError
from halve.techniques.compression.quantization.runtime import open_session, run_logits
from halve.techniques.compression.quantization.training.convert import Converted
from halve.techniques.compression.quantization.training.prepare import Inputs, batches, quantizers

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class TensorParity:
    """How far one quantized tensor is from the module's.

    Args:
        tensor: ONNX name.
        largest_steps: Largest difference of two integers, in steps of the grid.
        differing_share: Share of integers that differ, in [0, 1].
    """

    tensor: str
    largest_steps: int
    differing_share: float


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported integer model is from the module it was converted from.

    Args:
        tensors: One per quantizer, in the order of the graph.
        logit_difference: Largest |difference| of a logit over the largest |logit| of the module.
        disagreement_share: Share of inputs whose answer differs, in [0, 1].
        n: Inputs compared.
    """

    tensors: tuple[TensorParity, ...]
    logit_difference: float
    disagreement_share: float
    n: int

    @property
    def largest_steps(self) -> int:
        """The largest difference of any quantized tensor, in steps; 1 is a tie that was broken the other way."""
        return max(tensor.largest_steps for tensor in self.tensors)


def parity(prepared: "nn.Module", converted: Converted, inputs: Inputs) -> Parity:
    """Run a prepared module and its exported file side by side, the file in onnxruntime on this host.

    Args:
        prepared: The module that was converted, in evaluation mode.
        converted: What `convert` returned for it.
        inputs: Real inputs, at least one row.

    Raises:
        ModelError: If the file cannot be run.
    """
    session, names = _session_with_integers(converted)
    largest, differing, counted = (dict.fromkeys(names, 0) for _ in range(3))
    logits = []
    for batch in batches(inputs):
        expected, integers = _module_values(prepared, batch)
        feed = {name: tensor.numpy() for name, tensor in zip(inputs, batch, strict=True)}
        # Logits are those of the file itself: a session that shows its insides may run other kernels.
        logits.append((expected, run_logits(converted.path, [feed])))
        for name, values in zip(names, session.run(None, feed)[1:], strict=True):
            steps = np.abs(values.astype(np.int32) - integers[name].reshape(values.shape))
            largest[name] = max(largest[name], int(steps.max(initial=0)))
            differing[name] += int(np.count_nonzero(steps))
            counted[name] += steps.size
    module, file = (np.concatenate(side) for side in zip(*logits, strict=True))
    return Parity(
        tensors=tuple(
            TensorParity(
                tensor=converted.tensors[name],
                largest_steps=largest[name],
                differing_share=differing[name] / max(1, counted[name]),
            )
            for name in names
        ),
        logit_difference=float(np.abs(module - file).max() / max(np.abs(module).max(), np.finfo(np.float32).tiny)),
        disagreement_share=float(np.mean(module.argmax(axis=1) != file.argmax(axis=1))),
        n=len(module),
    )


def _module_values(prepared: "nn.Module", batch: list[Any]) -> tuple[NDArray[np.float32], dict[str, NDArray[np.int32]]]:
    """Return the module's logits and the integers behind every quantizer."""
    import torch

    integers: dict[str, NDArray[np.int32]] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, _: Any, output: torch.Tensor) -> None:
            grid = module.grid()
            values = np.rint(output.numpy() / grid.scale) + grid.zero_point
            integers.setdefault(name, values.astype(np.int32))

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in quantizers(prepared).items()]
    try:
        with torch.no_grad():
            logits = prepared(*batch).numpy()
    finally:
        for handle in handles:
            handle.remove()
    return logits, integers


def _session_with_integers(converted: Converted) -> tuple[Any, list[str]]:
    """Return a session whose further outputs are the integers of each quantizer, and the quantizers' names."""
    import onnx

    model = onnx.load(converted.path)
    held = {name for node in model.graph.node for name in node.output}
    for tensor in converted.tensors.values():
        if tensor not in held:
            raise ModelError(f"{converted.path.name} must hold the integers {tensor!r}, as when it was converted.")
        model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None))
    return open_session(model.SerializeToString()), list(converted.tensors)
