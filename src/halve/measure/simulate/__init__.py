"""The compiled queueing simulator: a trace through a chain of stations. Runs no model and knows no prices."""

from halve.measure.simulate.chain import service_ratios, simulate
from halve.measure.simulate.station import Simulation, Station, StationLoad

__all__ = ["Simulation", "Station", "StationLoad", "service_ratios", "simulate"]
