"""At least the strong model's quality minus a margin, with 95 % confidence: what does a chain save, and does it hold?

Answers of real models were recorded once; every method chooses among the same answers. Sets:

- gsm8k, crux: 14 and 15 models of 2024, USD from prices and characters (4 per token); o1's hidden reasoning is not
  recorded, so it looks cheaper than it is. crux has no question texts: answers alone are charged.
- routerbench: MBPP, ARC-Challenge and Winogrande as one traffic, 11 models, the USD that were really paid.
- vision, intents: the models of `halve optimize examples/vision.yaml` and `intents.yaml`, if their run folders are
  here; seconds of one vCPU.

Each of 200 splits is drawn anew. halve searches chains of up to three answerers on a quarter of the questions. The
others are the population: as many draws from it, with replacement, as 45 % of the set certify by fixed-sequence
testing with the gate's exact bound; what was never drawn is the test part, on which USD are counted. A violation is a
drop above the margin over the population, which is known without noise; the rate on the test part alone, noise and
all, is a second figure, and the only one for the peers. 1 point takes 3,000 certify draws or so; a smaller set gets
the smallest whole margin that its number of draws proves for a chain that loses nothing and differs on 5 %.

Peers: FrugalGPT's optimiser (written from the paper), BARGAIN 0.1.3 (run), the best single model chosen by the same
procedure, the best random mixture at the same spend, and the oracle: the same chains tuned on the test part itself.
The provable oracle tunes there too, but the certify draws must prove its choice as they must prove ours: the difference
between the two oracles is what proof alone costs, whatever the search.

Shifted streams: calibrated without the hardest part of a set, then 20,000 usual requests and 180,000 of that part, one
request in ten shadowed, with `Watch`.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks._cascade import bargain, methods, shift
from benchmarks._cascade.chains import Scorers
from benchmarks._cascade.recorded import Recorded, crux, gsm8k, routerbench, served_here
from benchmarks._cascade.splits import Choice, provable_margin, split, strong_alone
from benchmarks._common import Estimate, Result, main, median_interval, table
from benchmarks._peers.environments import PeerError
from halve.gate.exact import clopper_pearson
from halve.techniques.inference.cascading.ledger import random_control

SPLITS = {False: 200, True: 6}
STREAMS = {False: 40, True: 3}
MOST_EXAMPLES = 16_000
SETS: Mapping[str, Callable[[], Recorded | None]] = {
    "gsm8k": gsm8k,
    "crux": crux,
    "routerbench": routerbench,
    "vision": lambda: served_here("vision", MOST_EXAMPLES),
    "intents": lambda: served_here("intents", MOST_EXAMPLES),
}
METHODS = ("halve", "frugal_gpt", "bargain", "best_single", "oracle", "provable_oracle")
AT_ONCE = max(1, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One split: what each method did, and the random control at our spend."""

    margin: float
    strong: Choice
    by_method: dict[str, Choice]
    test_quality: float
    unsearched_drop: float
    random_quality: float
    job: bargain.Job | None
    tests: int


@lru_cache(maxsize=4)
def recorded_set(name: str) -> Recorded | None:
    return SETS[name]()


def one_split(name: str, seed: int) -> Row:
    """Return what every method but BARGAIN did on one split."""
    recorded = recorded_set(name)
    assert recorded is not None
    part = split(recorded.questions, seed)
    margin = provable_margin(len(part.certify))
    scorers = Scorers(recorded, part.search, methods.OURS)
    certified = methods.certified(recorded, part, margin, scorers)
    ours = methods.on_test(recorded, scorers, certified.chain, part.test)
    control = random_control(
        recorded.answerers,
        scores=recorded.scores[:, part.test],
        usd=recorded.usd[:, part.test],
        spend_per_request=ours.usd,
    )
    quality = float(recorded.scores[recorded.strong, part.test].mean()) - ours.drop
    tested = scorers.tables(part.test)
    unsearched = methods.on_test(recorded, scorers, certified.chain, part.unsearched)
    return Row(
        margin=margin,
        unsearched_drop=unsearched.drop,
        strong=strong_alone(recorded, part.test),
        by_method={
            "halve": ours,
            "frugal_gpt": methods.frugal_gpt(recorded, part, margin),
            "best_single": methods.single(recorded, part, margin),
            "oracle": methods.oracle(recorded, tested, part.test, margin),
            "provable_oracle": methods.provable_oracle(recorded, scorers, tested, part, margin),
        },
        test_quality=quality,
        random_quality=control.quality,
        job=bargain.job(recorded, part, margin, scorers, seed),
        tests=len(certified.tests),
    )


