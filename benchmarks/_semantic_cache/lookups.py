"""Whole look-ups a second: GPTCache in its own process against ours in this one, in turns, on the same vectors."""

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks._common import Estimate, median_interval
from benchmarks._peers.client import Worker
from benchmarks._peers.environments import python_of
from benchmarks._semantic_cache import peers
from benchmarks._semantic_cache.data import QuestionPairs, batches, encoder_file
from benchmarks._semantic_cache.ours import OpenCache
from benchmarks._semantic_cache.streams import nearest
from halve.demo.training import cache_folder
from halve.techniques.inference.caching.semantic.policy import HitPolicy

ROUNDS = {False: 15, True: 6}
PEER_LOOKUPS, OUR_LOOKUPS = 40, 400
"""In a round; GPTCache's take so much longer."""

FILL_SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What was measured.

    Args:
        ours, gptcache: Look-ups a second.
        ratio: Ours over GPTCache's, round by round.
        processor_ratio: The same by processor time: without waiting for the disk, or for other work on the machine.
        recall: Share of look-ups where our index finds the entry that is nearest.
        agreement: Share of look-ups where GPTCache serves what its rule in `peers.py` says.
    """

    ours: Estimate
    gptcache: Estimate
    ratio: Estimate
    processor_ratio: Estimate
    recall: float
    agreement: float


def log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def encoder_seconds(texts: Sequence[str]) -> float:
    """Return the median seconds of one question alone, tokenization included, on one thread."""
    from halve.techniques.compression.quantization.runtime import open_session

    session = open_session(encoder_file())
    seconds = []
    for text in texts:
        start = time.perf_counter()
        for _, inputs in batches([text]):
            session.run(None, inputs)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def lookups_per_second(pairs: QuestionPairs, *, policy: HitPolicy, entries: int, quick: bool) -> Speeds:
    """Return the speeds with so many stored questions, drawn at random; others are asked.

    Args:
        pairs: Their questions.
        policy: Decides ours; GPTCache has its default.
        entries: Stored questions.
        quick: Fewer rounds.

    Raises:
        PeerError: If GPTCache cannot be installed or fails.
    """
    order = np.random.default_rng(0).permutation(len(pairs.questions.texts))
    rounds = ROUNDS[quick]
    order = order[: entries + rounds * OUR_LOOKUPS]
    texts = [pairs.questions.texts[number] for number in order]
    vectors = pairs.questions.vectors[order]
    identity = hashlib.sha256(f"{pairs.questions.digest} {entries} {len(order)}".encode()).hexdigest()[:16]
    folder = cache_folder() / "semantic-cache-peers" / identity
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "vectors.npy", vectors)
    (folder / "texts.json").write_text(json.dumps(texts))
    with Worker(python=python_of("gptcache", log=log), module="gptcache") as peer:
        files = {"inputs": str(folder / "vectors.npy"), "texts": str(folder / "texts.json")}
        where = {"folder": str((folder / "gptcache").resolve()), "entries": entries}
        peer.ask("open", timeout_seconds=FILL_SECONDS, **where, **files)
        ours = OpenCache(folder / "halve", texts=texts, vectors=vectors, entries=entries, policy=policy)
        asked = [list(range(entries + at * OUR_LOOKUPS, entries + (at + 1) * OUR_LOOKUPS)) for at in range(rounds)]
        peer.ask("lookups", timeout_seconds=600, rows=asked[0][:PEER_LOOKUPS])  # warm-up
        ours.lookups(asked[0])
        seconds, answers = [], {}
        for rows in asked:
            reply = peer.ask("lookups", timeout_seconds=600, rows=rows[:PEER_LOOKUPS])
            answers |= dict(zip(rows, reply["answers"], strict=False))
            mine = ours.lookups(rows)
            seconds.append([[reply["seconds"], reply["processor_seconds"]], mine])
        (theirs, their_busy), (mine, my_busy) = np.moveaxis(np.array(seconds), 0, -1)
        theirs, their_busy, mine, my_busy = (
            theirs / PEER_LOOKUPS, their_busy / PEER_LOOKUPS, mine / OUR_LOOKUPS, my_busy / OUR_LOOKUPS,
        )  # fmt: skip
        recall = ours.recall(asked[0])
        ours.close()
    return Speeds(
        ours=median_interval(1 / mine),
        gptcache=median_interval(1 / theirs),
        ratio=median_interval(theirs / mine),
        processor_ratio=median_interval(their_busy / my_busy),
        recall=recall,
        agreement=_agreement(vectors, answers, entries),
    )


def _agreement(vectors: np.ndarray, answers: dict[int, str | None], entries: int) -> float:
    asked = np.array(sorted(answers))
    places, cosines = nearest(vectors[asked], vectors[:entries], k=1)
    threshold = peers.PLAIN_DEFAULTS["gptcache"]
    expected = [
        f"answer {place}" if cosine >= threshold else None
        for place, cosine in zip(places[:, 0], cosines[:, 0], strict=True)
    ]
    return float(np.mean([answers[row] == one for row, one in zip(asked.tolist(), expected, strict=True)]))
