import json
from pathlib import Path

import jsonschema
import pytest

from halve.core import Run
from halve.report import profile_summary, published_schema, summary

MEASUREMENT = {"usd_per_1k_requests", "quality", "latency_p50_seconds", "latency_p99_seconds", "ledger"}


def test_it_is_the_published_object(run: Run):
    document = json.loads(json.dumps(summary(run, folder=Path("runs/x")), allow_nan=False))
    jsonschema.validate(document, published_schema("run"), cls=jsonschema.Draft202012Validator)


def test_it_has_exactly_the_promised_keys(runs):
    document = summary(runs["standard"](), folder=Path("runs/x"))
    assert list(document) == [
        "schema", "baseline", "final", "saving_rate", "certificate", "rungs", "replay", "stack", "report", "seconds",
    ]  # fmt: skip
    assert set(document["baseline"]) == set(document["final"]) == MEASUREMENT
    assert set(document["certificate"]) == {
        "holds", "quality_drop_upper_bound", "quality_drop_at_most", "confidence", "n", "minimum_detectable_drop",
    }  # fmt: skip
    for rung in document["rungs"]:
        assert set(rung) == {
            "lever", "change", "verdict", "reason", "usd_per_1k_requests", "quality", "latency_p99_seconds",
        }  # fmt: skip
    assert set(document["replay"]) == {"latency_p99_seconds", "usd_per_1k_requests"}
    assert set(document["replay"]["latency_p99_seconds"]) == {"predicted", "replayed"}


def test_its_figures_are_the_records(runs):
    run = runs["standard"]()
    document = summary(run, folder=Path("runs/x"))
    assert document["schema"] == "halve.run/1"
    assert document["saving_rate"] == run.saving_rate
    assert document["final"]["usd_per_1k_requests"] == run.final.usd_per_1k_requests
    assert document["final"]["latency_p99_seconds"] == run.final.latency.p99_seconds
    assert sum(document["baseline"]["ledger"].values()) == pytest.approx(0.4512)
    assert [rung["verdict"] for rung in document["rungs"]] == [rung.verdict.decision for rung in run.rungs]
    assert document["replay"]["usd_per_1k_requests"] == {"predicted": 0.0321, "replayed": 0.0336}
    assert document["seconds"] == 143.2


def test_paths_are_below_the_run_folder(runs):
    document = summary(runs["standard"](), folder=Path("somewhere/run-1"))
    assert document["stack"] == str(Path("somewhere/run-1/stack.yaml"))
    assert document["report"] == str(Path("somewhere/run-1/report.html"))


def test_a_lever_without_measurement_has_nulls(runs):
    (rung,) = summary(runs["one_rung"](), folder=Path())["rungs"]
    assert rung["usd_per_1k_requests"] is rung["quality"] is rung["latency_p99_seconds"] is None


def test_no_replay_is_null(runs):
    assert summary(runs["no_replay"](), folder=Path())["replay"] is None


def test_lines_of_one_name_add_up(runs):
    run = runs["dearer"]()
    ledger = summary(run, folder=Path())["final"]["ledger"]
    assert ledger["refund of unused credits"] == -0.015
    assert sum(ledger.values()) == pytest.approx(run.final.usd_per_1k_requests)


def test_a_profile_is_the_published_object(runs):
    document = profile_summary(runs["standard"]().baseline)
    jsonschema.validate(document, published_schema("profile"), cls=jsonschema.Draft202012Validator)
    assert document["schema"] == "halve.profile/1"
    assert set(document["baseline"]) == MEASUREMENT
