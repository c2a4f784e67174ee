"""Every error halve raises on purpose, and the one sentence form they share.

The tree (exit code of the command line in brackets):

    HalveError
    ├── UserError                  you can fix it                                  [1]
    │   ├── InvalidParameterError      a value breaks its rule
    │   ├── ConfigError                one or more problems in a config, all of them listed
    │   ├── WorkloadError              examples or traffic that cannot be used
    │   │   └── TooFewExamplesError        the promise needs more examples than there are
    │   ├── ModelError                 a model that cannot be loaded, exported or run
    │   │   └── AnswerError                a model raised, or answered nonsense, on one input
    │   ├── RunFolderError             a run folder or stack file that is damaged or not ours
    │   └── MissingExtraError          an optional dependency is absent; names the pip command
    ├── NothingPassedError         no change passed the gate                       [3]
    └── EnvironmentFailedError     the world failed: disk, memory, ports, processes [4]
        ├── StorageError               a file could not be written; nothing half-written stays
        └── ReplayError                the served stack could not be started or measured

A rejected change is not an error: it is a `Verdict`.
This module decides no exit code and prints nothing; `halve.cli` does.
"""

import errno
from collections.abc import Iterable
from pathlib import Path


class HalveError(Exception):
    """Base of every error that halve raises on purpose."""


class UserError(HalveError):
    """The person who called can fix it; the message says how, in one sentence."""


class InvalidParameterError(UserError, ValueError):
    """A value breaks its rule.

    Args:
        name: The field, as the user spelled it (`objective.confidence`).
        rule: What it must be, completing "must be ...".
        value: What was given.
        hint: What to do next, as a full sentence, if that is known.
    """

    def __init__(self, name: str, *, rule: str, value: object, hint: str = "") -> None:
        self.name, self.rule, self.value, self.hint = name, rule, value, hint
        tail = f" {hint}" if hint else ""
        super().__init__(f"{name} must be {rule}. Got {value!r}.{tail}")


class ConfigError(UserError):
    """All the problems of one config file, so that they can be mended in one go."""

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        count = len(self.problems)
        if count == 1:
            text = f"{source}: {self.problems[0]}"
        else:
            lines = "".join(f"\n  - {problem}" for problem in self.problems)
            text = f"{source} has {count} problems:{lines}"
        super().__init__(text)


class WorkloadError(UserError):
    """Examples or traffic that cannot be used."""


class TooFewExamplesError(WorkloadError):
    """The promise cannot be certified with this many examples, whatever the stack."""

    def __init__(self, *, have: int, need: int, promise: str) -> None:
        self.have, self.need = have, need
        super().__init__(
            f"examples must be at least {need} in the certify split to certify {promise}. "
            f"Got {have}. Label more examples, allow a larger drop or a lower confidence."
        )


class ModelError(UserError):
    """A model that cannot be loaded, exported or run."""


class AnswerError(ModelError):
    """A model raised, or answered nonsense, on one input.

    Args:
        model: Name of the model.
        index: Position of the input in what was asked, from 0.
        cause: What went wrong, in a few words.
    """

    def __init__(self, model: str, *, index: int, cause: str) -> None:
        self.model, self.index, self.cause = model, index, cause
        super().__init__(f"model {model!r} failed on input {index}: {cause}")


class RunFolderError(UserError):
    """A run folder or stack file that is damaged, or was not written by halve."""


class MissingExtraError(UserError):
    """An optional dependency is absent."""

    def __init__(self, feature: str, *, package: str, extra: str) -> None:
        self.feature, self.package, self.extra = feature, package, extra
        super().__init__(f"{feature} needs {package}: pip install 'halve[{extra}]'")


class NothingPassedError(HalveError):
    """No change passed the gate; the baseline is the best stack known."""


class EnvironmentFailedError(HalveError):
    """The world failed, not the user: a disk, a port, a process, memory."""


class StorageError(EnvironmentFailedError):
    """A file could not be written. Whatever was measured before stays measured."""

    @classmethod
    def of(cls, path: Path, error: OSError) -> "StorageError":
        """Return the error for a path, from what the system said."""
        why = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        return cls(f"{path} could not be written: {why}. What was measured before is kept.")


class ReplayError(EnvironmentFailedError):
    """The served stack could not be started or measured."""
