"""What goes wrong at the user's end, tried through the command line: one sentence, the right code, nothing lost."""

import os
import re
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import yaml

from halve.assembly import entries
from halve.assembly.config import Config
from halve.assembly.wiring import wire
from halve.cli import main
from halve.core.documents import load_yaml
from halve.core.progress import Silent
from halve.testing.tiny_service import config, points, write_service

STOPPED = "stopped; what was measured is kept, run the same command again to resume"


class Ending:
    """How a command ended: code, stdout, and stderr without the lines of progress."""

    def __init__(self, code, stdout, stderr):
        self.code, self.stdout = code, stdout
        self.sentences = [line for line in stderr.splitlines() if not re.search(r"( \.\.\.|: done in .* s)$", line)]


@pytest.fixture
def end(capsys):
    """Run `halve` in this process and return how it ended; exactly one line of stderr, and no traceback."""

    def run(*arguments, code):
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        ending = Ending(caught.value.code, *capsys.readouterr())
        assert "Traceback" not in "".join(ending.sentences)
        assert ending.code == code, ending.sentences
        assert len(ending.sentences) == (0 if code in (0, 3) else 1), ending.sentences
        return ending.sentences[0] if ending.sentences else ending.stdout

    return run


def service(folder, **changes):
    n = changes.pop("n", 1500)
    return write_service(folder, examples=n, changes={"replay": {"seconds": 0}, **changes})


def with_timings(finished_run, path, runs):
    """Put the gateway's recorded timings into the run folder of this config; return the folder."""
    with entries.importable(path.parent):
        wired = wire(
            load_yaml(Config, path),
            config_folder=path.parent,
            runs=runs,
            progress=Silent(),
            measure_gateway=lambda workload: pytest.fail("nothing is measured here"),
        )
    (wired.folder / "curves").mkdir(parents=True)
    shutil.copy(finished_run.folder / "curves" / "gateway.json", wired.folder / "curves")
    return wired.folder


CSV = {"traffic": {"file": "log.csv"}}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"examples": {"file": "absent.jsonl"}}, r"absent\.jsonl"),
        ({"examples": {"file": "empty.jsonl"}}, r"empty\.jsonl must hold at least 1 row\. It is empty\."),
        ({"modle": {"name": "m"}}, r"modle is not a known key\. Did you mean 'model'\?"),
        (
            {"examples": {"file": "float.jsonl"}},
            r"reference of row 2 of \S*float\.jsonl must be a class index from 0, or a text\. Got 1\.5\.",
        ),
        (
            {"examples": {"file": "one.npz", "payload": "inputs", "reference": "classes"}},
            r"one\.npz must hold at least 2 classes\. All 1500 are 1",
        ),
        (
            {"prices": {"usd_per_hour": {"c6a.large": float("nan")}}},
            r"prices\.usd_per_hour\.c6a\.large must be .*finite.* Got nan\.",
        ),
        (
            {"prices": {"usd_per_hour": {"c6a.large": -0.05}}},
            r"usd_per_hour.*c6a\.large.* must be .*Got -0\.05\.",
        ),
        ({"prices": {"instances": ["c6a.lagre"]}}, r"c6a\.lagre"),
        (CSV | {"log": "timestamp\n1.0\n3.0\n2.0\n"}, r"log\.csv.*(row|line) \d.*2\.0"),
        (CSV | {"log": "timestamp\n1.0\nlater\n"}, r"log\.csv.*'later'"),
        (CSV | {"log": "timestamp\n1.0\nnan\n"}, r"log\.csv.*nan"),
        (CSV | {"log": "when\n1.0\n"}, r"log\.csv.*timestamp"),
        (CSV | {"log": "timestamp\n"}, r"log\.csv must hold at least 1"),
        ({"objective": {"confidence": 1.5}}, r"objective\.confidence must be in \(0\.5, 1\)\. Got 1\.5\."),
        (
            {"traffic": {"generate": {"requests_per_second": -3, "duration_seconds": 9}}},
            r"requests_per_second must be .*Got -3",
        ),
        ({"traffic": {"generate": {"requests_per_second": 3, "duration_seconds": 0}}}, r"duration_seconds must be"),
        ({"traffic": {"trace": "azure-code", "thin": 2.0}}, r"thin.* must be .*Got 2\.0\."),
        ({"traffic": {"trace": "azure-code", "thin": 0.0}}, r"must be .*Got 0\.0\."),
        ({"traffic": {"trace": "azure-code", "multiply": 0}}, r"must be .*Got 0\."),
        ({"traffic": {"trace": "azure-code", "speed_up": 0}}, r"must be .*Got 0"),
        ({"baseline": {"replicas": 0}}, r"baseline\.replicas must be at least 1.* Got 0\."),
        ({"baseline": {"threads": 0}}, r"threads must be at least 1\. Got 0\."),
        ({"baseline": {"target_utilization": 0}}, r"target_utilization must be .*Got 0"),
        ({"replay": {"seconds": -1}}, r"seconds must be .*Got -1"),
        ({"prices": {"as_of": "yesterday"}}, r"prices\.as_of must be .*Got 'yesterday'\."),
        ({"model": {"name": "m", "entry": "tiny_models:techer"}}, r"model m\.entry.*techer"),
        ({"answerers": [{"name": "teacher", "entry": "tiny_models:linear"}]}, r"answerers.* unique.*teacher"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:60],
)
def test_what_the_user_can_mend_is_one_sentence(tmp_path, end, changes, sentence):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "float.jsonl").write_text('{"payload": [1], "label": 1}\n{"payload": [2], "label": 1.5}\n')
    np.savez(tmp_path / "one.npz", inputs=points()[0], classes=np.ones(1500, int))
    given = dict(changes)
    (tmp_path / "log.csv").write_text(given.pop("log", ""))
    found = end("optimize", service(tmp_path, **given), "--runs", tmp_path / "runs", code=1)
    assert found.startswith("error: ")
    assert re.search(sentence, found), found


