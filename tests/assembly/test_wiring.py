from dataclasses import replace

import pytest

from halve.assembly import entries
from halve.assembly.config import LADDER, Config
from halve.assembly.wiring import JOINT, LEVERS, baseline_stack, wire
from halve.core import Lever, ServiceCurve
from halve.core.documents import load_yaml
from halve.core.progress import Silent
from halve.errors import UserError
from halve.techniques.compression.quantization import detect_hardware
from halve.techniques.infrastructure.right_sizing import peak_replicas
from halve.testing.tiny_service import write_service

GATEWAY_CURVE = ServiceCurve(
    model="gateway", threads=1, batch_sizes=(1,), samples_seconds=((0.0004, 0.0005),), peak_memory_bytes=0
)


def wired(folder, **changes):
    path = write_service(folder, changes=changes)
    with entries.importable(path.parent):
        return wire(
            load_yaml(Config, path),
            config_folder=path.parent,
            runs=folder / "runs",
            progress=Silent(),
            measure_gateway=lambda workload: GATEWAY_CURVE,
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wired")
    found = wired(folder)
    with entries.importable(folder):  # models are loaded by their entries
        found.bench.service_curve(found.bench.baseline, threads=2)
    return found


def test_every_lever_is_wired_under_its_own_name(service):
    assert tuple(LEVERS) == LADDER
    levers: list[Lever] = service.levers(LADDER)
    assert [lever.name for lever in levers] == list(LADDER)
    assert [lever.name for lever in service.levers(JOINT)] == ["right_sizing", "batching", "cascade"]


def test_only_the_levers_of_the_config_are_used(service):
    few = replace(service, config=replace(service.config, levers=("cascade",)))
    assert [lever.name for lever in few.levers(LADDER)] == ["cascade"]
    assert [lever.name for lever in few.levers(JOINT)] == ["cascade"]


def test_the_models_lie_in_the_run_folder(service):
    bench = service.bench
    assert bench.folder == service.folder
    for model in (bench.baseline, *bench.brought):
        assert all((service.folder / file.path).is_file() for file in model.files)


def test_the_baseline_is_the_model_as_it_is_run_today(service):
    stack = baseline_stack(service)
    (deployment,) = stack.deployments
    assert deployment.replica.replicas == 6
    assert deployment.threads == 2
    assert deployment.batch.max_batch_size == 1
    assert stack.cache_stage is None


def test_peak_replicas_follow_the_busiest_second(service):
    given = replace(service.config.baseline, replicas="peak")
    stack = baseline_stack(replace(service, config=replace(service.config, baseline=given)))
    curve = service.bench.service_curve(service.bench.baseline, threads=2)
    expected = peak_replicas(
        peak_requests_per_second=service.workload.traffic.peak_requests_per_second(window_seconds=1.0),
        seconds_per_request=float(curve.median_seconds[0]),
        target_utilization=0.7,
    )
    assert stack.deployments[0].replica.replicas == expected


def test_assumptions_name_every_instance_type_and_this_host(service):
    text = "\n".join(service.assumptions)
    for name in (*service.config.prices.instances, service.config.baseline.instance_type):
        assert name in text
    assert detect_hardware().hardware_class in text


def test_instances_that_cannot_be_measured_here_are_left_out_aloud(tmp_path):
    found = wired(tmp_path, prices={"instances": ["c6a.large", "c7g.large", "g5.xlarge"]})
    left_out = {line.split(" ")[0] for line in found.assumptions if "was not considered" in line}
    assert "g5.xlarge" in left_out, "a GPU's speed cannot be measured on a CPU"
    assert {kind.name for kind in found.bench.instance_types()} == {"c6a.large", "c7g.large"} - left_out


def test_your_own_prices_win(tmp_path):
    found = wired(tmp_path, prices={"instances": ["c6a.large"], "usd_per_hour": {"c6a.large": 0.01}})
    assert [kind.usd_per_hour for kind in found.bench.instance_types()] == [0.01]


def test_an_instance_type_that_is_not_listed_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"c6a\.lrage"):
        wired(tmp_path, prices={"instances": ["c6a.lrage"]})


def test_the_folder_follows_config_data_and_code(tmp_path):
    first = wired(tmp_path / "a").folder.name
    assert wired(tmp_path / "b").folder.name == first
    assert wired(tmp_path / "c", baseline={"replicas": 5}).folder.name != first
    path = write_service(tmp_path / "d")
    code = path.parent / "tiny_models.py"
    code.write_text(code.read_text() + "# edited\n")
    with entries.importable(path.parent):
        edited = wire(
            load_yaml(Config, path),
            config_folder=path.parent,
            runs=tmp_path / "runs",
            progress=Silent(),
            measure_gateway=lambda workload: GATEWAY_CURVE,
        )
    assert edited.folder.name != first
