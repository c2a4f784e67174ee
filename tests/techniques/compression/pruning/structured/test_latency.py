import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.pruning import measure_latency, prunable_groups
from halve.techniques.compression.pruning.structured.latency import (
    Grid,
    LayerShape,
    candidate_widths,
    fast_step,
    layer_shapes,
    single_layer,
)
from halve.techniques.compression.pruning.structured.runtime import open_session


@given(width=st.integers(1, 2000), unit=st.sampled_from([1, 2, 8, 32, 64]), step=st.sampled_from([4, 8, 16]))
def test_widths_are_whole_units_on_the_grid_of_steps(width, unit, step):
    width *= unit
    widths = candidate_widths(width, unit=unit, step=step)
    assert widths[-1] == width
    assert list(widths) == sorted(set(widths))
    assert all(w % unit == 0 and w >= width / 8 for w in widths)
    if np.lcm(unit, step) < width:
        assert all(w % step == 0 for w in widths[:-1])
    assert len(widths) <= 24


def test_seconds_between_grid_points_are_bilinear():
    grid = Grid(inputs=(10, 20), outputs=(10, 30), seconds=np.array([[1.0, 3.0], [2.0, 6.0]]))
    assert grid.at(10, 30) == 3.0
    assert grid.at(15, 20) == 3.0  # halfway: (1 + 3 + 2 + 6) / 4
    assert grid.at(5, 10) == 0.5  # below the lowest: in proportion
    assert grid.at(40, 40) == 6.0


@pytest.mark.parametrize(("middle", "narrow", "step"), [(0.9, 0.8, 4), (0.99, 0.8, 8), (1.0, 0.95, 16)])
def test_the_step_follows_from_timings(middle, narrow, step):
    shape = LayerShape(kind="linear", rows=1, bias=True, inputs=64, outputs=64)
    seconds = {"24": narrow, "28": middle, "32": 1.0}
    assert fast_step([shape], lambda actions: {name: [seconds[name.split()[-1]]] for name in actions}) == step


def test_shapes_are_those_of_a_real_run(build):
    make, inputs = build["residual"]
    shapes = layer_shapes(make(), {name: array[:3] for name, array in inputs().items()})
    # Two views of three images; the stem keeps 8 x 8, the next has stride 2.
    assert (shapes["network.0"].rows, shapes["network.0"].space) == (6, (8, 8))
    assert (shapes["network.6.body.0"].space, shapes["network.6.body.0"].outputs) == ((4, 4), 32)
    assert (shapes["network.9"].kind, shapes["network.9"].rows) == ("linear", 6)


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape(kind="linear", rows=3, bias=True, inputs=8, outputs=4),
        LayerShape(kind="linear", rows=3, bias=False, inputs=8, outputs=4),
        LayerShape(kind="conv", rows=2, space=(6, 7), kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1),
                   bias=True, inputs=8, outputs=4),
        LayerShape(kind="depthwise", rows=2, space=(9,), kernel=(3,), stride=(1,), padding=(0,), dilation=(2,),
                   bias=True, inputs=8, outputs=8),
    ],
)  # fmt: skip
def test_a_layer_alone_runs_at_its_shape(shape):
    content, feed = single_layer(shape)
    outputs = open_session(content).run(None, feed)[0]
    space = {"linear": (), "conv": (3, 4), "depthwise": (5,)}[shape.kind]
    assert outputs.shape == (shape.rows, shape.outputs, *space)


def test_equal_layers_are_measured_once(build):
    make, inputs = build["bert"]
    module, timed = make(), []

    def timer(actions):
        timed.append(len(actions))
        return {name: [1.0] for name in actions}

    groups = prunable_groups(module, inputs())
    table = measure_latency(module, groups, inputs(), timer=timer)
    # The step, then the four products of attention (32 to 32), the neurons' two layers, and the head.
    assert len(timed) == 1 + 4
    assert len(table.grids) == 2 * 6 + 1
    assert table.seconds({}) == len(table.grids)


def test_the_table_follows_the_widths(build, proportional):
    make, inputs = build["plain"]
    module = make(hidden=64)
    table = measure_latency(module, prunable_groups(module, inputs()), inputs(), timer=proportional)
    # Fixed cost 1 and in x out / 100: 6 x 64, 64 x 64, 64 x 3.
    assert table.seconds({}) == pytest.approx(3 + (6 * 64 + 64 * 64 + 64 * 3) / 100)
    assert table.seconds({"0": 32}) == pytest.approx(3 + (6 * 32 + 32 * 64 + 64 * 3) / 100)
    assert table.layer_seconds("2", {"0": 32, "2": 16}) == pytest.approx(1 + 32 * 16 / 100)


def test_it_measures_by_itself():
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)).eval()
    inputs = {"x": np.ones((1, 8), np.float32)}
    table = measure_latency(module, prunable_groups(module, inputs), inputs)
    assert table.seconds({}) > 0
    assert table.step in (4, 8, 16)


def test_what_cannot_be_is_named(build):
    make, inputs = build["plain"]
    with pytest.raises(InvalidParameterError, match="batch_size"):
        measure_latency(make(), (), inputs(), batch_size=0)
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        measure_latency(nn.ReLU(), (), inputs())
