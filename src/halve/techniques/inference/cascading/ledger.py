"""What a cascade cost, line by line, and what the same money would have bought without looking at the requests."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from halve.errors import InvalidParameterError
from halve.techniques.inference.cascading.chains import ChainRun, ChainTable, Numbers


@dataclass(frozen=True, kw_only=True)
class CascadeLedger:
    """USD of one run. Lines add up to the total; a saving below 0 is a loss and is shown as one.

    Args:
        requests: Requests served.
        accepted_usd: Calls of early answerers whose answer stood.
        rejected_usd: Calls of early answerers whose answer did not stand.
        strong_usd: Calls of the last answerer.
        shadow_usd: Calls made only to watch the promise.
        encoder_usd: Vectors for routing by neighbours.
        lost_discount_usd: What the last answerer's provider would have taken off for prompts in its cache, had all
            requests gone there.
        strong_only_usd: What the strong answerer alone would have cost for the same requests.
    """

    requests: int
    accepted_usd: float
    rejected_usd: float
    strong_usd: float
    shadow_usd: float = 0.0
    encoder_usd: float = 0.0
    lost_discount_usd: float = 0.0
    strong_only_usd: float

    @property
    def lines(self) -> dict[str, float]:
        """Return the cost lines by name, without the comparison."""
        names = [field.name for field in fields(self)]
        return {name: getattr(self, name) for name in names if name not in ("requests", "strong_only_usd")}

    @property
    def total_usd(self) -> float:
        """Return the sum of the lines."""
        return sum(self.lines.values())

    @property
    def saved_usd(self) -> float:
        """Return what the strong answerer alone would have cost beyond the total."""
        return self.strong_only_usd - self.total_usd

    @property
    def saving_rate(self) -> float:
        """Return the share of the strong answerer's cost that is saved; 0 where that cost nothing."""
        return self.saved_usd / self.strong_only_usd if self.strong_only_usd > 0 else 0.0


def cascade_ledger(
    table: ChainTable,
    run: ChainRun,
    *,
    strong_usd: Numbers,
    shadows: NDArray[np.bool_] | None = None,
    encoder_usd_per_request: float = 0.0,
    lost_discount_usd_per_strong_call: float = 0.0,
) -> CascadeLedger:
    """Return the ledger of one run.

    Args:
        table: Of the chain.
        run: What it did with the table's requests.
        strong_usd: float64 (n,): what the strong answerer costs on each request.
        shadows: bool (n,): requests that the strong answerer also answered, to watch the promise. Where it was asked
            anyway nothing is added.
        encoder_usd_per_request: For the request's vector, >= 0.
        lost_discount_usd_per_strong_call: What the provider's prompt cache takes off a strong call when it sees all
            requests, and no longer does when it sees few, >= 0.

    Raises:
        InvalidParameterError: If lengths differ or a price is negative.
    """
    n, last = table.requests, len(table.names) - 1
    if strong_usd.shape != (n,) or (shadows is not None and shadows.shape != (n,)):
        raise InvalidParameterError("strong_usd and shadows", rule=f"of shape ({n},)", value=strong_usd.shape)
    if encoder_usd_per_request < 0 or lost_discount_usd_per_strong_call < 0:
        given = (encoder_usd_per_request, lost_discount_usd_per_strong_call)
        raise InvalidParameterError("prices", rule="at least 0", value=given)
    paid = np.where(run.asked, table.usd, 0.0)
    stood = np.arange(last + 1)[:, None] == run.stage
    shadowed = np.zeros(n, dtype=np.bool_) if shadows is None else shadows & (run.stage < last)
    return CascadeLedger(
        requests=n,
        accepted_usd=float(paid[:last][stood[:last]].sum()),
        rejected_usd=float(paid[:last][~stood[:last]].sum()),
        strong_usd=float(paid[last].sum()),
        shadow_usd=float(strong_usd[shadowed].sum()),
        encoder_usd=encoder_usd_per_request * n,
        lost_discount_usd=lost_discount_usd_per_strong_call * int(np.count_nonzero(run.stage == last)),
        strong_only_usd=float(strong_usd.sum()),
    )


@dataclass(frozen=True, kw_only=True)
class RandomControl:
    """The best that the same money buys when requests are sent at random.

    Args:
        first, second: The two answerers, the cheaper first; the same one twice if one alone is best.
        second_share: Share of requests sent to the second.
        quality: Expected mean score.
        usd_per_request: Expected cost, at most the spend.
    """

    first: str
    second: str
    second_share: float
    quality: float
    usd_per_request: float


def random_control(names: Sequence[str], *, scores: Numbers, usd: Numbers, spend_per_request: float) -> RandomControl:
    """Return the best random mixture of two answerers that costs at most the same: a cascade must beat it.

    A mixture that sends a share p to the second costs (1 - p) u_1 + p u_2 and scores (1 - p) q_1 + p q_2, in
    expectation; no draw is made. The best of all pairs is the upper hull of the answerers, "zero router".

    Source: Hu et al. 2024, RouterBench, arXiv:2403.12031.

    Args:
        names: Of the answerers, at least one.
        scores, usd: float64 (answerers, n), on the same requests.
        spend_per_request: What may be spent, USD.

    Raises:
        InvalidParameterError: If shapes do not fit, or even the cheapest answerer costs more.
    """
    if scores.shape != usd.shape or scores.ndim != 2 or scores.shape[0] != len(names) or scores.shape[1] == 0:
        raise InvalidParameterError("scores and usd", rule="of shape (answerers, n), n >= 1", value=scores.shape)
    quality, cost = scores.mean(axis=1), usd.mean(axis=1)
    slack = 1e-9 * max(spend_per_request, 0.0)
    if cost.min() > spend_per_request + slack:
        rule = f"at least what the cheapest answerer costs, {cost.min():.3g} USD"
        raise InvalidParameterError("spend_per_request", rule=rule, value=spend_per_request)
    found: list[RandomControl] = []
    for first in np.flatnonzero(cost <= spend_per_request + slack).tolist():
        for second in np.flatnonzero(cost >= cost[first]).tolist():
            gap = float(cost[second] - cost[first])
            share = 1.0 if gap == 0 else min(1.0, max(0.0, (spend_per_request - float(cost[first])) / gap))
            found.append(
                RandomControl(
                    first=names[first],
                    second=names[second],
                    second_share=share,
                    quality=float((1 - share) * quality[first] + share * quality[second]),
                    usd_per_request=float((1 - share) * cost[first] + share * cost[second]),
                )
            )
    return max(found, key=lambda control: (control.quality, -control.usd_per_request))
