import json

import numpy as np

from halve.measure.replay import ReplayRecord
from halve.measure.replay.connection import Exchange
from halve.measure.replay.record import read_labels


def exchange(*, status=0, label=None, reason=""):
    settled = Exchange(b"", on_settled=lambda: None)
    if reason:
        settled.failed(reason)
    else:
        outputs = [] if label is None else [{"name": "label", "data": [label]}, {"name": "stage", "data": ["m"]}]
        settled.answered(status, json.dumps({"outputs": outputs}).encode())
    return settled


def test_each_row_is_an_answer_or_a_reason():
    rows = [
        exchange(status=200, label=4),
        exchange(status=503, label=5),
        exchange(reason="timeout"),
        exchange(status=200),
    ]
    labels, stages, reasons = read_labels(rows)
    assert labels.tolist() == [4, -1, -1, -1]
    assert stages == ("m", "", "", "")
    assert reasons == ["", "HTTP 503", "timeout", "a reply without a label"]


def test_no_answer_at_all_gives_integer_labels():
    labels, _, _ = read_labels([exchange(reason="timeout")])
    assert labels.dtype == np.int64


def test_failed_is_the_sum_of_the_reasons():
    record = ReplayRecord(
        latency_seconds=np.zeros(3), send_lateness_seconds=np.zeros(3), labels=np.zeros(3, dtype=np.int64),
        stages=("",) * 3, failures={"timeout": 1, "HTTP 503": 2}, most_connections=1, client_cpu_share=0.1,
        wall_seconds=1.0, started_monotonic_seconds=0.0,
    )  # fmt: skip
    assert record.failed == 3
