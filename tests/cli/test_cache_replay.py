import json

import pytest

from halve.testing.word_service import write_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A log of 600 questions by topic, one of answers that never repeat, and an encoder's folder."""
    root = tmp_path_factory.mktemp("log")
    write_log(root)
    rows = [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()]
    unlike = [{"question": row["question"], "answer": f"answer {number}"} for number, row in enumerate(rows)]
    (root / "unlike.jsonl").write_text("".join(json.dumps(row) + "\n" for row in unlike))
    return root


def test_a_log_that_is_worth_it(halve_cli, folder):
    done = halve_cli(
        ["cache", "replay", "log.jsonl", "--encoder", "encoder", "--precision", 0.8, "--usd-per-answer", 0.001,
         "--policy", "policy.json", "--json"],
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "halve.cache-replay/1"
    assert found["enable"] is True
    assert found["hits"] > 0
    assert found["usd_saved_per_1k_requests"] > 0
    below = [level["below"] for level in found["filling"]]
    assert below == sorted(set(below))
    assert found["filling"][0]["threshold"] is None, "the same words only"
    policy = json.loads((folder / "policy.json").read_text())
    assert (policy["schema"], policy["encoder"]["name"]) == ("halve.hit-policy/2", "encoder")
    shown = halve_cli(["cache", "replay", "log.jsonl", "--encoder", "encoder", "--precision", 0.8], cwd=folder)
    assert shown.stdout.startswith("semantic cache on log.jsonl: enable\n")
    for level in found["filling"]:
        said = "the same words only" if level["threshold"] is None else format(level["threshold"], ".3f")
        under = f"under {level['below']}"
        assert f"{under:>18}  {said}\n" in shown.stdout
    assert f"{f'from {below[-1]}':>18}  {found['threshold']:.3f}\n" in shown.stdout
    assert all(len(line) <= 100 for line in shown.stdout.splitlines())


def test_a_log_that_is_not_says_do_not_enable_and_exits_3(halve_cli, folder):
    done = halve_cli(["cache", "replay", "unlike.jsonl", "--encoder", "encoder"], cwd=folder)
    assert done.returncode == 3, done.stderr
    assert "do not enable" in done.stdout.splitlines()[0]


def test_what_costs_more_than_it_saves_is_not_worth_it(halve_cli, folder):
    argv = ["cache", "replay", "log.jsonl", "--encoder", "encoder", "--precision", 0.8, "--usd-per-answer", 1e-12]
    done = halve_cli([*argv, "--json"], cwd=folder)
    assert done.returncode == 3
    assert json.loads(done.stdout)["usd_saved_per_1k_requests"] < 0


def test_partitions_are_a_column(halve_cli, folder):
    argv = ["cache", "replay", "log.jsonl", "--encoder", "encoder", "--precision", 0.8, "--partition", "question"]
    assert halve_cli(argv, cwd=folder).returncode == 3, "every question is a tenant of its own: nothing is shared"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl"),
        (["log.jsonl", "--encoder", "nowhere"], "encoder must be minilm, a folder, or URL#MODEL. Got 'nowhere'"),
        (["log.jsonl", "--encoder", "http://localhost:1"], "encoder must be URL#MODEL for a server"),
        (["log.jsonl", "--usd-per-answer", "-1"], "usd_per_answer must be at least 0"),
        (["log.jsonl", "--policy", "log.jsonl"], "policy must be a file that does not exist yet"),
        (["log.jsonl", "--question", "answer"], "answer of row 1 must be a text that is not empty"),
    ],
)
def test_bad_input_is_one_sentence(halve_cli, folder, arguments, message):
    done = halve_cli(["cache", "replay", *arguments], cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
