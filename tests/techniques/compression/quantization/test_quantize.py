from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halve.errors import ModelError
from halve.techniques.compression.quantization.agreement import Agreement
from halve.techniques.compression.quantization.quantize import (
    quantize_model,
    refuse_if_useless,
    split_batches,
)
from halve.techniques.compression.quantization.recipes import StaticRecipe


def timer_of(ratio_of):
    """Return a timer that runs nothing: fp32 takes a second, an action in integers what `ratio_of` its name says."""

    def timer(actions):
        return {name: [1.0 if name == "fp32" or name.endswith(", fp32") else ratio_of(name)] * 9 for name in actions}

    return timer


FAST = timer_of(lambda name: 0.5)


def test_the_least_error_among_the_fast_ones_is_chosen(exported, images):
    made = quantize_model(exported / "residual.onnx", calibration=images, base=StaticRecipe(), timer=FAST)
    assert made.chosen in made.tried
    assert made.chosen.agreement.relative_rmse == min(each.agreement.relative_rmse for each in made.tried)
    assert len(made.tried) > 3
    assert made.reasons == {}


def test_a_slower_one_is_not_chosen_for_a_smaller_error(exported, images):
    best = quantize_model(exported / "residual.onnx", calibration=images, base=StaticRecipe(), timer=FAST).chosen.name
    slow = timer_of(lambda name: 0.9 if name == best else 0.5)
    made = quantize_model(exported / "residual.onnx", calibration=images, base=StaticRecipe(), timer=slow)
    assert made.chosen.name != best
    assert made.chosen.seconds == 0.5


def test_a_layer_that_is_slower_in_integers_stays_fp32_and_says_so(exported, images):
    path = exported / "residual.onnx"
    first = quantize_model(path, calibration=images, base=StaticRecipe(), tries=False, timer=FAST).plan.graph.layers[0]
    timer = timer_of(lambda name: 2.0 if name.startswith(f"{first.name},") else 0.5)
    made = quantize_model(path, calibration=images, base=StaticRecipe(), tries=False, timer=timer)
    assert made.chosen.fp32_layers == (first.name,)
    assert made.reasons[first.name].startswith("slower in INT8 here: 2000000.0 us, 1000000.0 us in fp32")


def test_the_error_budget_is_kept_by_leaving_sensitive_layers_in_fp32(exported, images):
    path = exported / "residual.onnx"
    base = StaticRecipe(weight_bits=3, edge_bits=3)
    free = quantize_model(path, calibration=images, base=base, tries=False, timer=FAST)
    budget = free.chosen.agreement.relative_rmse / 2
    bound = quantize_model(path, calibration=images, base=base, tries=False, timer=FAST, error_budget=budget)
    assert bound.chosen.agreement.relative_rmse <= budget
    assert 0 < len(bound.chosen.fp32_layers) < len(bound.plan.graph.layers)
    assert all("the budget is" in bound.reasons[name] for name in bound.chosen.fp32_layers)
    assert bound.tried[0] == free.chosen


def test_ten_runs_with_the_same_timings_give_the_same_bytes(exported, images):
    runs = [
        quantize_model(exported / "residual.onnx", calibration=images, base=StaticRecipe(), timer=FAST).content
        for _ in range(10)
    ]
    assert len(set(runs)) == 1


def test_what_is_wrong_or_slower_is_refused_with_the_numbers(exported, images):
    slow = timer_of(lambda name: 1.5 if "ranges" in name else 0.5)
    with pytest.raises(ModelError, match=r"residual\.onnx in integers is no faster here: 1500\.00 ms, 1000\.00 ms in"):
        quantize_model(exported / "residual.onnx", calibration=images, base=StaticRecipe(), tries=False, timer=slow)
    kept = quantize_model(
        exported / "residual.onnx", calibration=images, base=StaticRecipe(), tries=False, timer=slow,
        accept_slower=True,
    )  # fmt: skip
    assert kept.chosen.seconds == 1.5
    wrong = Agreement(argmax_disagreement_share=0.9, relative_rmse=1.2, n=10)
    with pytest.raises(ModelError, match=r"m is wrong here|m in integers is wrong here: its logits are off by 1\.2"):
        refuse_if_useless("m", wrong, seconds=1, fp32_seconds=2, accept_slower=True)
    unknown = Agreement(argmax_disagreement_share=0.9, relative_rmse=float("nan"), n=10)
    with pytest.raises(ModelError, match="is wrong here"):
        refuse_if_useless("m", unknown, seconds=1, fp32_seconds=2, accept_slower=True)


def test_a_model_without_products_is_refused(tmp_path):
    import onnx

    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    nothing (float[n, 4] input) => (float[n, 4] logits) { logits = Relu (input) }
    """
    Path(tmp_path / "relu.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    batches = [{"input": np.ones((4, 4), np.float32)}]
    with pytest.raises(ModelError, match=r"relu\.onnx must hold a Conv, Gemm or MatMul with constant weights"):
        quantize_model(tmp_path / "relu.onnx", calibration=batches, base=StaticRecipe())


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_every_input_calibrates_or_checks_and_none_does_both(sizes):
    numbers = iter(range(1000))
    batches = [{"input": np.array([next(numbers) for _ in range(size)])} for size in sizes]
    fit, check = split_batches(batches)
    left, right = (np.concatenate([batch["input"] for batch in part]).tolist() for part in (fit, check))
    if sum(sizes) < 4 and len(sizes) < 4:
        assert left == right == list(range(sum(sizes)))
    else:
        assert sorted(left + right) == list(range(sum(sizes)))
        assert left
        assert right