def test_twelve_examples_say_how_many_are_needed(tmp_path, end):
    found = end("optimize", service(tmp_path, n=12), "--runs", tmp_path / "runs", code=1)
    need = re.search(
        r"examples must be at least (\d+) in the certify split to certify a drop of at most 3 points", found
    )
    assert need, found
    assert int(need.group(1)) > 12
    assert not (tmp_path / "runs").exists()


def test_a_model_that_raises_on_one_input_names_the_input(tmp_path, end, finished_run):
    path = service(tmp_path, model={"name": "teacher", "entry": "tiny_models:broken"}, answerers=[])
    with_timings(finished_run, path, tmp_path / "runs")
    found = end("optimize", path, "--runs", tmp_path / "runs", code=1)
    assert re.search(r"^error: model 'teacher' failed on input \d+: ValueError: a coordinate is out of range", found), (
        found
    )


def test_an_impossible_promise_is_three_and_the_report_says_why(tmp_path, end, finished_run):
    objective = {"quality_drop_at_most": 0.03, "latency_p99_seconds": 1e-6}
    path = service(tmp_path, objective=objective, levers=["right_sizing", "batching", "exact_cache", "cascade"])
    folder = with_timings(finished_run, path, tmp_path / "runs")
    text = end("optimize", path, "--runs", tmp_path / "runs", code=3)
    why = "keeps the latency promise"
    assert why in " ".join(text.split())
    assert why in " ".join((folder / "report.html").read_text().split())
    assert why in " ".join(end("report", folder, code=0).split())


def test_a_full_disk_loses_nothing_that_was_measured(tmp_path, halve_argv, finished_run):
    """No file may grow beyond 4 kB: tables of that size fail half-written, as on a full disk."""
    path = service(tmp_path)
    folder = with_timings(finished_run, path, tmp_path / "runs")
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))

    argv = halve_argv("optimize", path, "--runs", tmp_path / "runs")
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=120, check=False, preexec_fn=small_files,
        env=os.environ | {"NUMBA_DISABLE_JIT": "0", "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    sentences = Ending(done.returncode, done.stdout, done.stderr).sentences
    assert done.returncode == 4, sentences
    assert len(sentences) == 1, sentences
    assert re.search(r"^error: \S+ could not be written: .*What was measured before is kept\.$", sentences[0])
    assert {file: file.read_bytes() for file in before} == before
    assert not [*folder.rglob("*.partial")]


def test_a_disk_without_room_is_called_full(tmp_path, halve_argv):
    """A real file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    mounted = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("a file system of its own needs root: it cannot be mounted here")
    try:
        argv = halve_argv("optimize", service(tmp_path / "service"), "--runs", disk / "runs")
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        left = [*disk.rglob("*.partial")]
    finally:
        subprocess.run(["umount", disk], check=True)
    sentences = Ending(done.returncode, done.stdout, done.stderr).sentences
    assert done.returncode == 4, sentences
    assert len(sentences) == 1
    assert "could not be written: the disk is full" in sentences[0]
    assert left == []


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("run.json", "report"),
        ("curves/gateway.json", "optimize"),
        ("outcomes/teacher-*-search.parquet", "optimize"),
        ("rungs.jsonl", "optimize"),
        ("models/teacher-*/weights.safetensors", "optimize"),
    ],
)
def test_a_damaged_run_folder_names_the_file(tmp_path, end, finished_run, file, command):
    runs = tmp_path / "runs"
    shutil.copytree(finished_run.folder, runs / finished_run.folder.name)
    (damaged,) = [
        found for found in (runs / finished_run.folder.name).glob(file)
        if not re.search(r"-(fp32|int8)", found.parent.name + found.name)
    ]  # fmt: skip
    damaged.write_bytes(b"{not what it was}\n")
    if "models" in file:  # the weights are read again only where an answer is missing
        for table in damaged.parents[2].glob("outcomes/teacher-*"):
            table.unlink()
    place = [runs / finished_run.folder.name] if command == "report" else [finished_run.config, "--runs", runs]
    found = end(command, *place, code=1)
    assert damaged.name in found or damaged.parent.name in found, found


def test_ctrl_c_stops_with_one_line_and_the_next_run_goes_on(tmp_path, halve_argv, end, finished_run):
    path = service(tmp_path, levers=["right_sizing", "cascade"])
    folder = with_timings(finished_run, path, tmp_path / "runs")
    argv = halve_argv("optimize", path, "--runs", tmp_path / "runs")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(folder.glob("curves/teacher-*.json")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert Ending(130, stdout, stderr).sentences == [STOPPED]
    assert stdout == ""
    assert not [*folder.rglob("*.partial")]
    kept = {file: file.stat().st_mtime_ns for file in folder.rglob("*.json")}
    assert end("optimize", path, "--runs", tmp_path / "runs", code=0)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_the_config_of_these_trials_is_right_but_for_the_one_thing(tmp_path):
    assert yaml.safe_load(service(tmp_path).read_text()) == config(replay={"seconds": 0})
