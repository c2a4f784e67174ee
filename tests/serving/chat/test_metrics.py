import sys

import pytest

from halve.errors import MissingExtraError
from halve.serving.chat.metrics import OUTCOMES, ChatMetrics


def test_requests_are_counted_by_how_they_were_answered():
    metrics = ChatMetrics()
    metrics.finished("exact", status=200, seconds=0.003)
    metrics.finished("miss", status=429, seconds=2.0)
    metrics.looked_up(0.004)
    metrics.saved(0.25)
    page = metrics.render().decode()
    assert 'halve_chat_requests_total{outcome="exact",status="200"} 1.0' in page
    assert 'halve_chat_requests_total{outcome="miss",status="429"} 1.0' in page
    assert 'halve_chat_seconds_bucket{le="0.005",outcome="exact"} 1.0' in page
    assert "halve_chat_saved_usd_total 0.25" in page
    assert all(f'halve_chat_seconds_count{{outcome="{outcome}"}}' in page for outcome in OUTCOMES)


def test_a_missing_library_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'halve\[serve\]'"):
        ChatMetrics()
