"""One real optimization of the tiny service, looked at from all sides."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import jsonschema
import pytest

import halve
from halve.assembly.api import _wired
from halve.assembly.config import LADDER
from halve.core.documents import load_yaml
from halve.core.progress import Silent
from halve.core.stack import Stack
from halve.errors import RunFolderError
from halve.optimize import RunStore
from halve.report.schema import published_schema
from halve.testing.tiny_service import BUILT_LOG

TABLES = ("outcomes", "curves", "timings", "models", "replays")


def snapshot(folder, *, parts=TABLES):
    """Return the time of last change and the size of every finished file."""
    files = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in files if ".partial" not in str(path)}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def test_the_run_folder_holds_the_whole_record(finished_run):
    run = halve.open_run(finished_run.folder).run
    assert {path.name for path in finished_run.folder.iterdir()} >= {
        "run.json", "stack.yaml", "report.html", "rungs.jsonl", *TABLES,
    }  # fmt: skip
    assert run.rungs == RunStore(finished_run.folder).rungs()
    assert load_yaml(Stack, finished_run.folder / "stack.yaml") == run.final_stack.without_entries()
    assert (finished_run.runs / "latest").resolve() == finished_run.folder
    assert "</html>" in (finished_run.folder / "report.html").read_text()
    assert [*finished_run.folder.rglob("*.partial")] == []


def test_the_money_the_promises_and_the_certificate_agree(finished_run):
    run = halve.open_run(finished_run.folder).run
    assert run.saving_rate == pytest.approx(1 - run.final.usd_per_1k_requests / run.baseline.usd_per_1k_requests)
    assert run.saving_rate > 0.3, "six replicas of two threads are too many for this traffic, on any host"
    assert run.certificate.holds
    assert run.certificate.n == len(run.final.scores) == len(run.baseline.scores)
    assert run.final.latency.p99_seconds <= run.latency_p99_at_most_seconds
    assert {rung.lever for rung in run.rungs} == {*LADDER, "joint_search"}
    kept = [rung.measurement.usd_per_1k_requests for rung in run.rungs if rung.verdict.keep]
    assert kept == sorted(kept, reverse=True), "each kept rung is cheaper than the one before"


def test_the_replay_answers_as_the_tables_said(finished_run):
    replay = halve.open_run(finished_run.folder).run.replay
    assert replay is not None
    assert replay.failed_requests == 0
    assert replay.agreeing_answers_share == 1.0
    assert replay.replayed.provenance == "replayed"
    assert replay.n_requests == replay.replayed.n_requests


def test_json_on_stdout_follows_the_published_schema(finished_run):
    jsonschema.validate(finished_run.summary, published_schema("run"))
    run = halve.open_run(finished_run.folder).run
    assert finished_run.summary["final"]["usd_per_1k_requests"] == run.final.usd_per_1k_requests
    assert len(finished_run.summary["rungs"]) == len(run.rungs)
    assert json.loads(finished_run.stdout)["schema"] == "halve.run/1"


def test_a_second_run_repeats_nothing_and_writes_the_same_stack(finished_run):
    before = snapshot(finished_run.folder, parts=(*TABLES, "rungs.jsonl"))
    journal = (finished_run.folder / "rungs.jsonl").read_bytes()
    stack = (finished_run.folder / "stack.yaml").read_bytes()
    log = finished_run.config.parent / BUILT_LOG
    log.unlink(missing_ok=True)
    again = halve.optimize(finished_run.config, runs=finished_run.runs)
    assert again.path.resolve() == finished_run.folder
    assert snapshot(finished_run.folder, parts=(*TABLES, "rungs.jsonl")) == before
    assert not log.exists(), "a model was loaded although every answer was known"
    assert (finished_run.folder / "stack.yaml").read_bytes() == stack
    assert (finished_run.folder / "rungs.jsonl").read_bytes() == journal


def test_profile_uses_the_same_tables(finished_run):
    before = snapshot(finished_run.folder)
    measured = halve.profile(finished_run.config, runs=finished_run.runs)
    assert snapshot(finished_run.folder) == before
    rungs = RunStore(finished_run.folder).rungs()
    assert measured.usd_per_1k_requests > min(
        rung.measurement.usd_per_1k_requests for rung in rungs if rung.measurement
    )


def test_another_seed_is_another_run(finished_run, tmp_path):
    wired_elsewhere = _wired(finished_run.config, runs=tmp_path, seed=1, progress=Silent())
    with wired_elsewhere as (wired, source):
        assert wired.folder.name != finished_run.folder.name
        assert source == finished_run.config


def test_a_killed_run_goes_on_where_it_stopped(finished_run, halve_argv, tmp_path):
    """Kill -9 and Ctrl-C at random moments; then the same stack, and no finished table written twice."""
    folder = tmp_path / "runs" / finished_run.folder.name
    for part in ("curves", "timings", "replays"):  # the recorded timings: everything else is made anew
        shutil.copytree(finished_run.folder / part, folder / part)
    argv = halve_argv("optimize", finished_run.config, "--runs", tmp_path / "runs", "--json")
    most = len(snapshot(finished_run.folder))
    moments = sorted(random.Random(20261123).sample(range(len(snapshot(folder)) + 1, most), 2))
    for moment, how in zip(moments, (signal.SIGKILL, signal.SIGINT), strict=True):
        code = _stopped_at(moment, argv, folder, how)
        assert code == (130 if how == signal.SIGINT else -signal.SIGKILL)
        finished = snapshot(folder)
        assert len(finished) < most, "it was stopped before its end"
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    after = snapshot(folder)
    assert {name: after[name] for name in finished} == finished
    assert (folder / "stack.yaml").read_bytes() == (finished_run.folder / "stack.yaml").read_bytes()
    assert (folder / "rungs.jsonl").read_bytes() == (finished_run.folder / "rungs.jsonl").read_bytes()


def _stopped_at(moment, argv, folder, how):
    """Start the run, send the signal once so many tables are there, and return the exit code."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while len(snapshot(folder)) < moment and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, how)
        return process.wait(timeout=60)


def test_an_unfinished_folder_says_how_to_finish_it(finished_run, tmp_path):
    with pytest.raises(RunFolderError, match="holds no finished run"):
        halve.open_run(tmp_path)
    shutil.copy(finished_run.folder / "rungs.jsonl", tmp_path)
    with pytest.raises(RunFolderError, match="begun but not finished: run halve optimize again"):
        halve.open_run(tmp_path)
