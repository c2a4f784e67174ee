from dataclasses import replace

import numpy as np
import pytest

from halve.assembly import entries
from halve.assembly.config import Config
from halve.assembly.workload import fingerprint, load_workload, with_seed
from halve.core.documents import load_yaml
from halve.errors import HalveError, InvalidParameterError, TooFewExamplesError
from halve.testing.tiny_service import points, write_service


def load(folder, **changes):
    path = write_service(folder, examples=changes.pop("n", 1500), changes=changes)
    with entries.importable(path.parent):
        return load_workload(load_yaml(Config, path), folder=path.parent)


def test_examples_are_split_and_traffic_asks_for_them(tmp_path):
    workload = load(tmp_path)
    assert len(workload.search) + len(workload.certify) == 1500
    assert 0.4 < len(workload.certify) / 1500 < 0.6
    assert workload.traffic.repeats == "none"
    assert len(np.unique(workload.traffic.content)) == workload.traffic.n_requests
    assert workload.objective.quality_drop_at_most == 0.03


def test_examples_may_come_from_a_function(tmp_path):
    (tmp_path / "data_of_mine.py").write_text(
        "from halve.testing.tiny_service import points\ndef load():\n    x, y = points()\n    return x, y.tolist()\n"
    )
    workload = load(tmp_path, examples={"entry": "data_of_mine:load"})
    assert fingerprint(workload) == fingerprint(load(tmp_path))


def test_names_of_classes_become_numbers_only_with_labels(tmp_path):
    inputs, classes = points()
    names = np.array(["low", "middle", "high"])[classes]
    np.savez(tmp_path / "named.npz", inputs=inputs, classes=names)
    given = {"file": "named.npz", "payload": "inputs", "reference": "classes"}
    workload = load(tmp_path, examples={**given, "labels": ["low", "middle", "high"]})
    assert {example.reference for example in workload.search} == {0, 1, 2}
    assert workload.labels == ("low", "middle", "high")
    with pytest.raises(InvalidParameterError, match=r"examples\.labels must be given when references are names"):
        load(tmp_path, examples=given)


@pytest.mark.parametrize("kind", ["poisson", "gamma", "diurnal"])
def test_generated_traffic_has_the_rate_it_was_asked_for(tmp_path, kind):
    generate = {"kind": kind, "requests_per_second": 50, "duration_seconds": 100, "period_seconds": 100}
    traffic = load(tmp_path, traffic={"generate": generate}).traffic
    assert traffic.duration_seconds == 100
    assert traffic.mean_requests_per_second == pytest.approx(50, rel=0.15)


def test_a_trace_is_thinned_multiplied_and_sped_up(tmp_path):
    whole = load(tmp_path, traffic={"trace": "azure-code"}).traffic
    half = load(tmp_path, traffic={"trace": "azure-code", "thin": 0.5}).traffic
    assert half.n_requests == pytest.approx(whole.n_requests / 2, rel=0.05)
    assert load(tmp_path, traffic={"trace": "azure-code", "multiply": 3}).traffic.n_requests == 3 * whole.n_requests
    fast = load(tmp_path, traffic={"trace": "azure-code", "speed_up": 4}).traffic
    assert fast.duration_seconds == pytest.approx(whole.duration_seconds / 4)


def test_a_log_shows_its_repeats_and_a_law_declares_them(tmp_path):
    (tmp_path / "log.csv").write_text("timestamp,asked\n" + "".join(f"{i},{i % 3}\n" for i in range(30)))
    seen = load(tmp_path, traffic={"file": "log.csv", "content": "asked"}).traffic
    assert (seen.repeats, len(np.unique(seen.content))) == ("observed", 3)
    declared = load(tmp_path, traffic={"file": "log.csv", "popularity_exponent": 1.0}).traffic
    assert declared.repeats == "declared"


def test_too_few_examples_say_how_many_are_needed(tmp_path):
    with pytest.raises(TooFewExamplesError, match=r"examples must be at least \d+ in the certify split"):
        load(tmp_path, n=12)


def test_the_fingerprint_follows_every_value(tmp_path):
    workload = load(tmp_path)
    assert fingerprint(workload) == fingerprint(load(tmp_path))
    first = workload.search[0]
    changed = replace(first, payload=first.payload + np.float32(1e-3))
    other = replace(workload, search=[changed, *workload.search[1:]])
    relabelled = replace(workload, search=[replace(first, reference=9), *workload.search[1:]])
    moved = replace(workload, traffic=workload.traffic.every(2))
    assert len({fingerprint(each) for each in (workload, other, relabelled, moved)}) == 4


def test_the_seed_of_the_command_line_wins(tmp_path):
    config = load_yaml(Config, write_service(tmp_path))
    assert with_seed(config, None) is config
    assert with_seed(config, 5).seed == 5


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(HalveError, match=r"absent\.npz"):
        load(tmp_path, examples={"file": "absent.npz"})
