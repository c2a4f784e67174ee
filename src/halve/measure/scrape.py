"""Reads a running server's busy seconds from its own metrics."""

import http.client

from halve.errors import MissingExtraError, ReplayError

_METRIC = "halve_vcpu_seconds"


def station_vcpu_seconds(url: str) -> dict[str, float]:
    """Return the busy vCPU seconds of each station (gateway and models) since the server started.

    Raises:
        ReplayError: If the server does not answer, or has no such metric.
    """
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        raise MissingExtraError("replay", package="prometheus-client", extra="serve") from None
    # Not urllib: it would ask the user's HTTP proxy.
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        raise ReplayError(f"the metrics of {url} cannot be read: {error}.") from error
    finally:
        connection.close()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    if _METRIC not in families:
        raise ReplayError(f"the metrics of {url} must hold {_METRIC}. Got {', '.join(sorted(families)) or 'none'}.")
    return {
        str(sample.labels["station"]): float(sample.value)
        for sample in families[_METRIC].samples
        if sample.name == f"{_METRIC}_total"
    }


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Return the seconds that each station was busy between two readings."""
    return {name: max(seconds - before.get(name, 0.0), 0.0) for name, seconds in after.items()}
