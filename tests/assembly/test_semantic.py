import http.client
import json
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest

from halve.assembly import entries
from halve.assembly.config import Config
from halve.assembly.semantic import SharedCache, runner
from halve.assembly.serving import make_chain
from halve.assembly.wiring import wire
from halve.core import Acceptance, CachedAnswer, Deployment, Gateway, ServiceCurve, Stack, Stage
from halve.core.documents import dump_yaml, load_yaml
from halve.core.progress import Silent
from halve.errors import AnswerError, InvalidParameterError, ModelError
from halve.levers.semantic_cache import SemanticCaching
from halve.techniques.compression.quantization import export_onnx
from halve.testing.word_service import questions, write_word_service

LOUD = Acceptance(rule="maximum_probability", threshold=0.9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The run folder, the cache's model, and a stack of it and the teacher as an ONNX file: it needs no config."""
    folder = tmp_path_factory.mktemp("words")
    path = write_word_service(folder)
    gateway = ServiceCurve(
        model="gateway", threads=1, batch_sizes=(1,), samples_seconds=((0.0003,),), peak_memory_bytes=0
    )
    with entries.importable(folder):
        bench = wire(
            load_yaml(Config, path),
            config_folder=folder,
            runs=folder / "runs",
            progress=Silent(),
            measure_gateway=lambda workload: gateway,
        ).bench
        bare = Stack(
            name="words",
            models=(bench.baseline,),
            stages=(Stage(kind="model", model="teacher"),),
            deployments=(Deployment(model="teacher", instance_type="c6a.large"),),
            gateway=Gateway(instance_type="c6a.large"),
        )
        cache = next(iter(SemanticCaching().propose(bare, bench))).after.models[0]
        answerer = bench.load(bench.baseline)
        inputs = answerer.inputs(["what about the bill please"])

        def build(target):
            export_onnx(answerer.runtime_model, inputs, target / "model.onnx")

        onnx = bench.make_model(replace(bench.baseline, name="full", engine="onnxruntime", entry=None), build=build)
        answerer.close()
    # the teacher's own weights are no part of the ONNX model
    onnx = replace(onnx, files=tuple(file for file in onnx.files if not file.path.endswith(".safetensors")))
    stack = bare.with_model("teacher", onnx).with_first_stage(cache, LOUD, max_batch_size=8)
    return bench.folder, cache, stack


@pytest.fixture
def shared(made):
    folder, cache, _ = made
    opened = SharedCache(cache, folder=folder)
    yield opened
    opened.close()


def test_an_empty_cache_is_sure_of_nothing(shared):
    found = shared.answerer(threads=1).answer(["what about the bill please"])
    np.testing.assert_allclose(found.probabilities, 1 / 4)


def test_what_is_remembered_is_found_by_meaning_and_by_every_replica(shared):
    first, second = shared.answerer(threads=1), shared.answerer(threads=1)
    for text, answer in (("what about the bill please", 0), ("i want a hotel here", 1)):
        first.answer([text])
        shared.remember(text, CachedAnswer(answer=answer))
    found = second.answer(["what about the bill please please", "i want a hotel here"])
    assert found.answers.tolist() == [0, 1]
    assert found.probabilities[1, 1] == pytest.approx(1.0), "the very same words"
    assert found.probabilities[0, 0] > 0.5
    first.close()
    second.close()


def test_a_cache_in_a_file_outlives_its_process_and_belongs_to_one_model(made, tmp_path):
    folder, cache, _ = made
    where = str(tmp_path / "cache.sqlite")
    first = SharedCache(cache, folder=folder, location=where, data_version="one")
    first.remember("what about the bill please", CachedAnswer(answer=0))
    first.close()
    again = SharedCache(cache, folder=folder, location=where, data_version="one")
    assert again.answerer(threads=1).answer(["what about the bill please"]).probabilities[0, 0] == 1.0
    again.close()
    other = SharedCache(cache, folder=folder, location=where, data_version="two")
    np.testing.assert_allclose(other.answerer(threads=1).answer(["what about the bill please"]).probabilities, 1 / 4)
    other.close()


def test_two_gateways_share_one_cache_in_postgresql(made, postgres_url):
    folder, cache, _ = made
    one, other = (SharedCache(cache, folder=folder, location=postgres_url) for _ in range(2))
    one.remember("what about the bill please", CachedAnswer(answer=2))
    found = other.answerer(threads=1).answer(["what about the bill please"])
    assert found.probabilities[0, 2] == 1.0
    one.close()
    other.close()


def test_tensors_and_text_answers_are_refused(shared):
    with pytest.raises(AnswerError, match="payload must be a text"):
        shared.answerer(threads=1).answer([np.zeros(3, np.float32)])
    with pytest.raises(InvalidParameterError, match="answer must be a class"):
        shared.remember("a", CachedAnswer(answer="a text"))


def test_a_closed_answerer_says_so(shared):
    one = shared.answerer(threads=1)
    one.close()
    with pytest.raises(ModelError, match="is closed"):
        one.answer(["a"])


def test_a_damaged_policy_is_named(made, tmp_path):
    folder, cache, _ = made
    named = next(file for file in cache.files if file.path.endswith("policy.json"))
    path = folder / named.path
    before = path.read_text()
    path.write_text(json.dumps({"schema": "halve.hit-policy/9"}))
    try:
        with pytest.raises(ModelError, match=r"policy.json"):
            SharedCache(cache, folder=folder)
    finally:
        path.write_text(before)


def test_the_engine_is_timed_with_a_full_store(made):
    folder, cache, _ = made
    texts, _ = questions(50, seed=3)
    answerer = runner("semantic_cache", stored=texts).load(cache, threads=1, folder=folder)
    assert len(answerer.answer(texts[:8])) == 8
    answerer.close()


def test_a_cache_location_needs_a_cache(made):
    folder, _, stack = made
    with pytest.raises(InvalidParameterError, match="given only for a stack with a semantic cache"):
        make_chain(stack.without_model("semantic-cache"), folder=folder, cache_location="x.sqlite")


def test_a_served_stack_learns_and_answers_from_its_cache(made, halve_argv, tmp_path):
    folder, _, stack = made
    (folder / "words-stack.yaml").write_text(dump_yaml(stack))
    argv = halve_argv("serve", folder / "words-stack.yaml", "--port", 0, "--json", "--cache", tmp_path / "c.sqlite")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = json.loads(process.stdout.readline())["port"]
        first = [asked(port, text) for text in ("what about the bill please", "i want a hotel here")]
        again = [until_stored(port, text) for text in ("what about the bill please", "i want a hotel here")]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert [reply["stage"] for reply in first] == [["full"], ["full"]]
    assert [reply["label"] for reply in first] == [[0], [1]]
    assert [reply["stage"] for reply in again] == [["semantic-cache"], ["semantic-cache"]]
    assert [reply["label"] for reply in again] == [[0], [1]]


def until_stored(port, text):
    """Ask until the writer beside the event loop has had its turn: answers are stored after they are given."""
    for _ in range(100):
        reply = asked(port, text)
        if reply["stage"] == ["semantic-cache"]:
            break
        time.sleep(0.1)
    return reply


def asked(port, text):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = {
        "inputs": [{"name": "input", "shape": [1], "datatype": "BYTES", "data": [text]}],
        "outputs": [{"name": "label"}, {"name": "stage"}],
    }
    connection.request("POST", "/v2/models/words/infer", json.dumps(body))
    reply = connection.getresponse()
    found = json.loads(reply.read())
    connection.close()
    assert reply.status == 200, found
    return {output["name"]: output["data"] for output in found["outputs"]}


@pytest.mark.slow
def test_a_run_tries_the_cache_and_says_why_it_does_not_pay(tmp_path, halve_cli):
    changes = {"levers": ["right_sizing", "semantic_cache"], "traffic": {"trace": "azure-code", "thin": 0.1}}
    write_word_service(tmp_path, changes=changes)
    done = halve_cli(["optimize", "words.yaml", "--json"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rungs = [rung for rung in json.loads(done.stdout)["rungs"] if rung["lever"] == "semantic_cache"]
    assert rungs
    assert all(rung["verdict"] == "reject" for rung in rungs), "the encoder costs as much as the model"
    assert all("semantic-cache first" in rung["change"] for rung in rungs)
