"""A run becomes JSON, terminal text or one HTML file. Reads finished records; measures nothing."""

from halve.report.html import render_html, write_html
from halve.report.schema import published_schema
from halve.report.summary import profile_summary, summary
from halve.report.text import print_profile, print_report

__all__ = [
    "print_profile",
    "print_report",
    "profile_summary",
    "published_schema",
    "render_html",
    "summary",
    "write_html",
]
