"""The outcome of rows: counts, and a CSV file that always shows what is known so far."""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from ivcap_flows.errors import InputError
from ivcap_flows.http.download import explained
from ivcap_flows.registration.spool import Outcome, Spool

__all__ = ["HEADER", "BatchReport", "OutcomeFile", "check_place"]

HEADER: Final = ("row", "key", "outcome", "model_run", "job_id", "since", "reason")
_FORMULA: Final = "=+-@\t\r"
"""With these characters a spreadsheet begins a formula."""


@dataclass(frozen=True)
class BatchReport:
    """The outcome of a source: the `sha256` of its content, the number of rows, and how many have which standing.

    `faults` counts the faults in rows. `done` counts rows that were registered before according to the source.
    `differing` counts registered rows whose run has another record than the row.
    """

    source: str
    sha256: str
    rows: int
    faults: int = 0
    wrong: int = 0
    done: int = 0
    registered: int = 0
    failed: int = 0
    doubtful: int = 0
    unsent: int = 0
    differing: int = 0
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, spool: Spool, source: str, sha256: str, warnings: Iterable[str]) -> BatchReport:
        """Return a report of the spool's current content."""
        counts = spool.counts()
        named = {name: counts.get(name, 0) for name in ("wrong", "done", "registered", "failed", "doubtful")}
        return cls(
            source,
            sha256,
            sum(counts.values()),
            faults=spool.count_faults(),
            unsent=counts.get("ready", 0),
            differing=spool.count_differing(),
            warnings=tuple(warnings),
            **named,
        )

    @property
    def is_whole(self) -> bool:
        """Whether every row is registered as a model run."""
        return self.rows == self.done + self.registered

    def __str__(self) -> str:
        other = f" ({self.differing} with another record)" if self.differing else ""
        parts = [f"{self.registered} registered{other}"]
        parts += [f"{self.done} done before"] if self.done else []
        for count, words in ((self.failed, "failed"), (self.doubtful, "doubtful"), (self.wrong, "wrong")):
            parts += [f"{count} {words}"] if count else []
        parts += [f"{self.unsent} not sent"] if self.unsent else []
        return f"{self.rows} rows: {', '.join(parts)}"


def check_place(out: Path, source: Path | None = None) -> None:
    """Raise InputError if the outcome file would replace the file of the rows, or cannot be written."""
    if source is not None and out.exists() and source.exists() and out.samefile(source):
        raise InputError(f"The outcome file {out} would replace the rows. Name another file.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder} for the outcome file.")
    if out.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        what = "is a folder" if out.is_dir() else f"cannot be written, since {folder} may not be changed"
        raise InputError(f"The outcome file {out} {what}. Name another file.")


class OutcomeFile:
    """The CSV file with the outcomes.

    It is replaced atomically when sending begins and when all rows have ended. In between, each ended row is appended,
    so that the file is complete even if the process is killed. If the file cannot be written, raises InputError, or
    ConfigurationError for a full disk.
    """

    def __init__(self, path: Path, spool: Spool) -> None:
        self._path = path
        self._spool = spool
        self._file: int | None = None

    def begin(self) -> None:
        """Write the outcomes that are known now."""
        self._write(known_only=True)
        with explained(self._path):
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Append ended rows, in one write unless the file system takes less, so that a kill cuts no line."""
        if self._file is not None:
            lines = _lines(outcomes)
            with explained(self._path):
                while lines:
                    lines = lines[os.write(self._file, lines) :]

    def finish(self) -> None:
        """Write all rows in their order."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._write(known_only=False)

    def close(self) -> None:
        """Close the file and leave its content as it is."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, *, known_only: bool) -> None:
        # A new file under a name that nobody can foresee: in a shared folder, others could plant a link there.
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.part")
        try:
            with explained(self._path), temporary.open("xb") as file:
                file.write(_text([HEADER]))
                some: list[Outcome] = []
                for each in self._spool.outcomes():
                    if known_only and each.standing == "ready":
                        continue
                    some.append(each)
                    if len(some) == 500:
                        file.write(_lines(some))
                        some.clear()
                file.write(_lines(some))
                file.flush()
                os.fsync(file.fileno())
            with explained(self._path):
                temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)


def _lines(outcomes: Iterable[Outcome]) -> bytes:
    return _text((*astuple(each)[:-1], _no_formula(each.words)) for each in outcomes)


def _no_formula(words: str | None) -> str | None:
    """Keep a spreadsheet from evaluating a reason, since it may be in the words of a platform."""
    return f"'{words}" if words and words[0] in _FORMULA else words


def _text(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
