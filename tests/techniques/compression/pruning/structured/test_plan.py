import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import LatencyTable, plan_widths
from halve.techniques.compression.pruning.structured.groups import Group
from halve.techniques.compression.pruning.structured.latency import Grid, candidate_widths


def chain(widths, seconds, *, step=16):
    """Return groups in a chain of layers, 8 in and 4 out, whose seconds are a function of both widths."""
    groups = [Group(name=f"g{i}", width=width, unit=1, members=()) for i, width in enumerate(widths)]
    candidates = {group.name: candidate_widths(group.width, unit=1, step=step) for group in groups}
    ends, grids, sides, whole = [None, *[(group.name, 1) for group in groups], None], {}, {}, {}
    sizes = [8, *widths, 4]
    for i in range(len(sizes) - 1):
        left, right = ends[i], ends[i + 1]
        axes = [
            (size,) if end is None else candidates[end[0]] for size, end in ((sizes[i], left), (sizes[i + 1], right))
        ]
        grids[f"l{i}"] = Grid(
            inputs=axes[0], outputs=axes[1], seconds=np.array([[seconds(a, b) for b in axes[1]] for a in axes[0]])
        )
        sides[f"l{i}"], whole[f"l{i}"] = (left, right), (sizes[i], sizes[i + 1])
    return groups, LatencyTable(grids=grids, whole=whole, sides=sides, candidates=candidates, step=step)


def even(groups):
    return {group.name: np.ones(group.units) for group in groups}


def test_the_least_important_units_go():
    groups, table = chain([32], lambda a, b: a * b)
    scores = {"g0": np.arange(32.0)}
    plan = plan_widths(groups, scores, table, target_ratio=0.5)
    assert plan.kept == {"g0": tuple(range(16, 32))}
    assert plan.widths == {"g0": 16}
    assert plan.predicted_ratio == pytest.approx(0.5)
    assert plan.lost == sum(range(16))


def test_importance_is_lost_where_it_buys_most():
    # Two groups of one size. Their seconds fall alike, one has a tenth of the importance: it is narrowed.
    groups, table = chain([64, 64], lambda a, b: a * b)
    scores = {"g0": np.ones(64), "g1": np.full(64, 0.1)}
    plan = plan_widths(groups, scores, table, target_ratio=0.6)
    assert plan.widths["g0"] > plan.widths["g1"]


def test_a_flat_stretch_is_looked_past():
    # Nothing is saved above 32 channels: the way to the target leads through the flat stretch.
    groups, table = chain([128], lambda a, b: 1.0 if max(a, b) > 32 else 0.3)
    plan = plan_widths(groups, even(groups), table, target_ratio=0.5)
    assert plan.widths == {"g0": 32}


def test_pruned_but_slower_is_never_chosen():
    # 112 channels cost more than 128, and 48 more than 64.
    cost = {128: 10.0, 112: 11.0, 96: 8.0, 80: 7.0, 64: 4.0, 48: 4.5, 32: 2.0, 16: 1.0}
    groups, table = chain([128], lambda a, b: cost[max(a, b)])
    chosen = {plan_widths(groups, even(groups), table, target_ratio=r).widths["g0"] for r in np.linspace(0.1, 1, 60)}
    assert chosen == {128, 96, 80, 64, 32, 16}


def test_what_is_taken_too_much_is_given_back():
    # Narrowing g0 by one step overshoots; then g1, narrowed before, has room to be whole again.
    groups, table = chain([32, 32], lambda a, b: a + b)
    scores = {"g0": np.full(32, 1.0), "g1": np.full(32, 0.9)}
    plan = plan_widths(groups, scores, table, target_ratio=0.79)
    assert sorted(plan.widths.values()) == [16, 32]


@given(
    widths=st.lists(st.integers(2, 12).map(lambda n: 16 * n), min_size=1, max_size=4),
    ratio=st.floats(0.35, 1.0),
    fixed_cost=st.floats(0, 10),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_a_plan_keeps_its_budget_its_grid_and_no_slower_width(widths, ratio, fixed_cost, seed):
    rng = np.random.default_rng(seed)
    noise = rng.uniform(0.8, 1.2, (400, 400))
    groups, table = chain(widths, lambda a, b: fixed_cost + a * b * noise[a, b])
    scores = {group.name: rng.uniform(0.1, 1, group.units) for group in groups}
    try:
        plan = plan_widths(groups, scores, table, target_ratio=ratio)
    except ModelError:
        return
    assert plan.predicted_ratio <= ratio * (1 + 1e-9)
    assert plan.predicted_ratio == pytest.approx(table.seconds(plan.widths) / table.seconds({}))
    for group in groups:
        width = plan.widths[group.name]
        assert width in table.candidates[group.name]
        assert width % 16 == 0
        assert len(plan.kept[group.name]) == width
        for wider in (w for w in table.candidates[group.name] if w > width):
            assert table.seconds({**plan.widths, group.name: wider}) > table.seconds(plan.widths)


def test_groups_that_are_narrower_already_stay_on_the_table():
    _, table = chain([64, 64], lambda a, b: a * b)
    narrow = [Group(name="g0", width=32, unit=1, members=())]
    plan = plan_widths(narrow, {"g0": np.ones(32)}, table, target_ratio=0.2, fixed={"g1": 32})
    assert plan.widths == {"g0": 16}
    assert plan.predicted_ratio == pytest.approx((8 * 16 + 16 * 32 + 32 * 4) / (8 * 64 + 64 * 64 + 64 * 4))


def test_what_cannot_be_is_named():
    groups, table = chain([32], lambda a, b: 1.0)
    with pytest.raises(ModelError, match=r"no pruning reaches 0\.5"):
        plan_widths(groups, even(groups), table, target_ratio=0.5)
    with pytest.raises(InvalidParameterError, match="target_ratio"):
        plan_widths(groups, even(groups), table, target_ratio=0)
    with pytest.raises(InvalidParameterError, match="scores"):
        plan_widths(groups, {}, table, target_ratio=0.5)
    with pytest.raises(InvalidParameterError, match=r"\(32,\)"):
        plan_widths(groups, {"g0": np.ones(3)}, table, target_ratio=0.5)
