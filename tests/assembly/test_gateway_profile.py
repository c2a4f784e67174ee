import sys

import numpy as np

from halve.assembly.gateway_profile import _table_stack, serve_command
from halve.assembly.serving import make_chain
from halve.core import ServiceCurve
from halve.optimize.store import load_stack
from halve.serving.gateway import answer_offline


def test_the_gateway_was_profiled_in_seconds_per_request(finished_run):
    curve = ServiceCurve.load(finished_run.folder / "curves" / "gateway.json")
    assert curve.batch_sizes == (1,)
    assert len(curve.samples_seconds[0]) >= 3
    assert 1e-6 < float(curve.median_seconds[0]) < 0.1


def test_the_table_behind_it_answers_every_payload(tmp_path):
    tensors = [np.full(3, i, np.float32) for i in range(5)]
    texts = ["a", "b c", "ü"]
    for name, payloads, datatype in (("tensors", tensors, "FP32"), ("texts", texts, "BYTES")):
        folder = tmp_path / name
        stack = _table_stack(payloads, folder)
        assert load_stack(folder / "stack.yaml") == stack
        chain = make_chain(stack, folder=folder)
        assert chain.takes.datatype == datatype
        assert len(answer_offline(chain, payloads)) == len(payloads)


def test_a_stack_is_served_by_this_very_interpreter(tmp_path):
    stack = tmp_path / "stack.yaml"
    command = serve_command(stack, port=7)
    assert command == [sys.executable, "-m", "halve.cli", "serve", str(stack), "--port", "7"]
    config = tmp_path / "halve.yaml"
    assert serve_command(stack, port=7, config=config) == [*command, "--config", str(config)]
