"""The verbs of halve, as Python functions: optimize, profile, open a run."""

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from halve.assembly import entries
from halve.assembly.config import Config
from halve.assembly.gateway_profile import measure_gateway, serve_command
from halve.assembly.wiring import JOINT, LADDER, Wired, baseline_stack, wire
from halve.assembly.workload import with_seed
from halve.core import Measurement, Progress, Replay, Run, Stack
from halve.core.documents import dump_yaml, dumps, load_json, load_yaml, replace_file
from halve.core.progress import Silent
from halve.errors import ReplayError
from halve.measure.confirm import confirm
from halve.measure.host import describe_host
from halve.optimize import Optimizer, Outcome, RunStore
from halve.report import write_html
from halve.workload import describe

_log = logging.getLogger("halve.assembly")


SHARED_CACHE = (
    "One cache is taken to serve all gateways: behind several, requests must be routed by content, or fewer hit."
)

FULL_CACHE = (
    "The semantic cache is taken to be full, of answers of the model in service: each example is looked up among all "
    "others of its split. Right after a start it hits less; what it hits rests on how alike your examples are."
)


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A finished run and where it lies."""

    path: Path
    run: Run


def optimize(
    config: str | Path | Config,
    *,
    runs: Path = Path("runs"),
    seed: int | None = None,
    progress: Progress | None = None,
) -> RunFolder:
    """Find the cheapest stack that keeps the config's promises, certify it, confirm it, and write the report.

    A run that was interrupted goes on where it stopped: whatever was measured is read, not measured again.

    Args:
        config: Path of a halve.yaml, or a Config whose paths are relative to the current folder.
        runs: Where run folders go.
        seed: Instead of the config's.
        progress: Where bars go; silent by default.

    Raises:
        UserError: If the config, the data or a model cannot be used; the message says what to do.
        EnvironmentFailedError: If the disk or the server fails; what was measured is kept.
    """
    began = time.monotonic()
    bars = progress or Silent()
    with _wired(config, runs=runs, seed=seed, progress=bars) as (wired, source):
        _answer_everything(wired)
        store = RunStore(wired.folder)
        optimizer = Optimizer(
            bench=wired.bench,
            gate=wired.gate,
            ladder=wired.levers(LADDER),
            joint=wired.levers(JOINT),
            record=store.append,
            progress=bars,
        )
        outcome = optimizer.walk(baseline_stack(wired))
        stack_path = store.save_stack(outcome.final_stack)
        replay, trouble = _replayed(outcome.final_stack, wired, source, bars)
        run = _record(outcome, replay, wired, source, trouble=trouble, seconds=time.monotonic() - began)
        write_html(run, wired.folder / run.report_path)
        store.save_run(run)
        _log.info("saved %s", stack_path)
        return RunFolder(path=wired.folder, run=run)


def _answer_everything(wired: Wired) -> None:
    """Let the user's models answer both splits: one that breaks on an example does so now, not after the search.

    Only answers are recorded; nobody looks at the certify scores before the certificate.
    """
    for model in (wired.bench.baseline, *wired.bench.brought):
        wired.bench.outcomes(model, split="search")
        wired.bench.outcomes(model, split="certify")


def profile(
    config: str | Path | Config,
    *,
    runs: Path = Path("runs"),
    seed: int | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure what the model costs as it is run today; arguments as for `optimize`."""
    with _wired(config, runs=runs, seed=seed, progress=progress or Silent()) as (wired, _):
        return wired.bench.measure(baseline_stack(wired))


def open_run(path: str | Path) -> RunFolder:
    """Read a finished run.

    Raises:
        RunFolderError: If the folder holds none, or a damaged one.
    """
    folder = Path(path).resolve()
    return RunFolder(path=folder, run=RunStore(folder).load_run())


@contextmanager
def _wired(
    config: str | Path | Config, *, runs: Path, seed: int | None, progress: Progress
) -> Iterator[tuple[Wired, Path | None]]:
    """Give everything wired, with the config's folder importable; and the config's path, if it is a file."""
    source = None if isinstance(config, Config) else Path(config)
    loaded = config if isinstance(config, Config) else load_yaml(Config, Path(config))
    folder = Path.cwd() if source is None else source.resolve().parent
    with entries.importable(folder):
        yield (
            wire(
                with_seed(loaded, seed),
                config_folder=folder,
                runs=runs,
                progress=progress,
                measure_gateway=lambda workload: measure_gateway(workload, progress=progress),
            ),
            source,
        )


def _replayed(stack: Stack, wired: Wired, source: Path | None, progress: Progress) -> tuple[Replay | None, str]:
    """Return the replay; or None and the reason, because a search that is done is reported whatever the host allows."""
    try:
        return _confirmed(stack, wired, source, progress), ""
    except ReplayError as error:
        _log.warning("no replay: %s", error)
        return None, f"The stack was not replayed: {error}"


def _confirmed(stack: Stack, wired: Wired, source: Path | None, progress: Progress) -> Replay | None:
    """Replay the chosen stack, once: the result is kept beside the tables it was compared with."""
    seconds = wired.config.replay.seconds
    if seconds == 0:
        return None

    def command(rehearsed: Stack, port: int) -> list[str]:
        path = wired.folder / "rehearsal.yaml"
        with replace_file(path) as partial:
            partial.write_text(dump_yaml(rehearsed.without_entries()))
        return serve_command(path, port=port, config=source)

    question = hashlib.sha256(f"{seconds} {dump_yaml(stack)}".encode()).hexdigest()[:12]
    kept = wired.folder / "replays" / f"{question}.json"
    if not kept.exists():
        replay = confirm(stack, bench=wired.bench, seconds=seconds, command=command, progress=progress)
        with replace_file(kept) as partial:
            partial.write_text(dumps(replay) + "\n")
    return load_json(Replay, kept)


def _record(
    outcome: Outcome, replay: Replay | None, wired: Wired, source: Path | None, *, trouble: str, seconds: float
) -> Run:
    name = wired.config.name
    command = f"halve optimize {source}" if source else f"python -c 'import halve; halve.optimize(...)'  # {name}"
    description = describe(wired.workload.traffic)
    return Run(
        name=name,
        baseline=outcome.baseline,
        final=outcome.final,
        baseline_stack=outcome.baseline_stack,
        final_stack=outcome.final_stack,
        saving_rate=outcome.saving_rate,
        certificate=outcome.certificate,
        rungs=outcome.rungs,
        replay=replay,
        latency_p99_at_most_seconds=wired.config.objective.latency_p99_seconds,
        assumptions=(
            wired.workload.traffic.source,
            description.assumption,
            *wired.assumptions,
            "Replicas of one model share one queue; what carrying requests between instances costs is not counted.",
            *([SHARED_CACHE] if outcome.final_stack.cache_stage else []),
            *([FULL_CACHE] if any(model.engine == "semantic_cache" for model in outcome.final_stack.models) else []),
            *([trouble] if trouble else []),
        ),
        commands=(f"{command} --seed {wired.config.seed}", f"halve serve {wired.folder / 'stack.yaml'}"),
        host=describe_host(),
        seed=wired.config.seed,
        seconds=seconds,
    )
