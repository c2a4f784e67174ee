from collections import Counter

import onnx
import pytest

from halve.errors import InvalidParameterError
from halve.techniques.compression.quantization.agreement import relative_rmse
from halve.techniques.compression.quantization.graph import Graph
from halve.techniques.compression.quantization.recipes import StaticRecipe, carry_out, worth_trying
from halve.techniques.compression.quantization.runtime import run_logits


@pytest.fixture
def residual_graph(exported):
    return Graph.load(exported / "residual.onnx")


@pytest.fixture
def encoder_graph(exported):
    return Graph.load(exported / "encoder.onnx")


def test_names_say_what_is_done():
    assert StaticRecipe().name == "W8A8, minmax ranges"
    full = StaticRecipe(weight_bits=4, observer="mse", rounding="gptq", equalize=True, smooth=0.9, correct_biases=True)
    assert full.name == "W4A8, mse ranges, equalized, smoothed by 0.9, gptq, biases corrected"


def test_only_what_may_help_is_tried(residual_graph, encoder_graph):
    convolutional = list(worth_trying(residual_graph, StaticRecipe()))
    transformer = list(worth_trying(encoder_graph, StaticRecipe()))
    assert convolutional[0] == transformer[0] == StaticRecipe()
    assert any(recipe.equalize for recipe in convolutional)
    assert not any(recipe.smooth for recipe in convolutional)
    assert any(recipe.smooth for recipe in transformer)
    assert not any(recipe.equalize for recipe in transformer)
    few = list(worth_trying(residual_graph, StaticRecipe(weight_bits=4)))
    assert {recipe.rounding for recipe in few} == {"nearest", "gptq", "adaround"}
    for recipes in (convolutional, transformer, few):
        assert len({recipe.name for recipe in recipes}) == len(recipes)


def test_every_recipe_gives_a_model_near_its_parent(residual_graph, images):
    expected = run_logits(residual_graph.to_bytes(), images)
    for recipe in worth_trying(residual_graph, StaticRecipe()):
        content = carry_out(recipe, residual_graph, batches=images).written()
        assert 0 < relative_rmse(expected, run_logits(content, images)) < 0.05


def test_few_bits_spare_the_edges_and_fill_the_rest(residual_graph, images):
    plan = carry_out(StaticRecipe(weight_bits=4, activation_bits=4), residual_graph, batches=images)
    layers = plan.graph.layers
    bits = [plan.weights[layer.name].grid.scheme.bits for layer in layers]
    assert bits == [8, *[4] * (len(layers) - 2), 8]
    assert [plan.activations[layer.input].scheme.bits for layer in layers] == bits
    bare = carry_out(StaticRecipe(weight_bits=4, edge_bits=4), residual_graph, batches=images)
    assert {weight.grid.scheme.bits for weight in bare.weights.values()} == {4}


def test_layers_left_out_stay_fp32_and_cost_no_conversion(residual_graph, images):
    plan = carry_out(StaticRecipe(), residual_graph, batches=images)
    all_names = frozenset(layer.name for layer in plan.graph.layers)
    nothing = onnx.load_from_string(plan.written(fp32_layers=all_names))
    assert "QuantizeLinear" not in {node.op_type for node in nothing.graph.node}
    first = frozenset({plan.graph.layers[0].name})
    counts = [
        Counter(node.op_type for node in onnx.load_from_string(plan.written(fp32_layers=names)).graph.node)
        for names in (frozenset(), first)
    ]
    assert counts[1]["DequantizeLinear"] < counts[0]["DequantizeLinear"]


@pytest.mark.parametrize("name", ["weight_bits", "activation_bits", "edge_bits"])
@pytest.mark.parametrize("bits", [1, 9])
def test_bits_are_two_to_eight(name, bits):
    with pytest.raises(InvalidParameterError, match=f"{name} must be 2 to 8. Got {bits}"):
        StaticRecipe(**{name: bits})
