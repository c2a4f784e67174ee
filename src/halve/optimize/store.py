"""The run folder: append-only rungs, whole-or-absent documents, a link to the latest run.

    runs/NAME-KEY/
      rungs.jsonl     one rung a line, in the order they were judged; only a line cut short by a kill -9 is taken out
      outcomes/       answers and scores of each model over each split (Parquet)
      curves/         seconds per batch size of each model and thread count (JSON)
      models/         artifacts, one folder each
      replays/        the confirmation of each chosen stack
      stack.yaml      the chosen stack
      run.json        the whole record
      report.html     for people
    runs/latest       -> the run that finished last

KEY is a hash of the config and the data, so the same question finds its own folder again.
"""

import json
import logging
import os
from pathlib import Path

from halve.core import Run, Rung, Stack
from halve.core.documents import dump_yaml, dumps, load_json, load_yaml, parse, replace_file
from halve.errors import ConfigError, RunFolderError, StorageError

_log = logging.getLogger("halve.optimize")


class RunStore:
    """Reads and writes one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: set[str] | None = None

    @property
    def _journal(self) -> Path:
        return self.folder / "rungs.jsonl"

    def rungs(self) -> tuple[Rung, ...]:
        """Return the rungs on disk, oldest first. A last line cut short by a kill -9 is dropped.

        Raises:
            RunFolderError: If any other line is damaged.
        """
        found = []
        for number, line in enumerate(self._whole_lines(), start=1):
            try:
                found.append(parse(Rung, json.loads(line), source=f"{self._journal}:{number}"))
            except (ValueError, ConfigError) as error:
                raise RunFolderError(f"{self._journal}:{number} is damaged: {error}") from None
        return tuple(found)

    def _whole_lines(self) -> list[str]:
        if not self._journal.exists():
            return []
        text = self._journal.read_text()
        whole, _, cut = text.rpartition("\n")
        if cut:
            _log.warning("%s: dropped a last line that was cut short", self._journal)
            with replace_file(self._journal) as partial:
                partial.write_text(f"{whole}\n" if whole else "")
        return whole.splitlines()

    def append(self, rung: Rung) -> None:
        """Add a rung, unless this very line is there from before an interruption; it is on disk on return.

        Raises:
            RunFolderError: If a line that is there is damaged.
            StorageError: If the line cannot be written.
        """
        if self._lines is None:
            self.rungs()  # a damaged journal is found before anything is added to it
            self._lines = set(self._whole_lines())
        line = dumps(rung)
        if line in self._lines:
            return
        self._lines.add(line)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._journal.open("a") as journal:
                journal.write(line + "\n")
                journal.flush()
                os.fsync(journal.fileno())
        except OSError as error:
            raise StorageError.of(self._journal, error) from error

    def save_stack(self, stack: Stack) -> Path:
        """Write stack.yaml; entries of Python models are left out, as a stack may not name code."""
        path = self.folder / "stack.yaml"
        with replace_file(path) as partial:
            partial.write_text(dump_yaml(stack.without_entries()))
        return path

    def save_run(self, run: Run) -> Path:
        """Write run.json and point `latest` at this folder."""
        path = self.folder / "run.json"
        with replace_file(path) as partial:
            partial.write_text(dumps(run, indent=1) + "\n")
        with replace_file(self.folder.parent / "latest") as link:
            link.symlink_to(self.folder.name)
        return path

    def load_run(self) -> Run:
        """Read run.json.

        Raises:
            RunFolderError: If the folder holds no finished run, or a damaged one.
        """
        path = self.folder / "run.json"
        if not path.exists():
            unfinished = "; it was begun but not finished: run halve optimize again" if self._journal.exists() else ""
            raise RunFolderError(f"{self.folder} holds no finished run{unfinished}.")
        return load_json(Run, path)


def load_stack(path: Path) -> Stack:
    """Read a stack file.

    Raises:
        ConfigError: If it is missing or breaks a rule; also if it names Python code, which only a config may, or an
            endpoint: stack files travel, and one from elsewhere could send requests and keys to its own address.
    """
    stack = load_yaml(Stack, path)
    named = [f"models.{model.name}.entry must not be set in a stack file." for model in stack.models if model.entry]
    remote = [
        f"models.{model.name}.engine must not be openai_http in a stack file."
        for model in stack.models
        if model.engine == "openai_http"
    ]
    if named or remote:
        raise ConfigError(str(path), [*named, *remote])
    return stack
