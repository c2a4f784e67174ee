"""What is compared: our certified chain, FrugalGPT's optimiser, the best single model, the oracle, random."""

from benchmarks._cascade.chains import Scorers, Style
from benchmarks._cascade.recorded import USD_PER_VCPU_SECOND, Recorded
from benchmarks._cascade.splits import CONFIDENCE, Choice, Rows, Split, bound, strong_alone
from halve.techniques.inference.cascading.chain_search import ChainPoints, candidates, chain_points, cheapest
from halve.techniques.inference.cascading.chains import Chain, ChainTable, run_chain
from halve.techniques.inference.cascading.guarantee import CertifiedChain, certified_chain

OURS = Style()
FRUGAL = Style(agreement=False)
ENCODER_SECONDS = 0.03
"""MiniLM on one vCPU, per question, rounded up from what encoding these sets took."""

SINGLES = Style(stages=1, answerers=99)


def certified(recorded: Recorded, part: Split, margin: float, scorers: Scorers) -> CertifiedChain:
    """Return the chain that the search proposes and the certify rows allow."""
    strong = recorded.scores[recorded.strong]
    points = [
        chain_points(table, strong_scores=strong[part.search], expected_losses=scorers.expected_losses(structure))
        for structure, table in zip(scorers.structures(), scorers.tables(), strict=True)
    ]
    return _allowed(recorded, part, margin, scorers, points)


def _allowed(
    recorded: Recorded, part: Split, margin: float, scorers: Scorers, points: list[ChainPoints]
) -> CertifiedChain:
    """Return the boldest of the candidates among these points that the certify rows allow."""
    strong = recorded.scores[recorded.strong]
    tried = candidates(points, quality_drop_at_most=margin, certify_requests=len(part.certify), confidence=CONFIDENCE)
    return certified_chain(
        tried,
        run=lambda chain: run_chain(scorers.table(chain.names, part.certify), chain),
        strong_scores=strong[part.certify],
        quality_drop_at_most=margin,
        upper_bound=bound,
    )


def on_test(recorded: Recorded, scorers: Scorers, chain: Chain | None, rows: Rows) -> Choice:
    """Return what a chain, or without one the strong model, does with these rows."""
    if chain is None:
        return strong_alone(recorded, rows)
    run = run_chain(scorers.table(chain.names, rows), chain)
    drop = float((recorded.scores[recorded.strong, rows] - run.scores).mean())
    usd = float(run.usd.mean()) + encoder_usd(recorded, scorers.style, chain)
    return Choice(usd=usd, drop=drop, label=" > ".join(chain.names))


def encoder_usd(recorded: Recorded, style: Style, chain: Chain) -> float:
    """Return what a question's vector costs, where a chain's scorers look at neighbours."""
    looks = style.agreement and recorded.vectors is not None and len(chain.names) > 1
    return ENCODER_SECONDS * USD_PER_VCPU_SECOND if looks else 0.0


def oracle(recorded: Recorded, tables: list[ChainTable], rows: Rows, margin: float) -> Choice:
    """Return the cheapest setting of any chain of the family whose drop on the test rows is at most the margin.

    It sees the test rows, so it is no method, but a limit; noise flatters it as well.
    """
    strong = recorded.scores[recorded.strong, rows]
    points = [chain_points(table, strong_scores=strong) for table in tables]
    found = cheapest(points, quality_drop_at_most=margin)
    assert found is not None, "the strong model alone loses nothing"
    usd = found.usd_per_request + encoder_usd(recorded, OURS, found.chain)
    return Choice(usd=usd, drop=found.quality_drop, label=" > ".join(found.chain.names))


def provable_oracle(
    recorded: Recorded, scorers: Scorers, tables: list[ChainTable], part: Split, margin: float
) -> Choice:
    """Return what a search that knows the test rows proposes and the certify draws allow, tested as ours is.

    What a better search could reach with the same proof on as many draws, on average: one split may be luckier.

    Args:
        recorded: A set.
        scorers: Of its answerers.
        tables: Of all chains, on the test rows.
        part: One split.
        margin: The drop allowed.
    """
    strong = recorded.scores[recorded.strong]
    points = [chain_points(table, strong_scores=strong[part.test]) for table in tables]
    return on_test(recorded, scorers, _allowed(recorded, part, margin, scorers, points).chain, part.test)


def single(recorded: Recorded, part: Split, margin: float) -> Choice:
    """Return the cheapest single model that the same procedure certifies."""
    scorers = Scorers(recorded, part.search, SINGLES)
    return on_test(recorded, scorers, certified(recorded, part, margin, scorers).chain, part.test)


def frugal_gpt(recorded: Recorded, part: Split, margin: float) -> Choice:
    """Return what FrugalGPT's optimiser chooses: chains of up to three, thresholds tuned, no guarantee.

    A scorer per answerer says how likely its answer is right; lists and thresholds are chosen for the least cost at
    an accuracy on the calibration rows of at least the strong model's minus the margin. Our scorer stands in for
    its DistilBERT, and is cross-fitted, which helps it.

    Source: Chen, Zaharia & Zou 2023, FrugalGPT, arXiv:2305.05176, section 3.
    """
    scorers = Scorers(recorded, part.calibration, FRUGAL)
    strong = recorded.scores[recorded.strong, part.calibration]
    points = [chain_points(table, strong_scores=strong) for table in scorers.tables()]
    found = cheapest(points, quality_drop_at_most=margin)
    return on_test(recorded, scorers, found.chain if found else None, part.test)
