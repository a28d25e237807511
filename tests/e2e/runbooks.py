"""What it takes to type the runbooks' commands as they stand: a reader of their blocks, a shell that stays, a shape.

The pages name hosts, folders and ports by variables that a caller may set before, so their text is changed in
`SUBSTITUTIONS` alone. Far machines and the system's own services are stand-ins: see `runbook_world`.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
SUBSTITUTIONS = (
    ("--sessions 1,10,50,100", "--sessions 1"),
    ("--duration 30s", "--duration 1s"),
    ("sleep 10;", "sleep 1;"),
)
"""What would take too long: a test needs no figures to plan with."""
BLOCK_LIMIT_S = 60.0
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """Commands that somebody types at once.

    Attributes:
        page: of the runbooks.
        heading: that they stand under.
        line: where they begin.
        text: the commands.
        shown: what the page says that they print; "" where it does not.
    """

    page: str
    heading: str
    line: int
    text: str
    shown: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}, {self.heading}"


def fences(markdown: str) -> list[tuple[int, int, str, str]]:
    """Begin, end, language and text of everything that is fenced."""
    return [
        (found.start(), found.end(), found[2], textwrap.dedent(found[3]))
        for found in _FENCE.finditer(markdown)
    ]  # fmt: skip


def blocks(page: str, markdown: str = "") -> list[Block]:
    """The page's commands in order, each with the output that stands right below it."""
    markdown = markdown or (RUNBOOKS / page).read_text("utf-8")
    found: list[Block] = []
    told_until = -1
    for begin, end, language, text in fences(markdown):
        if language == "bash":
            before = markdown[:begin]
            heading = re.findall(r"^##* (.*)$", _FENCE.sub("", before), re.M)[-1]
            found.append(Block(page, heading, before.count("\n") + 2, text))
            told_until = end
        elif found and not markdown[told_until:begin].strip():
            found[-1] = Block(**{**vars(found[-1]), "shown": text})
    return found


def missing(shown: str, told: str) -> list[str]:
    """The lines that a page shows, and a program did not print anything of this shape. Order is not looked at.

    >>> missing("streams 12 of 1000: native 12\\n… 401", "streams 0 of 900\\nGET 200\\n")
    ['… 401']
    """
    left = [_shape(line) for line in told.splitlines()]
    wanting = []
    for line in shown.splitlines():
        if line.strip() in ("", "…"):
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in _shape(line).split("…")))
        found = next((each for each in left if pattern.fullmatch(each)), None)
        if found is not None:
            left.remove(found)
        else:
            wanting.append(line)
    return wanting


def _shape(line: str) -> str:
    """What a line has in common with those of another hour and another machine; `…` in it stands for anything."""
    for pattern, put in (
        (r"(gateway|riva-\d)\.example\.com|127\.0\.0\.1|192\.0\.2\.7", "localhost"),
        (r"\bup for .*", "up for a while"),
        (r"^(streams \d+ of \d+).*", r"\1"),
        (r"(?<![\w.])[0-9a-f]{8,}(?![\w.])", "0"),
        (r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b", "Mon"),
        (r"\d{4}-\d\d-\d\d(T[\d:.]+Z)?", "0"),
        (r"[✓✗]", ""),
        (r"\d+(\.\d+)?(e[+-]?\d+)?|NaN", "0"),
        (r"(?<=\s)([-–]|0%)(?=\s|$)|(?<=\s)0 / 0 / 0", "0"),
        (r"\s+", " "),
    ):
        line = re.sub(pattern, put, line)
    return line.strip()


@dataclass(frozen=True)
class Told:
    """What came of a block.

    Attributes:
        output: stdout and stderr, as somebody at a terminal sees them.
        failures: commands whose status was not 0 and that nothing in the block minded, as `status: command`.
    """

    output: str
    failures: list[str]


class Typist:
    """Somebody at a shell that stays open: what one block sets is there in the next.

    Args:
        folder: to begin in, and for what is written down.
        env: all of it.
    """

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._told, tell = os.pipe()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=env | {"TELL": str(tell)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(tell,),
            text=True,
            bufsize=1,
        )
        os.close(tell)
        self._say(f"set -E; trap 'echo \"$?: $BASH_COMMAND\" >> {folder}/failures' ERR")

    def types(self, block: Block) -> Told:
        """Type it, and wait until it is done. AssertionError: it took too long, or it ended the shell."""
        text = block.text
        for written, typed in SUBSTITUTIONS:
            text = text.replace(written, typed)
        script, output, failures = (self._folder / name for name in ("block.sh", "output", "failures"))
        script.write_text(text, "utf-8")
        failures.write_text("")
        self._say(f'source {script} > {output} 2>&1 < /dev/null; echo done >&"$TELL"')
        ready = select.select([self._told], [], [], BLOCK_LIMIT_S)[0]
        seen = output.read_text("utf-8", "replace") if output.exists() else ""
        assert ready, f"{block}: not done within {BLOCK_LIMIT_S:.0f} s\n{seen}"
        assert os.read(self._told, 100), f"{block}: the shell ended\n{seen}"
        # Where the last command fails, so does reading the block: that is told twice.
        told = failures.read_text("utf-8").splitlines()
        return Told(
            seen, [line for line in told if not line.endswith(f": source {script} > {output} 2>&1 < /dev/null")]
        )

    def close(self) -> None:
        """Leave."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        try:
            self._bash.wait(5)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()
        os.close(self._told)

    def _say(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
