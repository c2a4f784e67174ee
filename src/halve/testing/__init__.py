"""Fakes, contract suites and hypothesis strategies that we ship, for our tests and for yours."""
