"""METRICS_DIR: the metrics of all gateways of one machine in one folder, told as one by whichever is asked.

This is prometheus_client's multiprocess mode: each process keeps its values in files of its own, mapped into memory,
and who is asked adds up those of all. What that mode leaves to its users is here: a name for each process that is never
another's, a lock that shows who lives, and what becomes of the dead. Their gauges go; their counts are added to a file
of the departed, so that no counter ever goes back and the folder does not grow.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import prometheus_client.values
from prometheus_client import CollectorRegistry
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from asr.errors import ASRError, Code

_DEPARTED = "departed"
_ALIVE = ".alive"


class SharedFiles:
    """This process among those that share a folder. To be made before any metric is.

    Args:
        folder: is made where it is missing. Whoever may write there can tell false figures.

    Raises:
        ASRError: `bad_request` where it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._alive = self._locked(self._name)
            if self._alive is None:
                raise OSError("the name is taken")
            self._bury()
        except OSError as error:
            text = f"The folder {folder} cannot be used: {error.strerror or error}. Correct METRICS_DIR, or unset it."
            raise ASRError(Code.BAD_REQUEST, text, param="METRICS_DIR") from error
        prometheus_client.values.ValueClass = _values_in(folder, self._name)

    @contextmanager
    def everybody(self) -> Iterator[CollectorRegistry]:
        """The metrics of all, while nobody is added to the departed. Blocks for as long as another process reads."""
        with self._alone():
            self._bury()
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(self._folder))
            yield registry

    def leave(self) -> None:
        """This process tells nothing more; what it has counted stays."""
        if self._alive is not None:
            self._alive.close()
            self._alive = None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with (self._folder / "reading.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _locked(self, name: str) -> IO[str] | None:
        """The lock that a process of this name holds as long as it lives, or None where it does."""
        file = (self._folder / f"{name}{_ALIVE}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _bury(self) -> None:
        """Add up what those who are gone have counted."""
        for mark in self._folder.glob(f"*{_ALIVE}"):
            name = mark.name.removesuffix(_ALIVE)
            held = None if name == self._name else self._locked(name)
            if held is None:
                continue
            with held:
                for file in self._folder.glob(f"*_{name}.db"):
                    if not file.name.startswith("gauge"):
                        self._add_up(file, file.name.replace(name, _DEPARTED))
                    file.unlink(missing_ok=True)
                mark.unlink(missing_ok=True)

    def _add_up(self, file: Path, into: str) -> None:
        # Aside, then renamed: whoever dies here leaves what was.
        target, fresh = self._folder / into, self._folder / f"{into}.new"
        fresh.unlink(missing_ok=True)
        sums: dict[str, float] = {}
        for source in (target, file):
            if source.exists() and source.stat().st_size:
                for key, value, *_ in MmapedDict.read_all_values_from_file(str(source)):
                    sums[key] = sums.get(key, 0.0) + value
        values = MmapedDict(str(fresh))
        for key, value in sums.items():
            values.write_value(key, value, 0.0)
        values.close()
        fresh.replace(target)


def _values_in(folder: Path, name: str) -> Any:
    """What prometheus_client makes its values of, as `prometheus_client.values.MultiProcessValue` does.

    That one finds its folder in the environment, where every process would inherit it that this one starts.
    """
    files: dict[str, MmapedDict] = {}

    class Value:
        _multiprocess = True

        def __init__(
            self,
            kind: str,
            metric: str,
            sample: str,
            labels: Sequence[str],
            label_values: Sequence[str],
            told: str,
            multiprocess_mode: str = "",
            **_: object,
        ) -> None:
            prefix = f"{kind}_{multiprocess_mode}" if kind == "gauge" else kind
            if prefix not in files:
                files[prefix] = MmapedDict(str(folder / f"{prefix}_{name}.db"))
            self._file = files[prefix]
            self._key = mmap_key(metric, sample, list(labels), list(label_values), told)
            self._value: float = self._file.read_value(self._key)[0]

        def inc(self, amount: float) -> None:
            self.set(self._value + amount)

        def set(self, value: float, timestamp: float | None = None) -> None:
            self._value = value
            self._file.write_value(self._key, value, timestamp or 0.0)

        def get(self) -> float:
            return self._value

        def set_exemplar(self, exemplar: object) -> None:
            """There is no place for it."""

        def get_exemplar(self) -> None:
            """There is none."""

    return Value
