"""A stack file made runnable: engines, acceptances and the cache handed to the gateway."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from halve.assembly import entries
from halve.assembly.config import Config
from halve.assembly.semantic import SharedCache, runner
from halve.assembly.watching import ProductionWatch
from halve.core import Answerer, Model, Stack
from halve.core.documents import load_yaml
from halve.errors import ConfigError, InvalidParameterError
from halve.levers.cascade import serve_acceptance
from halve.levers.exact_cache import cache_key, serve_cache
from halve.optimize.store import load_stack
from halve.pricing import Catalogue
from halve.serving.gateway import Chain, Gateway, InputSpec
from halve.serving.gateway import serve as serve_gateway
from halve.techniques.compression.quantization import MANIFEST_NAME, check_folder
from halve.units import SECONDS_PER_HOUR

_log = logging.getLogger("halve.assembly")


def make_chain(
    stack: Stack,
    *,
    folder: Path,
    catalogue: Catalogue | None = None,
    cache_location: str | None = None,
    watch: ProductionWatch | None = None,
) -> Chain:
    """Return the stack with all that its stages need.

    Args:
        stack: What to serve; models of the torch engine have their entry set.
        folder: What the models' file paths are relative to.
        catalogue: Prices, for the cost metric.
        cache_location: Where a semantic cache lies: a SQLite file or a `postgresql://` address; None for a temporary
            file.
        watch: Watches early answers.
    """
    prices = catalogue or Catalogue.load()
    kinds = {stack.gateway.instance_type, *(deployment.instance_type for deployment in stack.deployments)}
    cache, shared = stack.cache_stage, _shared_cache(stack, folder=folder, location=cache_location)
    texts = stack.models[0].preprocess.kind == "wordpiece"
    return Chain(
        stack=stack,
        load=lambda model, threads: (
            shared.answerer(threads=threads)
            if shared is not None and model.engine == "semantic_cache"
            else load_checked(model, threads=threads, folder=folder)
        ),
        memory=shared,
        watch=watch,
        accepts={
            str(stage.model): serve_acceptance(stage.accept) if watch is None else watch.accepts(stage.accept)
            for stage in stack.model_stages
            if stage.accept is not None
        },
        cache=serve_cache(cache) if cache else None,
        cache_key=cache_key if cache else None,
        labels=stack.labels,
        usd_per_vcpu_second={name: _usd_per_vcpu_second(prices, name) for name in kinds},
        takes=InputSpec(datatype="BYTES" if texts else "FP32"),
    )


def _shared_cache(stack: Stack, *, folder: Path, location: str | None) -> SharedCache | None:
    model = next((model for model in stack.models if model.engine == "semantic_cache"), None)
    if model is None:
        if location is not None:
            rule = "given only for a stack with a semantic cache"
            raise InvalidParameterError("cache", rule=rule, value=location)
        return None
    return SharedCache(model, folder=folder, location=location, data_version=stack.models[-1].fingerprint)


def load_checked(model: Model, *, threads: int, folder: Path) -> Answerer:
    """Load a model; one that brings a manifest must be right on this host too.

    Raises:
        ModelError: If its integers are wrong on this processor; says what to do.
    """
    for file in model.files:
        if file.path.endswith(f"/{MANIFEST_NAME}"):
            for warning in check_folder((folder / file.path).parent):
                _log.warning("%s: %s", model.name, warning)
    return runner(model.engine).load(model, threads=threads, folder=folder)


def _usd_per_vcpu_second(catalogue: Catalogue, name: str) -> float:
    kind = catalogue.instance(name)
    return kind.usd_per_hour / kind.vcpus / SECONDS_PER_HOUR


def serve(
    stack_path: Path,
    *,
    config: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    cache: str | None = None,
    watch: ProductionWatch | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve a stack file until SIGTERM or SIGINT.

    Args:
        stack_path: A `stack.yaml`, with its models beside it.
        config: The config it came from; needed if a model is Python code, which a stack file never names.
        host: Address to listen on.
        port: 0 lets the system choose.
        cache: Where a semantic cache lies; see `make_chain`.
        watch: Watches early answers, if given.
        ready: Called with the port once requests are taken.

    Raises:
        ConfigError: If the stack breaks a rule, or needs the config and none was given.
        EnvironmentFailedError: If the port is taken.
    """
    stack = load_stack(stack_path)
    with ExitStack() as scope:
        given = None
        if config is not None:
            given = load_yaml(Config, config)
            scope.enter_context(entries.importable(config.parent))
        stack = with_entries(stack, given, source=str(stack_path))
        chain = make_chain(stack, folder=stack_path.parent, cache_location=cache, watch=watch)
        serve_gateway(Gateway(chain), host=host, port=port, ready=ready)


def with_entries(stack: Stack, config: Config | None, *, source: str) -> Stack:
    """Return the stack with the entries of its torch models, as the config has them.

    Raises:
        ConfigError: Naming each torch model that the config does not know.
    """
    known = {given.name: given.entry for given in (config.model, *config.answerers)} if config else {}
    lost = [model.name for model in stack.models if model.engine == "torch" and not known.get(model.name)]
    if lost:
        hint = "give the config that it came from with --config" if config is None else "the config does not name it"
        raise ConfigError(source, [f"model {name} is Python code: {hint}." for name in lost])
    models = (replace(model, entry=known[model.name]) if model.engine == "torch" else model for model in stack.models)
    return replace(stack, models=tuple(models))
