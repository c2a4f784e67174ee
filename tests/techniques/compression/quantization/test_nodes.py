from onnx import parser

from halve.techniques.compression.quantization.nodes import (
    attributes,
    opset,
    remove_unused,
    replace_field,
    tensor_names,
    unique,
    used_names,
)

BRANCHES = """
<ir_version: 10, opset_import: ["" : 18]>
branches (float[N] x, bool flag) => (float[N] y) {
    doubled = Add (x, x)
    unread = Neg (x)
    y = If (flag) <then_branch = g () => (float[N] a) { a = Identity (doubled) },
                   else_branch = h () => (float[N] b) { b = Neg (x) }>
}
"""


def test_a_node_reads_what_its_inner_graphs_take_from_outside():
    model = parser.parse_model(BRANCHES)
    assert {"flag", "doubled", "x"} <= set(used_names(model.graph.node[2]))
    assert {"x", "y", "flag", "doubled", "unread"} <= tensor_names(model.graph)
    assert opset(model) == 18


def test_only_what_no_output_needs_is_removed():
    model = parser.parse_model(BRANCHES)
    remove_unused(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Add", "If"]


def test_attributes_fields_and_names():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[N] x) => (float[N] y) {y = LeakyRelu<alpha = 0.5>(x)}'
    )
    node = model.graph.node[0]
    assert attributes(node) == {"alpha": 0.5}
    replace_field(node.input, [name.upper() for name in node.input])
    assert list(node.input) == ["X"]
    taken = {"a"}
    assert [unique("a", taken), unique("a", taken), unique("b", taken)] == ["a_2", "a_3", "b"]
