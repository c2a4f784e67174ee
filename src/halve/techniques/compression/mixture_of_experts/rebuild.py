"""A converted module without pickle: its weights as safetensors, and a JSON document that says where they go.

    {"format": "halve.mixture/1",
     "layers": {"encoder.layers.0.linear1": {"inputs": 384, "outputs": 384, "experts": 8, "active": 2, ...}, ...}}

The order of neurons needs no place in it: the weights are saved as they are used.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.mixture_of_experts.config import MixtureConfig
from halve.techniques.compression.mixture_of_experts.find import FeedForward, feed_forwards, mixtures, put

if TYPE_CHECKING:
    from torch import nn

FORMAT = "halve.mixture/1"


@dataclass(frozen=True, kw_only=True)
class Specification:
    """Which feed-forwards of a module are mixtures, and of what sizes.

    Args:
        layers: By the name of the feed-forward's first layer (see `feed_forwards`); at least one.
    """

    layers: Mapping[str, MixtureConfig]

    def __post_init__(self) -> None:
        if not self.layers:
            raise InvalidParameterError("layers", rule="at least one mixture", value=0)

    def to_json(self) -> str:
        """Return the document as JSON text: same mixtures, same text."""
        layers = {name: dataclasses.asdict(config) for name, config in self.layers.items()}
        return json.dumps({"format": FORMAT, "layers": layers}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Specification":
        """Return what `to_json` wrote.

        Raises:
            InvalidParameterError: If the text is no such document, or a number in it breaks its rule.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise InvalidParameterError("format", rule=repr(FORMAT), value=content["format"])
            layers = {str(name): MixtureConfig(**sizes) for name, sizes in content["layers"].items()}
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise InvalidParameterError(
                "specification", rule=f"JSON of the format {FORMAT}", value=f"{type(error).__name__}: {error}"
            ) from error
        return cls(layers=layers)


def specification_of(module: "nn.Module") -> Specification:
    """Return what has to be known, beside its dense parent and its weights, to make a converted module again.

    Raises:
        ModelError: If it has no mixture.
        MissingExtraError: If torch is not installed.
    """
    found = mixtures(module)
    if not found:
        raise ModelError(f"{type(module).__name__} must hold a mixture of experts. Got none.")
    return Specification(layers={name: mixture.config for name, mixture in found.items()})


def rebuild(parent: "nn.Module", specification: Specification) -> "nn.Module":
    """Return a copy of the parent with mixtures of fresh weights, in evaluation mode; `load_state_dict` fills them.

    Args:
        parent: A module of the dense one's structure; its own weights do not matter.
        specification: From `specification_of`, or read by `Specification.from_json`.

    Raises:
        ModelError: If the parent has no dense feed-forward of the sizes where the document wants a mixture.
        MissingExtraError: If torch is not installed.
    """
    places = {place.name: place for place in feed_forwards(parent)}
    from halve.techniques.compression.mixture_of_experts.layer import MixtureOfExperts

    copied = copy.deepcopy(parent)
    for name, config in specification.layers.items():
        if name not in places or not _fits(places[name], config):
            raise ModelError(f"the parent must have a dense feed-forward {name!r} of the sizes {config}. Got none.")
        put(copied, places[name], MixtureOfExperts(config))
    return copied.eval()


def _fits(place: FeedForward, config: MixtureConfig) -> bool:
    neurons = config.experts * config.neurons + config.shared_neurons
    return (place.inputs, place.neurons, place.outputs) == (config.inputs, neurons, config.outputs)
