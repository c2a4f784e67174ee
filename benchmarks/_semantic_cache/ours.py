"""halve: scorers fitted on the training streams, a threshold proved on the calibration stream, and the whole cache."""

import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks._semantic_cache.data import Questions
from benchmarks._semantic_cache.figures import Scored
from benchmarks._semantic_cache.streams import Cosines, Splits, Stream, nearest
from halve.core.documents import replace_file
from halve.demo.training import cache_folder
from halve.techniques.inference.caching.semantic.assessment import Assessor
from halve.techniques.inference.caching.semantic.cache import SemanticCache
from halve.techniques.inference.caching.semantic.evidence import Lookup
from halve.techniques.inference.caching.semantic.fitting import LabelledLookup, fit_assessor
from halve.techniques.inference.caching.semantic.logistic import fit_logistic, probabilities
from halve.techniques.inference.caching.semantic.neighbour import Neighbour
from halve.techniques.inference.caching.semantic.policy import HitPolicy
from halve.techniques.inference.caching.semantic.sqlite import SQLiteStore
from halve.techniques.inference.caching.semantic.thresholds import choose_threshold

CONFIDENCE = 0.99
"""Of the bound on the expected share: the scored stream adds noise of its own, as large as the calibration stream's."""

CHUNK = 500
"""Look-ups assessed at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decided:
    """What our policy says of both streams, and the thresholds that the calibration stream proved, by target."""

    calibration: Scored
    test: Scored
    thresholds: dict[float, float]


def decided(splits: Splits, questions: Questions, *, targets: Sequence[float]) -> Decided:
    """Return probabilities on both streams and thresholds for shares of false hits."""
    assessor = fitted(splits.train, questions)
    calibration, test = (scored(assessor, stream, questions) for stream in (splits.calibration, splits.test))
    return Decided(calibration=calibration, test=test, thresholds=thresholds(calibration, targets))


def thresholds(calibration: Scored, targets: Sequence[float]) -> dict[float, float]:
    """Return for each share of false hits the threshold that is proved to keep it; one above 1 where none is."""
    return {
        target: choose_threshold(
            np.maximum(calibration.scores, 0),
            calibration.right,
            precision_at_least=1 - target,
            confidence=CONFIDENCE,
        ).threshold
        for target in targets
    }


def as_probabilities(one: Scored, *, train: Sequence[Scored]) -> Scored:
    """Return scores as probabilities by a logistic regression on training streams, so that a threshold can be proved.

    The order of the scores stays, and so does what any threshold can reach.

    Args:
        one: Cosines; -inf where nothing can be served.
        train: The same of training streams.
    """
    scores, right = (np.concatenate([getattr(each, part) for each in train]) for part in ("scores", "right"))
    known = np.isfinite(scores)
    model = fit_logistic(scores[known][:, None].astype(float), right[known])
    servable = np.isfinite(one.scores)
    found = probabilities(model.logits(np.where(servable, one.scores, 0.0)[:, None].astype(float)))
    return Scored(scores=np.where(servable, found, -np.inf), right=one.right)


def fitted(streams: Sequence[Stream], questions: Questions) -> Assessor:
    """Return scorers fitted on these streams, from HALVE_CACHE if neither they nor the code have changed."""
    total = hashlib.sha256(questions.digest.encode() + source_hash().encode())
    for stream in streams:
        for array in (stream.asked, stream.neighbours, stream.right):
            total.update(np.ascontiguousarray(array).data)
    path = cache_folder() / "semantic-cache" / f"assessor-{total.hexdigest()[:16]}.json"
    if not path.is_file():
        examples = [example for stream in streams for example in labelled(stream, questions)]
        document = fit_assessor(examples).to_document()
        with replace_file(path) as partial:
            partial.write_text(json.dumps(document))
    return Assessor.from_document(json.loads(path.read_text()))


@functools.cache
def source_hash() -> str:
    """Return 16 hexadecimal digits that change with the code that fits and decides."""
    from halve.techniques.inference.caching import semantic

    folder = Path(semantic.__file__).parent
    sources = [*(folder / f"{part}.py" for part in DECIDING), Path(__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


DECIDING = (
    "assessment", "differences", "evidence", "examples", "fitting", "lexicon", "logistic", "network", "neighbour",
    "policy", "rarity", "reach", "scorer", "terms", "thresholds", "training", "trees", "vetoes", "wording", "words",
)  # fmt: skip
"""Files of the technique that fit and decide."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeveralRight(LabelledLookup):
    """A look-up for which several different stored answers are right: duplicates that were answered one by one."""

    right_answers: frozenset[str]

    def is_right(self, candidate: int | None) -> bool:
        """Return whether a neighbour's answer is one of the right ones; False for none."""
        return candidate is not None and self.lookup.neighbours[candidate].answer in self.right_answers


