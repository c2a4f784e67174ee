"""Semantic cache: a question that means the same as an earlier one gets its stored answer, if that is likely right."""

import json
import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from halve import chains
from halve.core import Bench, Change, Model, Recipe, Stack
from halve.core.documents import replace_file
from halve.errors import InvalidParameterError, MissingExtraError, ModelError
from halve.techniques.inference.caching import semantic

_log = logging.getLogger("halve.levers")

FEWEST_LOOKUPS, MOST_LOOKUPS, NEIGHBOURS, POLICY_NAME = 500, 10_000, 8, "policy.json"
EVERY_CANDIDATE = 1e-9
"""Threshold of the policy in a stack: it names the likeliest answer, and the stage's acceptance decides."""


class SemanticCaching:
    """Proposes the cache in front of the chain, by share of the quality budget, cautious first."""

    name = "semantic_cache"

    def __init__(self) -> None:
        self._problem = ""

    def propose(self, stack: Stack, bench: Bench) -> Iterable[Change]:
        """Yield one change per threshold; nothing without an encoder, or where a cache is there."""
        encoder = bench.encoder
        if encoder is None or any(model.engine == "semantic_cache" for model in stack.models):
            return
        pooling = str(encoder.recipe.parameters.get("pooling", "mean")) if encoder.recipe else "mean"
        classes = bench.outcomes(bench.baseline).probabilities
        if classes is None:
            return
        about = {"pooling": pooling, "classes": classes.shape[1], "neighbours": NEIGHBOURS, "lessons": _source(bench)}
        wanted = Model(
            name="semantic-cache",
            engine="semantic_cache",
            files=encoder.files,
            preprocess=encoder.preprocess,
            recipe=Recipe(technique=self.name, parameters=about),
        )
        try:
            made = bench.make_model(wanted, build=partial(_build, bench))
        except (ModelError, MissingExtraError, InvalidParameterError) as error:
            self._problem = f"it could not be made: {str(error).rstrip('.')}"
            return
        for place in chains.asked_first(stack, bench, made):
            yield place.change(
                lever=self.name,
                before=stack,
                reason=f"a stored answer is likely enough right for {place.accept_share:.1%} of requests",
            )

    def nothing(self, stack: Stack, bench: Bench) -> str:
        """Say why no cache was proposed."""
        if bench.encoder is None:
            return "not tried: the config names no encoder"
        promise = bench.workload.objective.quality_drop_at_most
        return self._problem or f"not enabled: no threshold keeps the drop below {promise:g} on the search split"


def _source(bench: Bench) -> str:
    return "nothing" if bench.workload.training is None else bench.workload.training.sha256[:12]


def _build(bench: Bench, folder: Path) -> None:
    """Write a policy learned from the training texts and their labels; from none if there are too few."""
    policy, training = semantic.default_policy(cosine_at_least=EVERY_CANDIDATE), bench.workload.training
    rows = [] if training is None else np.flatnonzero(training.references >= 0)[:MOST_LOOKUPS].tolist()
    if training is not None and len(rows) >= FEWEST_LOOKUPS:
        texts = [str(training.payloads[row]) for row in rows]
        answers = [str(training.references[row]) for row in rows]
        found = semantic.lookups_among(texts, bench.encode(texts), answers, count=NEIGHBOURS)
        labelled = [semantic.LabelledLookup(lookup=one, answer=own) for one, own in zip(found, answers, strict=True)]
        try:
            policy = semantic.HitPolicy(threshold=EVERY_CANDIDATE, assessor=semantic.fit_assessor(labelled))
        except InvalidParameterError as error:  # every neighbour is right, say: the cosine will do
            _log.info("the semantic cache goes by cosine alone: %s", error)
    with replace_file(folder / POLICY_NAME) as partial_file:
        partial_file.write_text(json.dumps(policy.to_document()))
