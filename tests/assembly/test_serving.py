import http.client
import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from halve.assembly import entries, make_chain
from halve.assembly.config import Config
from halve.assembly.serving import with_entries
from halve.core import Acceptance, BatchPolicy, Deployment, Gateway, Model, Stack, Stage
from halve.core.documents import dump_yaml, load_yaml
from halve.errors import ConfigError
from halve.measure.artifacts import adopt_files
from halve.optimize.store import load_stack
from halve.serving.gateway import answer_offline
from halve.techniques.compression.quantization import export_onnx
from halve.testing.tiny_service import linear, points, teacher

OUTPUTS = [{"name": "label"}, {"name": "probabilities"}]


def served(argv, ready):
    """Start a server; return the process and the port once `ready` is printed."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line, process.stderr.read()
    assert json.loads(line)["schema"] == ready
    return process, json.loads(line)["port"]


def ask(connection, name, payload):
    tensor = {"name": "input", "shape": [1, *payload.shape], "datatype": "FP32", "data": payload.ravel().tolist()}
    connection.request("POST", f"/v2/models/{name}/infer", json.dumps({"inputs": [tensor], "outputs": OUTPUTS}))
    reply = connection.getresponse()
    body = json.loads(reply.read())
    assert reply.status == 200, body
    return {output["name"]: output["data"] for output in body["outputs"]}


def answers_of(argv, stack, payloads):
    process, port = served(argv, "halve.serve/1")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        replies = [ask(connection, stack.name, payload) for payload in payloads]
        connection.close()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    return replies


def assert_same(replies, offline):
    assert [reply["label"][0] for reply in replies] == [int(answered.answer) for answered in offline]
    for reply, answered in zip(replies, offline, strict=True):
        np.testing.assert_allclose(reply["probabilities"], answered.probabilities, atol=1e-5)


def test_the_optimized_stack_is_served_exactly_as_it_answers_offline(finished_run, halve_argv):
    path = finished_run.folder / "stack.yaml"
    config = load_yaml(Config, finished_run.config)
    stack = with_entries(load_stack(path), config, source="here")
    payloads = list(points()[0][:500])
    argv = halve_argv("serve", path, "--config", finished_run.config, "--port", 0, "--json")
    with entries.importable(finished_run.config.parent):
        offline = answer_offline(make_chain(stack, folder=finished_run.folder), payloads)
    assert_same(answers_of(argv, stack, payloads), offline)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory):
    """A cache, a linear model and the teacher behind it, all ONNX: needs no config to be served."""
    folder = tmp_path_factory.mktemp("cascade")
    models = []
    for name, make in (("linear", linear), ("teacher", teacher)):
        (folder / name).mkdir()
        export_onnx(make(), {"input": points()[0][:8]}, folder / name / "model.onnx")
        files = adopt_files(folder / name, relative_to=folder)
        models.append(Model(name=name, engine="onnxruntime", files=files))
    stack = Stack(
        name="points",
        models=tuple(models),
        stages=(
            Stage(kind="exact_cache", capacity_entries=100),
            Stage(kind="model", model="linear", accept=Acceptance(rule="margin", threshold=0.6)),
            Stage(kind="model", model="teacher"),
        ),
        deployments=tuple(
            Deployment(model=name, instance_type="c6a.large", batch=BatchPolicy(max_batch_size=8))
            for name in ("linear", "teacher")
        ),
        gateway=Gateway(instance_type="c6a.large"),
    )
    (folder / "stack.yaml").write_text(dump_yaml(stack))
    return folder, stack


def test_a_cascade_with_a_cache_answers_over_http_as_offline(cascade, halve_argv):
    folder, stack = cascade
    payloads = [*points()[0][:60], *points()[0][:60]]
    offline = answer_offline(make_chain(stack, folder=folder), payloads)
    stages = {answered.stage for answered in offline}
    assert stages == {"linear", "teacher"}, "both stages answer something, or this test shows nothing"
    argv = halve_argv("serve", folder / "stack.yaml", "--port", 0, "--json")
    assert_same(answers_of(argv, stack, payloads), offline)


def test_a_chain_knows_prices_stages_and_datatype(cascade):
    folder, stack = cascade
    chain = make_chain(stack, folder=folder)
    assert chain.cache is not None
    assert set(chain.accepts) == {"linear"}
    assert chain.usd_per_vcpu_second["c6a.large"] > 0
    assert chain.takes.datatype == "FP32"
    assert make_chain(replace(stack, stages=stack.stages[1:]), folder=folder).cache is None


def test_python_models_need_the_config_they_came_from(finished_run):
    config = load_yaml(Config, finished_run.config)
    code = Model(name="teacher", engine="torch")
    stack = Stack(
        name="s",
        models=(code,),
        stages=(Stage(kind="model", model="teacher"),),
        deployments=(Deployment(model="teacher", instance_type="c6a.large"),),
        gateway=Gateway(instance_type="c6a.large"),
    )
    assert with_entries(stack, config, source="s").models[0].entry == "tiny_models:teacher"
    with pytest.raises(ConfigError, match="model teacher is Python code: give the config that it came from"):
        with_entries(stack, None, source="s")
    unknown = replace(config, model=replace(config.model, name="another"))
    with pytest.raises(ConfigError, match="model teacher is Python code: the config does not name it"):
        with_entries(stack, unknown, source="s")