def lookups_of(stream: Stream, questions: Questions) -> list[Lookup]:
    """Return the look-ups of a stream with their neighbours, vectors included."""
    found = []
    for row, (question, entries) in enumerate(zip(stream.asked.tolist(), stream.neighbours.tolist(), strict=True)):
        known = [entry for entry in entries if entry >= 0]
        neighbours = tuple(
            Neighbour(entry=entry, text=questions.texts[entry], answer=str(answer), cosine=float(cosine))
            for entry, answer, cosine in zip(known, stream.answers[row], stream.cosines[row], strict=False)
        )
        text, vector, vectors = questions.texts[question], questions.vectors[question], questions.vectors[known]
        found.append(Lookup(text=text, neighbours=neighbours, vector=vector, vectors=vectors))
    return found


def labelled(stream: Stream, questions: Questions) -> list[SeveralRight]:
    """Return look-ups with the answers that are right; those whose nearest right answer is the same share a fold."""
    examples = []
    for row, lookup in enumerate(lookups_of(stream, questions)):
        right = [str(answer) for answer in stream.answers[row][stream.right[row]]]
        examples.append(SeveralRight(lookup=lookup, answer=right[0] if right else "", right_answers=frozenset(right)))
    return examples


def scored(assessor: Assessor, stream: Stream, questions: Questions) -> Scored:
    """Return for each look-up the probability of the neighbour that would be served, and whether it is right."""
    found = []
    lookups = lookups_of(stream, questions)
    for start in range(0, len(lookups), CHUNK):
        found += assessor.assess(lookups[start : start + CHUNK])
    candidate = np.array([-1 if one.candidate is None else one.candidate for one in found])
    right = np.take_along_axis(stream.right, np.maximum(candidate, 0)[:, None], axis=1)[:, 0]
    scores = np.array([one.probability for one in found])
    return Scored(scores=np.where(candidate >= 0, scores, -np.inf), right=right & (candidate >= 0))


class OpenCache:
    """The whole cache on a file: exact look-up, index, decision with vectors, answer.

    Args:
        folder: Where the file lies; a filled one is used again.
        texts: Of all questions.
        vectors: float32 (n, dimension) of all questions.
        entries: The first so many are stored.
        policy: Decides.
    """

    def __init__(
        self, folder: Path, *, texts: Sequence[str], vectors: Cosines, entries: int, policy: HitPolicy
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._texts, self._vectors, self._entries = texts, vectors, entries
        self._partition = hashlib.sha256(b"benchmark").digest()
        store = SQLiteStore(folder / "cache.db", encoder="benchmark", dimension=vectors.shape[1])
        number = {text: row for row, text in enumerate(texts)}
        self._cache = SemanticCache(
            store=store,
            encode=lambda asked: vectors[[number[text] for text in asked]],
            on_vectors=policy,
        )
        self.fill_seconds = self._fill(store)

    def _fill(self, store: SQLiteStore) -> float:
        start, held = time.perf_counter(), len(store)
        for row in range(held, self._entries):
            self._cache.put(self._partition, self._texts[row], str(row), now_seconds=0.0, vector=self._vectors[row])
        store.settle(self._partition)
        return time.perf_counter() - start

    def lookups(self, rows: Sequence[int]) -> tuple[float, float]:
        """Return the seconds, of the clock and of the processor, that looking up these questions takes."""
        asked = [self._texts[row] for row in rows]
        start, busy = time.perf_counter(), time.process_time()
        for text in asked:
            self._cache.lookup(self._partition, text, now_seconds=1.0)
        return time.perf_counter() - start, time.process_time() - busy

    def recall(self, rows: Sequence[int]) -> float:
        """Return the share of questions whose nearest entry is among those that were decided about."""
        places, _ = nearest(self._vectors[list(rows)], self._vectors[: self._entries], k=1)
        right = 0
        for row, place in zip(rows, places[:, 0].tolist(), strict=True):
            found = self._cache.lookup(self._partition, self._texts[row], now_seconds=1.0)
            right += self._texts[place] in {near.text for near in found.neighbours}
        return right / len(rows)

    @property
    def hit_rate(self) -> float:
        """Hits over look-ups so far."""
        counts = self._cache.counts
        hits = counts.exact_hits + counts.semantic_hits
        return hits / max(1, hits + counts.misses)

    def close(self) -> None:
        """Close the file."""
        self._cache.store.close()
