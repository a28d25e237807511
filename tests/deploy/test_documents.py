"""What the documents show for SageMaker, for a machine of one's own and for Kubernetes, typed as it stands, in order.

EC2's commands are typed by test_readme.py.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.client import TREE, Cloud
from deploy.sagemaker_steps import KEY, Operator
from docker_standin import NGC_KEY, Machine, machine
from e2e.monitors import free_port
from e2e.warm_command import warm_command

FRONT, SCRIPTS, SAGEMAKER, DOCKER, KUBERNETES = (
    TREE / name
    for name in ("README.md", "scripts/README.md", "docs/sagemaker.md", "docs/docker.md", "docs/kubernetes.md")
)
REGION = "us-east-1"
GREETING = "Good morning, you are listening to a scripted recognizer."


def shown(path: Path, about: str) -> list[str]:
    """The lines of all blocks in which `about` is named, without remarks and prompts; continued ones joined."""
    found: list[str] = []
    for kind, block in re.findall(r"^```(console|bash)\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        if kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        if about in block:
            found += [re.sub(r"\s{2,}# .*", "", line) for line in lines if line]
    return found


def cell(path: Path, row: str) -> str:
    """The command in the cell beside that one."""
    return re.findall(rf"^\| {row} \| `(scripts/[^`]+)`", path.read_text("utf-8"), re.M)[0]


# --- SageMaker


@pytest.fixture(scope="module")
def operator(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    folder = tmp_path_factory.mktemp("o")
    (folder / "key").write_text(f"{KEY}\n")
    found = Operator(cloud, folder)
    python = folder / "bin" / "python3.12"
    python.write_text(
        '#!/bin/bash\nmkdir -p "$3/bin"\nfor name in pip python; do ln -sf /bin/echo "$3/bin/$name"; done\n'
    )
    python.chmod(0o755)
    return found


def typed(operator: Operator, folder: Path, lines: list[str]) -> str:
    """All lines in one terminal; whoever types them says yes, and the NGC key where it is asked for. What came out."""
    text = "\n".join(re.sub(r"(riva-\d{3}-[a-z-]+\.sh)", r"\1 --yes", line) for line in lines)
    text = re.sub(r"^(.*riva-310-.*)$", rf"\1 <{operator.folder}/key", text, flags=re.M)
    text = re.sub(r"(venv |\s)two-way(?=/bin| &&)", rf"\1{folder}/two-way", text)
    env = {**operator.variables, "AWS_DEFAULT_REGION": ""}
    ran = operator.cloud.run("bash", "-ec", text, env=env, input="")
    assert ran.status == 0, f"{text}\n{ran.err[-3000:]}"
    return ran.out


def test_sagemaker_from_nothing_to_an_answer_and_to_nothing(operator: Operator, tmp_path: Path) -> None:
    """One endpoint for both documents: the one of the scripts to its last line but one, and what the other has more."""
    short, page = shown(SCRIPTS, "riva-3"), shown(SAGEMAKER, "riva-3")
    page += [cell(SAGEMAKER, "how it is"), cell(SAGEMAKER, "how it goes away")]
    assert short[-1] == page[-1]
    out = typed(operator, tmp_path, short[:-1] + [line for line in page if line not in short[:-1]])
    assert out.count('"predictions"') == 3  # as the gateway likes it, who said what, and from S3
    assert re.search(r"two_way.py --endpoint riva-speech --region us-east-1 .*greeting.wav", out)
    assert "status         InService" in out
    for name in ("speech", "speech-files"):
        assert operator.cloud.leftovers(name, REGION) == []


def test_the_first_page_types_the_same() -> None:
    lines = [each for line in shown(FRONT, "riva-3") for each in line.split(" && ")]
    assert lines
    assert set(lines) <= set(shown(SAGEMAKER, "riva-3"))


# --- a machine of one's own


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("machine")
    (folder / "ngc-key").write_text(f"{NGC_KEY}\n")
    with warm_command(folder) as commands, machine(folder, commands) as found:
        yield found


def type_there(place: Machine, line: str) -> str:
    """At a terminal, where the NGC key is typed when it is asked for; what is said."""
    text = re.sub(r"(riva-2[19]0-[a-z-]+\.sh)", r"\1 --yes", line.replace(" ngc-key", f" {place.folder}/ngc-key"))
    terminal, theirs = pty.openpty()
    try:
        os.write(terminal, f"{NGC_KEY}\n".encode())
        done = subprocess.run(
            ["bash", "-c", text],
            env=place.env,
            cwd=TREE,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(theirs)
    assert done.returncode == 0, f"{text}\n{done.stdout}"
    return done.stdout


def test_a_machine_with_a_gpu_from_nothing_to_words_and_to_nothing(place: Machine) -> None:
    """One stack for both documents, as above; the second one's end leaves nothing."""
    short, page = ([line for line in shown(name, "riva-2") if "riva-2" in line] for name in (SCRIPTS, DOCKER))
    assert short[-1] in page[-2:]
    said = [type_there(place, line) for line in short[:-1] + [line for line in page if line not in short[:-1]]]
    assert GREETING in "".join(said)
    assert place.images == {"nvcr.io/nim/nvidia/parakeet-1-1b-rnnt-multilingual:1.5.0"}
    assert (place.stack, place.volumes) == (None, set())


def test_a_laptop_as_the_first_page_has_it(place: Machine) -> None:
    (line,) = shown(FRONT, "riva-2")
    type_there(place, line)
    assert place.rows[-1] == "riva-gateway:laptop"
    (away,) = re.findall(r"`(scripts/riva-290[^`]+)`", FRONT.read_text("utf-8"))
    type_there(place, away)
    assert (place.stack, place.volumes) == (None, set())


# --- all of them


def test_every_way_on_the_first_page_says_how_it_is_taken_away() -> None:
    text = FRONT.read_text("utf-8")
    head, *rows = re.findall(r"^\|(.+)\|$", text.partition("## Deploy")[2].partition("\n## ")[0], re.M)
    assert head.split(" | ")[-1].strip() == "take it away"
    ways = {row.split(" | ")[0]: row.split(" | ")[-1].strip() for row in rows[1:]}
    assert len(ways) == 6
    assert "" not in ways.values()
    cluster = re.search(r"kind create cluster (--name \w+)", text)
    assert cluster
    assert f"kind delete cluster {cluster[1]}" in text


# port-forward listens on the port after a while, as the real one does, until it is ended.
KUBECTL = """#!/bin/bash
sleep 0.5
exec python3 -c '
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.end_headers(); self.wfile.write(b"the words")
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", PORT), Answer).serve_forever()'
"""


def test_the_first_words_from_a_cluster_wait_for_the_way_to_it(tmp_path: Path) -> None:
    part = KUBERNETES.read_text("utf-8").partition("## In five minutes")[2].partition("\n## ")[0]
    *_, ask, end = re.findall(r"^```bash\n(.*?)^```", part, re.M | re.S)
    port = str(free_port())
    for name, program in {"kubectl": KUBECTL.replace("PORT", port), "kind": '#!/bin/bash\necho " kind $*"\n'}.items():
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    text = f"{ask}{end}wait\n".replace("https://localhost:8443/", f"http://127.0.0.1:{port}/")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-c", text], cwd=TREE, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "the words kind delete cluster --name speech\n", done.stderr
