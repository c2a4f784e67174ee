import json
from pathlib import Path

import numpy as np
import pytest

from halve.assembly import MadeModel
from halve.chains import ChainRecord, ChainStep
from halve.cli.made import print_made
from halve.core import Model, ModelFile
from halve.gate import compare


@pytest.fixture
def made():
    """A pruned and taught model, its figures given."""
    before = np.array([1.0] * 95 + [0.0] * 5)
    after = np.array([1.0] * 93 + [0.0] * 7)
    steps = (
        ChainStep(technique="pruning", parameters={"target_latency_ratio": 0.5}, figures={"measured_ratio": 0.48123}),
        ChainStep(technique="distillation", parameters={"epochs": 3}, figures={"seconds": 0.0123}),
    )
    files = tuple(
        ModelFile(path=name, sha256="0" * 64, size_bytes=size)
        for name, size in (("model.onnx", 12_300), ("weights.safetensors", 9_000))
    )
    return MadeModel(
        model=Model(name="small", engine="onnxruntime", files=files, parent="teacher"),
        folder=Path("small"),
        record=ChainRecord(
            parent="teacher", parent_fingerprint="f", training_sha256="d", n_training=800, seed=0, steps=steps
        ),
        drop=compare(before, after, margin=0.05, confidence=0.95),
        judged_by="labels",
        speed_ratio=2.04,
    )


def test_people_read_what_it_is_how_far_it_fell_and_how_it_was_made(made, capsys):
    print_made(made, schema="halve.prune/1", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:6] == [
        "small  pruning > distillation",
        "right on 93.00 % of 100 held-out inputs, teacher on 95.00 %",
        f"judged by labels; the drop is at most {100 * made.drop.upper_bound:.2f} points",
        "2.0 times as fast as teacher, one request at a time",
        "model.onnx: 12.3 kB",
        "written to small",
    ]
    assert lines[6:] == [
        "",
        "pruning",
        "  target latency ratio              0.5",
        "  measured ratio                    0.4812",
        "",
        "distillation",
        "  epochs                            3",
        "  seconds                           12.3 ms",
    ]
    assert max(map(len, lines)) <= 80


def test_programs_read_the_whole_record(made, capsys):
    print_made(made, schema="halve.prune/1", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "halve.prune/1"
    assert document["recipe"]["schema"] == "halve.recipe/1"
    assert [step["technique"] for step in document["recipe"]["steps"]] == ["pruning", "distillation"]
    assert document["drop"]["n"] == 100
    assert document["drop"]["upper_bound"] == made.drop.upper_bound
    assert (document["judged_by"], document["speed_ratio"], document["size_bytes"]) == ("labels", 2.04, 21_300)


def test_a_remote_teacher_has_no_speed(made, capsys):
    from dataclasses import replace

    remote = replace(made, speed_ratio=None)
    print_made(remote, schema="halve.distill/1", as_json=False)
    assert "as fast as" not in capsys.readouterr().out
    print_made(remote, schema="halve.distill/1", as_json=True)
    assert json.loads(capsys.readouterr().out)["speed_ratio"] is None
