from pathlib import Path

import pytest

from halve.core import Certificate, Host, Model, Run, Rung, Verdict
from halve.errors import ConfigError, RunFolderError, StorageError
from halve.optimize.store import RunStore, load_stack
from halve.testing.scripted import Script, ScriptedBench, scripted_stack


def make_rung(name: str) -> Rung:
    measurement = ScriptedBench(script={1: Script(usd=1)}, n_examples=3).measure(scripted_stack(1))
    return Rung(
        lever=name,
        description="d",
        stack=scripted_stack(1),
        measurement=measurement,
        verdict=Verdict(decision="keep", reason="r", numbers={"x": 1.0}),
    )


def test_rungs_are_appended_once_and_read_back(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    assert store.rungs() == ()
    for name in ("a", "b", "a"):
        store.append(make_rung(name))
    assert [rung.lever for rung in store.rungs()] == ["a", "b"]
    again = RunStore(tmp_path / "run")
    again.append(make_rung("b"))
    again.append(make_rung("c"))
    assert again.rungs() == tuple(make_rung(name) for name in "abc")


@pytest.mark.parametrize("first", [True, False])
def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path, first: bool) -> None:
    store = RunStore(tmp_path)
    if not first:
        store.append(make_rung("a"))
    with (tmp_path / "rungs.jsonl").open("a") as journal:
        journal.write('{"lever": "b", "descr')
    resumed = RunStore(tmp_path)
    resumed.append(make_rung("b"))
    assert [rung.lever for rung in resumed.rungs()] == (["b"] if first else ["a", "b"])


@pytest.mark.parametrize("line", ["{", '{"lever": 1}'])
def test_any_other_damage_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rungs.jsonl").write_text(line + "\n")
    with pytest.raises(RunFolderError, match=r"rungs.jsonl:1 is damaged"):
        RunStore(tmp_path).rungs()


def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "rungs.jsonl").symlink_to("/dev/full")
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    store = RunStore(tmp_path)
    store._lines = set()
    with pytest.raises(
        StorageError, match=r"rungs.jsonl could not be written: the disk is full. What was measured before is kept"
    ):
        store.append(make_rung("a"))


def test_a_stack_file_names_no_code_and_is_read_back(tmp_path: Path) -> None:
    stack = scripted_stack(2).with_model("full", Model(name="full", engine="torch", entry="mine:teacher"))
    path = RunStore(tmp_path).save_stack(stack)
    assert load_stack(path) == stack.without_entries()
    assert path.read_bytes() == RunStore(tmp_path).save_stack(stack).read_bytes()
    path.write_text(path.read_text().replace("engine: torch", "engine: torch\n  entry: os:abort"))
    with pytest.raises(ConfigError, match=r"models\.full\.entry must not be set in a stack file"):
        load_stack(path)


def test_a_stack_file_names_no_endpoint(tmp_path: Path) -> None:
    path = RunStore(tmp_path).save_stack(scripted_stack(2))
    path.write_text(path.read_text().replace("engine: recorded", "engine: openai_http"))
    with pytest.raises(ConfigError, match=r"models\.full\.engine must not be openai_http in a stack file"):
        load_stack(path)


def test_a_run_that_is_not_there_or_not_whole(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    with pytest.raises(RunFolderError, match=r"holds no finished run\.$"):
        store.load_run()
    store.append(make_rung("a"))
    with pytest.raises(RunFolderError, match="begun but not finished"):
        store.load_run()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunFolderError, match="is damaged or was not written by halve"):
        store.load_run()


def make_run() -> Run:
    bench = ScriptedBench(script={1: Script(usd=2), 2: Script(usd=1)}, n_examples=3)
    certificate = Certificate(
        holds=True,
        quality_drop=0.0,
        quality_drop_upper_bound=0.01,
        quality_drop_at_most=0.01,
        confidence=0.95,
        n=3,
        minimum_detectable_drop=0.5,
        method="exact",
        steps=(),
    )
    return Run(
        name="scripted",
        baseline=bench.measure(scripted_stack(1), split="certify"),
        final=bench.measure(scripted_stack(2), split="certify"),
        baseline_stack=scripted_stack(1),
        final_stack=scripted_stack(2),
        saving_rate=0.5,
        certificate=certificate,
        rungs=(make_rung("a"),),
        replay=None,
        latency_p99_at_most_seconds=0.1,
        assumptions=("none",),
        commands=("halve optimize",),
        host=Host(processor="x", cpu_count=1, memory_bytes=1, instruction_sets=(), versions={"python": "3"}),
        seed=0,
    )


def test_a_run_is_read_back_and_latest_points_at_it(tmp_path: Path) -> None:
    for name in ("first", "second"):
        store = RunStore(tmp_path / name)
        store.save_run(make_run())
        assert store.load_run() == make_run()
        assert (tmp_path / "latest").resolve() == (tmp_path / name).resolve()
    assert RunStore(tmp_path / "latest").load_run() == make_run()
