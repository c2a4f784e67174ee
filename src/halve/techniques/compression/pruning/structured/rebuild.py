"""A pruned module from its parent and a small JSON document: no pickle, no code, and weights that fit.

The document says which blocks are gone and which positions of which layer are kept. Rebuilt from the parent's class
and weights it is the pruned module before recovery, bit for bit; with the recovered weights loaded from safetensors
on top, the recovered one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning.structured.cut import Cut, composed, cut_layers
from halve.techniques.compression.pruning.structured.depth import Block, remove_blocks
from halve.techniques.compression.pruning.structured.groups import opened

if TYPE_CHECKING:
    from torch import nn

SCHEMA = "halve.pruned/1"


@dataclass(frozen=True, kw_only=True)
class GroupChange:
    """A row of the table that people read.

    Args:
        name: Of the group.
        before, after: Channels.
    """

    name: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True)
class RebuildSpecification:
    """How to make the pruned module out of its parent.

    Args:
        layers: What is kept of each layer that is cut, by name in the opened parent.
        removed_blocks: Blocks that are the identity now.
        groups: Widths before and after, for people.
    """

    layers: Mapping[str, Cut] = field(default_factory=dict)
    removed_blocks: tuple[Block, ...] = ()
    groups: tuple[GroupChange, ...] = ()

    def to_json(self) -> str:
        """Return the document; the same specification gives the same text."""
        layers = {
            name: {axis: list(kept) for axis, kept in (("out", cut.outputs), ("in", cut.inputs)) if kept is not None}
            for name, cut in sorted(self.layers.items())
        }
        document = {
            "schema": SCHEMA,
            "groups": [{"name": g.name, "before": g.before, "after": g.after} for g in self.groups],
            "removed_blocks": [{"name": b.name, "returns_tuple": b.returns_tuple} for b in self.removed_blocks],
            "layers": layers,
        }
        return json.dumps(document) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RebuildSpecification":
        """Return the specification that a document describes.

        Raises:
            ModelError: If it is no such document.
        """
        try:
            document: Any = json.loads(text)
            if document["schema"] != SCHEMA:
                raise ModelError(f"a rebuild specification must have the schema {SCHEMA}. Got {document['schema']!r}.")
            return cls(
                layers={
                    name: Cut(outputs=_positions(axes.get("out")), inputs=_positions(axes.get("in")))
                    for name, axes in document["layers"].items()
                },
                removed_blocks=tuple(
                    Block(name=str(block["name"]), returns_tuple=bool(block["returns_tuple"]))
                    for block in document["removed_blocks"]
                ),
                groups=tuple(
                    GroupChange(name=str(group["name"]), before=int(group["before"]), after=int(group["after"]))
                    for group in document["groups"]
                ),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, InvalidParameterError):
                raise ModelError(f"the rebuild specification is damaged: {error}") from error
            raise ModelError(f"this is no rebuild specification: {type(error).__name__} {error}") from error

    def write(self, path: Path) -> None:
        """Write the document."""
        path.write_text(self.to_json())

    @classmethod
    def read(cls, path: Path) -> "RebuildSpecification":
        """Return the specification in a file.

        Raises:
            ModelError: If it is no such document.
        """
        return cls.from_json(path.read_text())

    def then(self, cuts: Mapping[str, Cut], groups: tuple[GroupChange, ...]) -> "RebuildSpecification":
        """Return the specification that does this one and then these cuts; widths before are this one's."""
        before = {group.name: group.before for group in self.groups}
        after = {group.name: group for group in groups}
        names = [*before, *(name for name in after if name not in before)]
        old = {group.name: group.after for group in self.groups}
        return RebuildSpecification(
            layers=composed(self.layers, cuts),
            removed_blocks=self.removed_blocks,
            groups=tuple(
                GroupChange(
                    name=name,
                    before=before[name] if name in before else after[name].before,
                    after=after[name].after if name in after else old[name],
                )
                for name in names
            ),
        )


def rebuild(parent_module: "nn.Module", specification: RebuildSpecification) -> "nn.Module":
    """Return the pruned module: a deep copy of the parent, blocks out, attention opened, layers cut.

    Its weights are the parent's where they are kept; load the recovered ones on top.

    Args:
        parent_module: Of the class and the shapes that were pruned.
        specification: From `prune`, or read from its file.

    Raises:
        ModelError: If a layer or block of the specification is not in the parent.
        InvalidParameterError: If a kept position is not in a layer.
        MissingExtraError: If torch is not installed.
    """
    model = opened(remove_blocks(parent_module, specification.removed_blocks))
    cut_layers(model, specification.layers)
    return model


def _positions(found: Any) -> tuple[int, ...] | None:
    return None if found is None else tuple(int(position) for position in found)
