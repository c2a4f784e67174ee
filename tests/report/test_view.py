from dataclasses import replace
from itertools import pairwise

import pytest

from halve.core import Run
from halve.report import view


def test_a_rung_is_compared_with_the_kept_rung_before_it(runs):
    rows = view.rung_rows(runs["standard"]())
    kept = [row for row in rows if row.keep]
    assert rows[0].usd_before == pytest.approx(0.4512)
    for before, after in pairwise(kept):
        assert after.usd_before == before.usd
    rejected_cascade, kept_cascade = (row for row in rows if row.lever == "cascade")
    assert rejected_cascade.usd_before == kept_cascade.usd_before


def test_a_dearer_change_has_a_negative_saving(runs):
    (dynamic, _) = (row for row in view.rung_rows(runs["standard"]()) if row.lever == "quantization")
    assert dynamic.saving_rate == pytest.approx(1 - 0.0407 / 0.0383)
    assert view.saving_words(dynamic) == "would cost 6.3 % more"


def test_a_change_that_saves_nothing_says_so(runs):
    cache = next(row for row in view.rung_rows(runs["standard"]()) if row.lever == "exact_cache")
    assert cache.saving_rate == 0.0
    assert view.saving_words(cache) == "would save nothing"


def test_a_lever_without_a_measurement_has_no_figures(runs):
    (row,) = view.rung_rows(runs["one_rung"]())
    assert (row.usd, row.saving_rate, row.quality, row.p99_seconds) == (None, None, None, None)
    assert view.saving_words(row) == ""
    assert view.money(row.usd) == "-"


def test_quality_change_is_the_paired_drop_of_the_verdict_where_there_is_one(runs):
    rows = view.rung_rows(runs["standard"]())
    assert [row.quality_change for row in rows if row.lever == "cascade"] == [-0.022, -0.0028]
    run = runs["standard"]()
    bare = tuple(replace(rung, verdict=replace(rung.verdict, numbers={})) for rung in run.rungs)
    row = view.rung_rows(replace(run, rungs=bare))[0]
    assert row.quality_change == pytest.approx(0.9824 - 0.9816)
    assert row.drop_bound is None


@pytest.mark.parametrize(
    ("name", "text", "tone"),
    [
        ("standard", "92.3 % cheaper", "good"),
        ("nothing_kept", "No saving: nothing passed", "neutral"),
        ("dearer", "14.1 % dearer", "bad"),
        ("one_rung", "No saving: nothing passed", "neutral"),
        ("refused", "92.3 % cheaper, not certified", "bad"),
    ],
)
def test_headline(runs, name, text, tone):
    assert view.headline(runs[name]()) == view.Headline(text=text, tone=tone)


def test_kept_rungs_that_save_nothing_are_no_saving(runs):
    assert view.headline(replace(runs["standard"](), saving_rate=0.0001)).text == "No saving"


def test_the_certificate_states_margin_confidence_n_and_power(runs):
    first, second = view.certificate_sentences(runs["standard"]())
    assert "95 % confidence" in first
    assert "at most 0.64 points" in first
    assert "promise was 1.00 points" in first
    assert "2,500 examples" in second
    assert "1.41 points would have been noticed four times out of five" in second


def test_a_refused_certificate_never_reads_like_a_proof(runs):
    first, _ = view.certificate_sentences(runs["refused"]())
    assert first.startswith("Not certified: ")
    assert "could be 1.81 points" in first


def test_every_ledger_line_of_either_bill_appears_once_and_sums_to_it(run: Run):
    rows = view.ledger_rows(run)
    assert len({row.name for row in rows}) == len(rows)
    assert sum(row.before for row in rows) == pytest.approx(run.baseline.usd_per_1k_requests)
    assert sum(row.after for row in rows) == pytest.approx(run.final.usd_per_1k_requests)


def test_the_chain_tells_thresholds_and_deployments(runs):
    lines = list(view.chain_lines(runs["standard"]()))
    assert [name for name, _ in lines] == ["exact cache", "student", "teacher-int8"]
    assert lines[0][1] == "50,000 entries, kept for 3600 s"
    assert lines[1][1].startswith(
        "answers when its margin is at least 0.5312; 1 x 1 thread on c6a.large, batches of up to 16"
    )
    assert lines[2][1].startswith("always answers; 2 x 1 thread")


@pytest.mark.parametrize(
    ("score", "text"), [(0.0031, "0.31 pt"), (-0.0031, "-0.31 pt"), (-1e-9, "0.00 pt"), (0, "0.00 pt")]
)
def test_points(score, text):
    assert view.points(score) == text


@pytest.mark.parametrize(("share", "text"), [(0.123, "12.3 %"), (-0.0001, "0.0 %"), (-0.06266, "-6.3 %")])
def test_percent_has_no_negative_zero(share, text):
    assert view.percent(share) == text


def test_saving_of_nothing_is_unknown():
    assert view.saving(0.0, 1.0) is None