def one_stream(name: str, seed: int) -> shift.Stream | None:
    recorded = recorded_set(name)
    assert recorded is not None
    return shift.stream(recorded, seed)


def in_processes(function: Callable[[str, int], Any], name: str, count: int) -> Iterator[Any]:
    """Yield results in order of the seed, computed side by side."""
    with ProcessPoolExecutor(AT_ONCE, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(function, [name] * count, range(count), chunksize=max(1, count // (4 * AT_ONCE)))


def with_bargain(recorded: Recorded, rows: Sequence[Row]) -> list[Row]:
    """Add what BARGAIN did; where it cannot be had, say why and leave it out."""
    jobs = [(place, row.job) for place, row in enumerate(rows) if row.job is not None]
    try:
        found = bargain.choices(recorded, [one for _, one in jobs], log=log)
    except PeerError as error:
        log(f"bargain left out: {error}")
        return list(rows)
    chosen = {place: choice for (place, _), choice in zip(jobs, found, strict=True)}
    for place, row in enumerate(rows):
        row.by_method["bargain"] = chosen.get(place, row.strong)
    return list(rows)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def saving_rate(rows: Sequence[Row], method: str) -> float:
    """Return the share of the strong model's USD that a method saves, over all splits together."""
    spent = sum(row.by_method[method].usd for row in rows)
    return 1 - spent / sum(row.strong.usd for row in rows)


def violations(rows: Sequence[Row], method: str) -> int:
    return sum(row.by_method[method].drop > row.margin + 1e-12 for row in rows)


def broken_promises(rows: Sequence[Row]) -> int:
    """Return in how many splits our chain loses more than the margin on all that the search never saw."""
    return sum(row.unsearched_drop > row.margin + 1e-12 for row in rows)


def best_single_in_hindsight(recorded: Recorded, rows: Sequence[Row]) -> tuple[str, float]:
    """Return the cheapest model that is at least as good as our chains were on average, and its USD per request."""
    quality = np.mean([row.test_quality for row in rows])
    scores, usd = recorded.scores.mean(axis=1), recorded.usd.mean(axis=1)
    enough = np.flatnonzero(scores >= quality - 1e-9)
    place = int(enough[np.argmin(usd[enough])])
    return recorded.answerers[place], float(usd[place])


def rate(count: int, n: int) -> Estimate:
    """Return a rate with its exact 95 % interval."""
    interval = clopper_pearson(count, n=n, level=0.05)
    return Estimate(median=count / n, low=interval.low, high=interval.high)


def figures_of(recorded: Recorded, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of one set, without its name."""
    ours = [row.by_method["halve"] for row in rows]
    shares = [
        (row.strong.usd - row.by_method["halve"].usd) / (row.strong.usd - row.by_method["oracle"].usd) for row in rows
    ]
    saved, best = saving_rate(rows, "halve"), saving_rate(rows, "oracle")
    name, usd = best_single_in_hindsight(recorded, rows)
    return {
        "violation_rate": rate(broken_promises(rows), len(rows)),
        "violation_rate_on_test_part": rate(violations(rows, "halve"), len(rows)),
        "usd_saved_rate": saved,
        "usd_saved_share_of_oracle": saved / best,
        "usd_saved_share_of_provable_oracle": saved / saving_rate(rows, "provable_oracle"),
        "provable_share_of_oracle": saving_rate(rows, "provable_oracle") / best,
        "usd_saved_share_of_oracle_by_split": median_interval(shares),
        "usd_saved_vs_best_single_model": 1
        - sum(one.usd for one in ours) / sum(row.by_method["best_single"].usd for row in rows),
        "usd_saved_vs_best_single_model_in_hindsight": 1 - float(np.mean([one.usd for one in ours])) / usd,
        "best_single_model_in_hindsight": name,
        "quality_gain_over_random_points": median_interval(
            [100 * (row.test_quality - row.random_quality) for row in rows]
        ),
        "drop_points": median_interval([100 * one.drop for one in ours]),
        "margin_points": 100 * rows[0].margin,
        "questions": float(recorded.questions),
        "strong_usd_per_1k_requests": 1000 * float(np.mean([row.strong.usd for row in rows])),
        "strong_alone_share": float(np.mean([one.usd == row.strong.usd for one, row in zip(ours, rows, strict=True)])),
    }


def peers_of(rows: Sequence[Row]) -> dict[str, dict[str, float | str | Estimate]]:
    """Return what the others did: saving, violations, drop."""
    found: dict[str, dict[str, float | str | Estimate]] = {}
    for method in METHODS[1:]:
        if any(method not in row.by_method for row in rows):
            continue
        drops = [100 * row.by_method[method].drop for row in rows]
        found[method] = {
            "usd_saved_rate": saving_rate(rows, method),
            "violation_rate": violations(rows, method) / len(rows),
            "drop_points": median_interval(drops),
        }
    return found


def shift_figures(streams: Sequence[shift.Stream]) -> dict[str, float]:
    """Return how often a shift broke the promise, and how often the watch had restored it by the end."""
    if not streams:
        return {}
    broken = [one for one in streams if one.broken]
    return {
        "shift_streams": float(len(streams)),
        "shift_broken_unwatched_share": float(np.mean([one.broken for one in streams])),
        "shift_broken": float(len(broken)),
        "shift_restored": float(sum(one.restored for one in broken)),
        "shift_clearly_broken": float(sum(one.clearly_broken for one in streams)),
        "shift_clearly_broken_restored": float(sum(one.clearly_broken and one.restored for one in streams)),
        "shift_drop_over_margin_unwatched": float(np.mean([one.unwatched_drop / one.margin for one in streams])),
        "shift_drop_over_margin_watched": float(np.mean([one.watched_drop / one.margin for one in streams])),
        "shift_false_alarms": float(sum(one.false_alarm for one in streams)),
        "shift_shadow_share_of_strong_usd": float(np.mean([one.shadow_share for one in streams])),
        "shift_saving_rate": float(np.mean([one.saving_rate for one in streams])),
    }


def run(quick: bool) -> Result:
    os.environ["OMP_NUM_THREADS"] = "1"
    started, result, lines, left_out = time.perf_counter(), Result(), [], []
    all_rows: dict[str, list[Row]] = {}
    totals: dict[str, float] = {}
    for name in SETS:
        recorded = recorded_set(name)
        if recorded is None:
            left_out.append(name)
            continue
        log(f"{name}: {recorded.questions} questions, strong model {recorded.answerers[recorded.strong]}")
        rows = with_bargain(recorded, list(in_processes(one_split, name, SPLITS[quick])))
        all_rows[name] = rows
        result.figures |= {f"{key}_{name}": value for key, value in figures_of(recorded, rows).items()}
        for peer, values in peers_of(rows).items():
            result.peers.setdefault(peer, {}).update({f"{key}_{name}": value for key, value in values.items()})
        streams = [one for one in in_processes(one_stream, name, STREAMS[quick]) if one is not None]
        found = shift_figures(streams)
        result.figures |= {f"{key}_{name}": value for key, value in found.items()}
        totals = {key: totals.get(key, 0.0) + value for key, value in found.items()}
        lines += table_lines(name, rows)
    result.figures |= summary(result, all_rows, totals)
    result.figures["left_out"] = left_out
    result.figures["seconds"] = time.perf_counter() - started
    print(table(("set: method", "USD saved", "violations", "drop, points"), lines))
    for key in ("violation_rate", "usd_saved_share_of_oracle_min", "shift_promise_restored_share"):
        print(f"{key}: {result.figures[key]}")
    return result


def summary(result: Result, all_rows: Mapping[str, Sequence[Row]], totals: Mapping[str, float]) -> dict[str, Any]:
    """Return the figures over all sets: the worst violation rate, the least share of the oracle, shifts restored."""
    rates = [broken_promises(rows) / len(rows) for rows in all_rows.values()]
    on_test = [violations(rows, "halve") / len(rows) for rows in all_rows.values()]
    shares = [result.figures[f"usd_saved_share_of_oracle_{name}"] for name in all_rows]
    return {
        "violation_rate": max(rates),
        "violation_rate_of_all_splits": float(np.mean(rates)),
        "violation_rate_on_test_part": max(on_test),
        "violation_rate_on_test_part_of_all_splits": float(np.mean(on_test)),
        "usd_saved_share_of_oracle_min": min(float(share) for share in shares if isinstance(share, float)),
        "shift_promise_restored_share": totals["shift_restored"] / max(totals["shift_broken"], 1.0),
        "shift_clear_break_restored_share": totals["shift_clearly_broken_restored"]
        / max(totals["shift_clearly_broken"], 1.0),
        "shift_false_alarm_share": totals["shift_false_alarms"] / max(totals["shift_streams"], 1.0),
    }


def table_lines(name: str, rows: Sequence[Row]) -> list[list[object]]:
    lines: list[list[object]] = []
    for method in METHODS:
        if all(method in row.by_method for row in rows):
            drop = 100 * float(np.mean([row.by_method[method].drop for row in rows]))
            broken = violations(rows, method) / len(rows)
            lines.append([f"{name}: {method}", f"{saving_rate(rows, method):.3f}", f"{broken:.3f}", f"{drop:.2f}"])
    return lines


if __name__ == "__main__":
    main("cascade", run, packages=("scipy", "pyarrow"))
