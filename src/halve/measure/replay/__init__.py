"""Really serve a stack and really send it a trace: an open-loop load generator, and the server as a process."""

from halve.measure.replay.bodies import encode_bodies
from halve.measure.replay.generator import replay
from halve.measure.replay.process import CorePlan, ServerProcess, free_port, pinned, plan_cores, server_process
from halve.measure.replay.record import ReplayRecord

__all__ = [
    "CorePlan",
    "ReplayRecord",
    "ServerProcess",
    "encode_bodies",
    "free_port",
    "pinned",
    "plan_cores",
    "replay",
    "server_process",
]
