"""schemathesis over `/openapi.json`: whatever fits the document or breaks it, the answer is one that is documented.

No answer may be a 5xx: the gateway is idle, its recognizer is scripted and its disk has room, so that nothing excuses
a 503 or 507 either. One call is let off: the result of a job that failed is a 500, as its document says. Two checks are
left out: that what fits the schema is accepted (random bytes are no audio), and that what breaks it is refused (these
dialects are read leniently where their own services are lenient, and null means "not said").
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.engines.mock import MockEngine
from contract.clients import VENV, run, version_of
from contract.conformance import Conformance
from e2e.gateway import running

SEED = 20
EXAMPLES = 15
PATIENCE_S = 90.0
CONFIG = """
[[operations]]
include-path = "/jobs/{job_id}/result"
checks.not_a_server_error.enabled = false
"""


async def test_no_request_brings_forth_what_is_not_documented(tmp_path: Path, conformance: Conformance) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with running(MockEngine(), tmp_path, log_level="error") as addresses:
        ran = await run(
            *("sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", tmp_path),  # it leaves files where it stands
            VENV / "bin" / "schemathesis",
            "run",
            f"{addresses.url}/openapi.json",
            "--phases=examples,coverage,fuzzing",
            f"--max-examples={EXAMPLES}",
            f"--seed={SEED}",
            "--exclude-checks=positive_data_acceptance,negative_data_rejection",
            "--request-timeout=10",
            "--no-shrink",
            "--continue-on-failure",
            "--warnings=off",
            patience_s=PATIENCE_S,
        )
    assert ran.code == 0, f"{ran.out[-8_000:]}\n{ran.err}"
    selected, tested = re.findall(r"(?:Selected|Tested): (\d+)", ran.out)
    assert int(tested) == int(selected) >= 15, ran.out[-2_000:]
    conformance.record(
        dialect="HTTP",
        client="schemathesis",
        version=version_of("schemathesis"),
        exercised="every call of /openapi.json, valid and invalid: no 5xx, nothing undocumented",
    )
