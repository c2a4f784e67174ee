"""What an artifact is made of: which methods, in which order, on how many bits; and the recipes worth trying."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.affine import Grid, QuantizedTensor, Scheme
from halve.techniques.compression.quantization.bias_correction import correct_biases
from halve.techniques.compression.quantization.calibration import Batches
from halve.techniques.compression.quantization.equalization import equalize
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.grids import ObserverName, is_convolutional, static_grids
from halve.techniques.compression.quantization.post_training import integer_layers
from halve.techniques.compression.quantization.qdq import needed_grids, write_qdq
from halve.techniques.compression.quantization.rounding import WIDE_BITS, Rounding, round_layers
from halve.techniques.compression.quantization.smooth_quant import smooth

SMOOTHINGS = (0.75, 0.9)
"""SmoothQuant's alpha worth trying. Its paper has 0.5 for large models; encoders have outliers in their activations and
even weights, and do better with more."""


@dataclass(frozen=True, kw_only=True)
class StaticRecipe:
    """Static quantization after training.

    Args:
        weight_bits, activation_bits: 2 to 8.
        edge_bits: Weights and input of the first and the last layer get at least so many: they cost little there
            and everything passes through them.
        observer: What sees the activations' ranges.
        rounding: Which way weights go.
        equalize: Even out the ranges of channels between ReLU layers first.
        smooth: How much of the activations' outliers moves into the weights first, in [0, 1); 0 is nothing.
        correct_biases: Take the mean error that rounding makes off the biases.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    edge_bits: int = 8
    observer: ObserverName = "minmax"
    rounding: Rounding = "nearest"
    equalize: bool = False
    smooth: float = 0.0
    correct_biases: bool = False

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "edge_bits"):
            if getattr(self, name) not in range(2, 9):
                raise InvalidParameterError(name, rule="2 to 8", value=getattr(self, name))

    @property
    def name(self) -> str:
        """In words: `W8A8, percentile ranges, smoothed by 0.9`."""
        parts = [f"W{self.weight_bits}A{self.activation_bits}", f"{self.observer} ranges"]
        parts += ["equalized"] if self.equalize else []
        parts += [f"smoothed by {self.smooth:g}"] if self.smooth else []
        parts += [] if self.rounding == "nearest" else [self.rounding]
        parts += ["biases corrected"] if self.correct_biases else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A recipe carried out: which integers every layer would get. Choosing layers is all that is left.

    Args:
        graph: The fp32 model after equalization, smoothing and bias correction.
        weights: By layer name.
        activations: By tensor name.
    """

    graph: Graph
    weights: Mapping[str, QuantizedTensor]
    activations: Mapping[str, Grid]

    def written(self, *, fp32_layers: frozenset[str] = frozenset()) -> bytes:
        """Return the ONNX model with all layers in integers but those."""
        weights = {name: weight for name, weight in self.weights.items() if name not in fp32_layers}
        return write_qdq(
            self.graph,
            weights=weights,
            activations=needed_grids(self.graph, weights=weights, activations=self.activations),
            only_products=not is_convolutional(self.graph),
        )


def carry_out(recipe: StaticRecipe, graph: Graph, *, batches: Batches, seed: int = 0) -> Plan:
    """Return the plan of a recipe for a model.

    Args:
        recipe: What to do.
        graph: The fp32 model; it is not changed.
        batches: Calibration inputs.
        seed: Of the methods that draw.
    """
    if recipe.equalize:
        graph = equalize(graph)
    if recipe.smooth:
        graph = smooth(graph, batches, alpha=recipe.smooth).graph
    activations = static_grids(graph, batches, observer=recipe.observer, bits=_activation_bits(recipe, graph))
    layers = {layer.name for layer in integer_layers(graph, activations)}
    schemes = {name: scheme for name, scheme in _schemes(recipe, graph).items() if name in layers}
    weights = round_layers(graph, schemes, method=recipe.rounding, batches=batches, seed=seed)
    if recipe.correct_biases:
        graph = correct_biases(graph, weights, batches)
    return Plan(graph=graph, weights=weights, activations=activations)


def _schemes(recipe: StaticRecipe, graph: Graph) -> dict[str, Scheme]:
    edges = _edges(graph)
    wide = max(recipe.edge_bits, recipe.weight_bits) if recipe.weight_bits < WIDE_BITS else recipe.weight_bits
    bits = {layer.name: wide if layer.name in edges else recipe.weight_bits for layer in graph.layers}
    return {name: Scheme(bits=count, axis=0) for name, count in bits.items()}


def _edges(graph: Graph) -> set[str]:
    return {graph.layers[0].name, graph.layers[-1].name} if graph.layers else set()


def _activation_bits(recipe: StaticRecipe, graph: Graph) -> dict[str, int]:
    """Return bits by tensor name for tensors that get other than 8."""
    if recipe.activation_bits == 8:
        return {}
    edges = {layer.input for layer in graph.layers if layer.name in _edges(graph)}
    return {
        layer.input: max(recipe.edge_bits, recipe.activation_bits) if layer.input in edges else recipe.activation_bits
        for layer in graph.layers
    }


def worth_trying(graph: Graph, base: StaticRecipe) -> Iterator[StaticRecipe]:
    """Yield the recipes that may help this model on these bits, plainest first.

    Outliers of activations are a habit of transformers, uneven channels one of convolutions; GPTQ and AdaRound
    pay below 7 bits. What does not apply is not tried.
    """
    operators = {node.op_type for node in graph.proto.graph.node}
    yield base
    if base.weight_bits < WIDE_BITS:
        base = replace(base, observer="mse")
        for rounding in ("nearest", "gptq", "adaround"):
            yield replace(base, rounding=rounding, correct_biases=True)
        if "Conv" in operators:
            yield replace(base, rounding="adaround", equalize=True, correct_biases=True)
        return
    yield replace(base, observer="percentile")
    yield replace(base, observer="mse")
    if "Conv" in operators:
        yield replace(base, observer="mse", correct_biases=True)
        yield replace(base, observer="mse", equalize=True, correct_biases=True)
    if "LayerNormalization" in operators:
        for alpha in SMOOTHINGS:
            yield replace(base, smooth=alpha)
            yield replace(base, smooth=alpha, observer="mse")
