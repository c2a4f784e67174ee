"""What the HTTP server itself costs: the real server, answering from a table, under an even load."""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from halve.core import (
    Deployment,
    Gateway,
    Model,
    Outcomes,
    Payload,
    Preprocess,
    Progress,
    ServiceCurve,
    Stack,
    Stage,
    Workload,
)
from halve.core.documents import dump_yaml
from halve.engines.recorded import save_recorded
from halve.measure.artifacts import adopt_files
from halve.measure.planner import GATEWAY
from halve.measure.replay import encode_bodies, pinned, plan_cores, replay, server_process
from halve.measure.replay.process import free_port
from halve.measure.scrape import since, station_vcpu_seconds

REQUESTS_PER_SECOND, SLICES, SLICE_SECONDS = 600, 6, 1.0
"""A rate at which a gateway is worth its price: at low rates each request also pays for waking the thread up."""

_PAYLOADS = 150


def measure_gateway(workload: Workload, *, progress: Progress) -> ServiceCurve:
    """Return the processor seconds that the gateway spends on one request of this workload.

    The workload's own payloads are sent, so that parsing them is counted; a table answers, so that no
    model is. Each sample is the mean over one slice of a second.
    """
    payloads = [example.payload for example in workload.search[:_PAYLOADS]]
    with (
        TemporaryDirectory(prefix="halve-gateway-") as name,
        progress.task("speed of the gateway", total=SLICES) as bar,
    ):
        folder = Path(name)
        stack = _table_stack(payloads, folder)
        cores, port = plan_cores(), free_port()
        argv = serve_command(folder / "stack.yaml", port=port)
        bodies = encode_bodies(payloads)
        arrivals = np.arange(int(REQUESTS_PER_SECOND * SLICE_SECONDS)) / REQUESTS_PER_SECOND
        samples = []
        with server_process(argv, url=f"http://127.0.0.1:{port}", cores=cores.server_cores) as server:
            for _ in range(SLICES):
                before = station_vcpu_seconds(server.url)
                with pinned(cores.client_cores):
                    replay(
                        server.url,
                        model_name=stack.name,
                        arrival_seconds=arrivals,
                        bodies=[bodies[row % len(bodies)] for row in range(len(arrivals))],
                        warm_up=bodies[:8],
                    )
                used = since(before, station_vcpu_seconds(server.url))
                samples.append(used[GATEWAY] / (len(arrivals) + 8))
                bar()
    return ServiceCurve(
        model=GATEWAY,
        threads=1,
        batch_sizes=(1,),
        samples_seconds=(tuple(samples),),
        peak_memory_bytes=0,
    )


def serve_command(stack: Path, *, port: int, config: Path | None = None) -> list[str]:
    """Return the command that serves a stack file on a local port."""
    command = [sys.executable, "-m", "halve.cli", "serve", str(stack), "--port", str(port)]
    return command if config is None else [*command, "--config", str(config)]


def _table_stack(payloads: Sequence[Payload], folder: Path) -> Stack:
    """Write a stack whose only model is a table of answers to these payloads."""
    n = len(payloads)
    outcomes = Outcomes(
        model="table",
        answers=np.zeros(n, dtype=np.int64),
        scores=np.ones(n),
        compute_seconds=np.zeros(n),
    )
    save_recorded(outcomes, folder / "model" / "table.parquet", payloads=payloads)
    model = Model(
        name="table",
        engine="recorded",
        files=adopt_files(folder / "model", relative_to=folder),
        # What the gateway takes at the door.
        preprocess=Preprocess(kind="wordpiece" if isinstance(payloads[0], str) else "tensor"),
    )
    instance = "c6a.large"
    stack = Stack(
        name="gateway-profile",
        models=(model,),
        stages=(Stage(kind="model", model="table"),),
        deployments=(Deployment(model="table", instance_type=instance),),
        gateway=Gateway(instance_type=instance),
    )
    (folder / "stack.yaml").write_text(dump_yaml(stack))
    return stack
