"""The report's figures as SVG, each drawn for a given width. They draw numbers of the record and compute none."""

from halve.report.charts.bars import ledger, replay, stages
from halve.report.charts.certificate import certificate
from halve.report.charts.latency import latency, replayed_latency
from halve.report.charts.plane import plane
from halve.report.charts.waterfall import waterfall

__all__ = ["certificate", "latency", "ledger", "plane", "replay", "replayed_latency", "stages", "waterfall"]
