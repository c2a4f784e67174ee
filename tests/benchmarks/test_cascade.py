"""Answers in one form, splits that hold, every method on a small made-up set, and what the figures are made of."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks._cascade import methods, prices, recorded, shift, splits
from benchmarks._cascade.chains import Scorers
from benchmarks._cascade.recorded import Recorded, by_cost
from benchmarks._cascade.splits import Choice

from benchmarks import cascade


@pytest.mark.parametrize(
    ("given", "normal"),
    [("$195,000.00", "195000"), ("18", "18"), (" 50% ", "50"), ("0.5", "0.5"), ("No answer", "no answer"), ("", "")],
)
def test_numbers_in_one_form(given, normal):
    assert recorded.number_or_text(given) == normal


@pytest.mark.parametrize(
    ("given", "normal"),
    [("[(3,1)]", "[(3, 1)]"), ('"a"', "'a'"), ("{1: None}", "{1: None}"), ("{[]: 1}", "{[]: 1}"), ("f(x", "f(x")],
)
def test_python_values_in_one_form(given, normal):
    assert recorded.value_or_text(given) == normal


def test_the_last_question_of_a_prompt_is_the_one_asked():
    assert recorded.question_of("Example?\nA\n\nWhich of these?\nA) x") == "Which of these?\nA) x"
    assert recorded.question_of("['Write a function.']") == "Write a function."


def test_a_choice_is_its_letter_and_code_is_its_text():
    assert recorded.plain_response("['B)\\n']", "winograde") == "B"
    assert recorded.plain_response("['I do']", "winograde") == "['i do']"
    assert recorded.plain_response("def  f():\n  pass", "mbpp") == "def f(): pass"
    assert recorded.digest("a") == recorded.digest("a") != recorded.digest("b")


def test_usd_of_a_call_by_hand():
    # 400 characters are 100 tokens: 100 * 3 + 200 * 15 = 3,300 USD per million.
    assert prices.usd("claude-3-5-sonnet-20241022", input_characters=400, output_characters=800) == 3300 / 1e6


@pytest.mark.data
def test_prices_are_the_listed_ones():
    root = os.environ.get("HALVE_DATA")
    if root is None:
        pytest.skip("HALVE_DATA is not set")
    with (Path(root) / "prices_llm" / "litellm_prices_flat.csv").open(newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    for price in prices.PRICES.values():
        if price.row:
            row = rows[price.row]
            listed = float(row["input_usd_per_mtok"]), float(row["output_usd_per_mtok"])
            assert listed == (price.input_usd, price.output_usd)


def test_splits_keep_apart_what_must_be_apart():
    one = splits.split(1000, 3)
    assert len(one.search) == 250
    assert len(one.certify) == 450
    assert not set(one.search) & set(one.unsearched)
    assert set(one.certify) | set(one.test) == set(one.unsearched)
    assert not set(one.certify) & set(one.test)
    assert np.array_equal(one.test, splits.split(1000, 3).test)
    inside = splits.split(1000, 3, pool=np.arange(100))
    assert max(inside.calibration.max(), inside.test.max()) < 100


def test_the_margin_follows_from_the_number_of_draws():
    found = [splits.provable_margin(n) for n in (60, 400, 1500, 5000)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 0.01


def made_up(questions=400, seed=0):
    """Three answerers; agreement of the two cheap ones is a good sign; the last fifth is too hard for them."""
    random = np.random.default_rng(seed)
    hard = np.arange(questions) >= 0.8 * questions
    easy = random.random((2, questions)) < np.where(hard, 0.2, 0.95)
    scores = np.vstack([easy, random.random(questions) < 0.97]).astype(float)
    wrong = random.integers(1, 50, (3, questions))
    return by_cost(
        name="made up",
        answerers=("small", "middle", "strong"),
        scores=scores,
        usd=np.array([[1.0], [2.0], [50.0]]) * random.uniform(0.8, 1.2, (3, questions)),
        answers=np.where(scores > 0, 0, wrong),
        signals=random.normal(size=(3, questions, 1)),
        signal_names=("noise",),
        asked=np.empty((questions, 0)),
        asked_names=(),
        vectors=random.normal(size=(questions, 4)).astype(np.float32),
        shifted=hard,
        shift="the last fifth",
    )


@pytest.fixture
def small(monkeypatch) -> Recorded:
    found = made_up()
    monkeypatch.setattr(cascade, "recorded_set", lambda _: found)
    return found


def test_one_split_of_every_method(small):
    row = cascade.one_split("made up", 0)
    assert set(row.by_method) == {"halve", "frugal_gpt", "best_single", "oracle", "provable_oracle"}
    ours, oracle = row.by_method["halve"], row.by_method["oracle"]
    assert oracle.usd <= ours.usd <= row.strong.usd * 1.1
    assert oracle.drop <= row.margin + 1e-12
    assert row.by_method["best_single"].usd == row.strong.usd
    assert row.job is not None
    assert len(row.job.enough) == len(row.job.sure)
    assert row.random_quality <= 1


def test_scorers_never_see_other_rows(small):
    part = splits.split(small.questions, 1)
    before = Scorers(small, part.search, methods.OURS).table(("small", "strong"), part.test).sure
    small.scores[:, part.test] = 0.0
    after = Scorers(small, part.search, methods.OURS).table(("small", "strong"), part.test).sure
    assert np.array_equal(before, after)


def test_a_shift_is_caught(small, monkeypatch):
    for name, length in {"BEFORE": 2000, "AFTER": 20_000, "JUDGED": 4000}.items():
        monkeypatch.setattr(shift, name, length)
    monkeypatch.setattr(shift, "provable_margin", lambda _: 0.06)
    streams = [one for one in (shift.stream(small, seed) for seed in range(3)) if one is not None]
    broken = [one for one in streams if one.broken]
    assert broken
    assert all(one.restored and one.actions > 0 for one in broken)
    assert all(one.shadow_share < 0.12 for one in streams)


def rows_of(drops, usd):
    strong = Choice(usd=10.0, drop=0.0, label="strong")
    return [
        cascade.Row(
            margin=0.02,
            strong=strong,
            by_method={
                "halve": Choice(usd=paid, drop=drop, label="chain"),
                "best_single": Choice(usd=8.0, drop=0.0, label="middle"),
                "oracle": Choice(usd=2.0, drop=0.02, label="chain"),
                "provable_oracle": Choice(usd=3.0, drop=0.01, label="chain"),
            },
            test_quality=0.9 - drop,
            unsearched_drop=drop / 2,
            random_quality=0.85,
            job=None,
            tests=3,
        )
        for drop, paid in zip(drops, usd, strict=True)
    ]


def test_figures_by_hand(small):
    found = cascade.figures_of(small, rows_of([0.0, 0.03, 0.05], [4.0, 4.0, 1.0]))
    assert found["violation_rate"].median == pytest.approx(1 / 3)
    assert found["violation_rate_on_test_part"].median == pytest.approx(2 / 3)
    assert found["usd_saved_rate"] == pytest.approx(0.7)
    assert found["usd_saved_share_of_oracle"] == pytest.approx(0.7 / 0.8)
    assert found["usd_saved_share_of_provable_oracle"] == pytest.approx(1.0)
    assert found["provable_share_of_oracle"] == pytest.approx(0.7 / 0.8)
    assert found["usd_saved_vs_best_single_model"] == pytest.approx(1 - 9 / 24)
    assert found["best_single_model_in_hindsight"] == "strong"
    assert found["strong_alone_share"] == 0.0


def test_a_set_that_is_not_here_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "ROOT", tmp_path)
    assert recorded.served_here("vision", 100) is None


def test_the_least_sure_classes_are_found():
    classes, sure = np.array([0, 0, 1, 1, 2, 2]), np.array([1.0, 1.0, 5.0, 5.0, 3.0, 3.0])
    assert recorded.least_sure(classes, sure).tolist() == [True, True, False, False, False, False]
