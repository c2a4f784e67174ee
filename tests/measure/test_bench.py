import json
from dataclasses import replace

import numpy as np
import pytest

from halve.core import Acceptance, Deployment, Model, Recipe, ServiceCurve, Stage
from halve.errors import InvalidParameterError, StorageError, UserError


def test_asking_twice_runs_the_model_once(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    first = bench.outcomes(bench.baseline)
    assert bench.outcomes(bench.baseline) is first
    assert bench.engines.loaded == ["full"]
    bench.outcomes(bench.baseline, split="certify")
    assert bench.engines.loaded == ["full", "full"]


def test_a_new_bench_over_the_same_folder_runs_nothing(table_bench, baseline_of, tmp_path):
    first = table_bench(tmp_path)
    before = [first.measure(baseline_of(first), split=split) for split in ("search", "certify")]
    second = table_bench(tmp_path)
    assert [second.measure(baseline_of(second), split=split) for split in ("search", "certify")] == before
    assert second.engines.loaded == []


def test_outcomes_are_scored_against_the_references(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    for split in ("search", "certify"):
        outcomes = bench.outcomes(bench.baseline, split=split)
        references = [example.reference for example in bench.workload.examples(split)]
        np.testing.assert_array_equal(outcomes.scores, outcomes.answers == references)
        assert 0.95 < outcomes.quality < 1


def test_a_missing_curve_is_measured_once_and_kept(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    path = next((tmp_path / "curves").glob("small-*-2.json"))
    given = bench.service_curve(bench.brought[0], threads=4)
    assert given.threads == 4
    path.unlink()
    measured = bench.service_curve(bench.brought[0], threads=2)
    assert path.exists()
    assert bench.engines.loaded == ["small"]
    assert ServiceCurve.load(path) == measured
    assert bench.service_curve(bench.brought[0], threads=2) is measured
    assert bench.engines.loaded == ["small"]


def test_the_gateway_is_measured_once(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    (tmp_path / "curves" / "gateway.json").unlink()
    asked = []
    make = bench.measure_gateway
    bench.measure_gateway = lambda: asked.append(1) or make()
    assert bench.gateway_curve() == bench.gateway_curve()
    assert asked == [1]


def test_money_is_instances_times_price(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench, replicas=5)
    measured, traffic = bench.measure(stack), bench.workload.traffic
    per_hour = sum(bench.catalogue.instance(name).usd_per_hour * n for name, n in measured.instances.items())
    assert bench.usd_per_hour(stack) == pytest.approx(per_hour)
    usd = per_hour * traffic.duration_seconds / 3600 / traffic.n_requests * 1000
    assert measured.usd_per_1k_requests == pytest.approx(usd)
    assert measured.instances == {"c6a.large": 3}, "five replicas and a gateway of one vCPU each, two to an instance"
    assert [line.name for line in measured.ledger] == ["gateway", "full", "idle capacity"]


def test_the_drop_bound_is_counted_from_the_baseline(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    own, small = bench.outcomes(bench.baseline).scores, bench.outcomes(bench.brought[0]).scores
    assert 0 < bench.drop_upper_bound(own) < 0.01
    assert bench.drop_upper_bound(small) > np.mean(own) - np.mean(small)


def test_a_cascade_shares_the_requests_as_it_shares_the_examples(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    start, small = baseline_of(bench), bench.brought[0]
    first = Stage(kind="model", model="small", accept=Acceptance(rule="maximum_probability", threshold=0.6))
    stack = replace(
        start,
        models=(small, *start.models),
        stages=(first, *start.stages),
        deployments=(Deployment(model="small", instance_type="c6a.large"), *start.deployments),
    )
    measured = bench.measure(stack)
    sure = bench.outcomes(small).probabilities.max(axis=1) >= 0.6
    asked = bench.workload.traffic.example % len(sure)
    assert measured.stage_share["small"] == pytest.approx(float(np.mean(sure[asked])))
    assert sum(measured.stage_share.values()) == pytest.approx(1)
    assert measured.peak_memory_bytes == 20_000_000


def test_a_model_is_built_once_for_its_name_parent_and_recipe(table_bench, tmp_path):
    bench, built = table_bench(tmp_path), []

    def build(folder):
        built.append(folder)
        (folder / "weights.bin").write_bytes(b"w" * len(built))

    wanted = Model(name="made", engine="recorded", parent="full", recipe=Recipe(technique="t", parameters={"bits": 7}))
    first = bench.make_model(wanted, build=build)
    assert bench.make_model(wanted, build=build) == first
    assert table_bench(tmp_path).make_model(wanted, build=build) == first
    assert len(built) == 1
    (file,) = first.files
    assert (bench.model_folder(first) / file.path).read_bytes() == b"w"
    eight = replace(wanted, recipe=Recipe(technique="t", parameters={"bits": 8}))
    assert bench.make_model(eight, build=build).files[0].path != file.path
    assert len(built) == 2


def test_a_failed_build_leaves_nothing_behind(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def build(folder):
        (folder / "half").write_text("written")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"the disk is full\. What was measured before is kept\.$"):
        bench.make_model(Model(name="made", engine="recorded"), build=build)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("content", ["", "{", json.dumps({"model": "full"})])
def test_a_damaged_curve_is_named_not_measured_over(table_bench, tmp_path, content):
    bench = table_bench(tmp_path)
    path = next((tmp_path / "curves").glob("full-*-1.json"))
    path.write_text(content)
    with pytest.raises(UserError, match=path.name.replace(".", r"\.")):
        bench.service_curve(bench.baseline, threads=1)
    assert path.read_text() == content


def test_choices_are_sorted_cheapest_first(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    assert [kind.name for kind in bench.instance_types()] == ["c6a.large", "c6a.xlarge"]
    assert bench.threads_options()[0] == 1
    bench.brought = [bench.baseline, *bench.brought]
    assert [model.name for model in bench.answerers()] == ["small", "full"]


def test_what_a_lever_made_is_an_answerer_and_what_was_given_is_not_twice(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    made = replace(bench.baseline, parent="full", recipe=Recipe(technique="quantization"))
    bench.make_model(replace(bench.baseline, parent=None, recipe=Recipe(technique="given")), build=lambda folder: None)
    assert [model.name for model in bench.answerers()] == ["small"]
    bench.make_model(made, build=lambda folder: None)
    bench.make_model(made, build=lambda folder: None)
    assert [model.name for model in bench.answerers()] == ["small", "full"]


def test_a_model_that_answers_singly_is_measured_and_planned_in_batches_of_one(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench)
    alone = replace(bench.baseline, name="alone", answers_singly=True)
    assert bench.service_curve(alone, threads=1).batch_sizes == (1,)
    outcomes, together = bench.outcomes(alone), bench.outcomes(bench.baseline)
    np.testing.assert_array_equal(outcomes.answers, together.answers)
    eager = stack.with_model("full", alone)
    eager = eager.with_deployment(
        replace(eager.deployments[0], batch=replace(eager.deployments[0].batch, max_batch_size=16))
    )
    fitted = bench.fit(eager)
    assert fitted is not None
    assert fitted.deployments[0].batch.max_batch_size == 1


def test_an_instance_too_small_for_the_model_fits_nothing(table_bench, baseline_of, tmp_path):
    bench = table_bench(tmp_path)
    stack = baseline_of(bench)
    assert bench.fit(stack) is not None
    (path,) = (tmp_path / "curves").glob("full-*-1.json")
    huge = replace(ServiceCurve.load(path), peak_memory_bytes=2**40)
    huge.save(path)
    again = table_bench(tmp_path)
    path_again = next((tmp_path / "curves").glob("full-*-1.json"))
    huge.save(path_again)
    assert again.fit(stack) is None


def test_labels_that_are_not_as_many_as_the_classes_are_refused(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    bench.workload = replace(bench.workload, labels=("one", "two"))
    with pytest.raises(InvalidParameterError, match=r"examples\.labels must be as many as model 'full' has classes"):
        bench.outcomes(bench.baseline)


def test_seconds_are_measured_once_for_an_owner_and_its_names(table_bench, tmp_path):
    bench, calls = table_bench(tmp_path), []

    def measure(actions):
        calls.append(list(actions))
        return {name: [1.5, 2.5] for name in actions}

    actions = {"fp32": lambda: None, "int8": lambda: None}
    for _ in range(2):
        assert bench.seconds("full", actions, measure=measure) == {"fp32": [1.5, 2.5], "int8": [1.5, 2.5]}
    assert table_bench(tmp_path).seconds("full", actions, measure=measure)["int8"] == [1.5, 2.5]
    assert calls == [["fp32", "int8"]]
    bench.seconds("small", actions, measure=measure)
    bench.seconds("full", {"fp32": print}, measure=measure)
    assert calls == [["fp32", "int8"], ["fp32", "int8"], ["fp32"]]


def test_damaged_seconds_are_named_not_measured_over(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    bench.seconds("full", {"fp32": print}, measure=lambda actions: {"fp32": [1.0]})
    (path,) = (tmp_path / "timings").iterdir()
    path.write_text("{")
    with pytest.raises(UserError, match=path.name.replace(".", r"\.")):
        bench.seconds("full", {"fp32": print}, measure=lambda actions: {"fp32": [1.0]})


def test_students_are_what_the_user_brought_untrained(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    assert bench.students() == []
    tiny = Model(name="tiny", engine="torch", entry="mine:tiny")
    bench.untrained = [tiny]
    assert bench.students() == [tiny]
    assert tiny not in bench.answerers()


def test_a_workspace_is_found_again_with_what_was_left_in_it(table_bench, tmp_path):
    folder = table_bench(tmp_path).workspace("training-tiny")
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path)
    (folder / "state").write_text("half way")
    again = table_bench(tmp_path)
    assert (again.workspace("training-tiny") / "state").read_text() == "half way"
    assert list(again.workspace("teachers").iterdir()) == []


def test_a_workspace_that_cannot_be_made_is_a_storage_error(table_bench, tmp_path):
    bench = table_bench(tmp_path)
    (tmp_path / "workspaces").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="workspaces"):
        bench.workspace("teachers")
