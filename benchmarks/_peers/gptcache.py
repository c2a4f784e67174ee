"""GPTCache as its documentation sets it up: SQLite for texts, faiss for vectors, distance as similarity, threshold 0.8.

Runs in GPTCache's own environment. Vectors are given, so its embedding function is a look-up in a table. Its
eviction limit is raised above the number of entries, its answers are read through `gptcache.adapter.api.get`, its
public call. Requests are JSON lines on stdin, answers JSON lines on what was stdout.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FILL = 1000
"""Entries imported per call."""


class Server:
    """One cache and the texts that it is asked."""

    def open(self, *, folder: str, inputs: str, texts: str, entries: int) -> dict[str, Any]:
        """Fill a cache with the first texts, or open what an earlier call filled.

        Args:
            folder: Where the cache lies, or is to lie.
            inputs: An .npy file, float32 (n, dimension): unit vectors of all texts.
            texts: A JSON file: the texts.
            entries: How many are stored; the others are for look-ups.
        """
        from gptcache import Config, cache
        from gptcache.manager import CacheBase, VectorBase, get_data_manager
        from gptcache.processor.pre import get_prompt
        from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation

        vectors = np.load(inputs)
        self.texts: list[str] = json.loads(Path(texts).read_text())
        self.number = {text: row for row, text in enumerate(self.texts)}
        Path(folder).mkdir(parents=True, exist_ok=True)
        scalar = CacheBase("sqlite", sql_url=f"sqlite:///{folder}/texts.db")
        vector = VectorBase("faiss", dimension=vectors.shape[1], index_path=f"{folder}/faiss.index")
        manager = get_data_manager(scalar, vector, max_size=2 * len(self.texts))
        cache.init(
            pre_embedding_func=get_prompt,
            embedding_func=lambda text, **_: vectors[self.number[text]],
            data_manager=manager,
            similarity_evaluation=SearchDistanceEvaluation(),
            config=Config(similarity_threshold=0.8),
        )
        start = time.perf_counter()
        if not Path(folder, "filled").is_file():
            for first in range(0, entries, FILL):
                rows = range(first, min(first + FILL, entries))
                manager.import_data(
                    [self.texts[row] for row in rows],
                    [f"answer {row}" for row in rows],
                    [vectors[row] for row in rows],
                    [None] * len(rows),
                )
            manager.flush()
            Path(folder, "filled").touch()
        return {"entries": manager.v.count(), "seconds": time.perf_counter() - start}

    def lookups(self, *, rows: list[int]) -> dict[str, Any]:
        """Return the answers, None for a miss, and the seconds, of the clock and of the processor, that all took."""
        from gptcache.adapter.api import get

        asked = [self.texts[row] for row in rows]
        start, busy = time.perf_counter(), time.process_time()
        answers = [get(text) for text in asked]
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "processor_seconds": time.process_time() - busy, "answers": answers}


def main() -> None:
    """Answer requests until stdin ends."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(server, request.pop("do"))(**request)
        except Exception as error:  # Whatever a peer raises is a finding, to be reported.
            import traceback

            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}
        channel.write(json.dumps(reply) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
