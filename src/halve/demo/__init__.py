"""The demos that ship with halve: a config, and the functions it names."""

from pathlib import Path

from halve.errors import InvalidParameterError

__all__ = ["config_path"]


def config_path(name: str) -> Path:
    """Return the config file of a demo, `classify`.

    Raises:
        InvalidParameterError: If there is no demo of that name.
    """
    folder = Path(__file__).parent
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise InvalidParameterError("demo", rule=f"one of {', '.join(known)}", value=name)
    return folder / f"{name}.yaml"
