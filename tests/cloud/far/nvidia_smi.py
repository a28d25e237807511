"""`nvidia-smi`: the GPU that the instance's type has."""

from __future__ import annotations

import sys

from far.common import ask_imds, fail, faults, record, say

GPUS = {
    "g4dn": ("Tesla T4", 15360, "7.5"),
    "g5": ("NVIDIA A10G", 23028, "8.6"),
    "g6": ("NVIDIA L4", 23034, "8.9"),
    "g6e": ("NVIDIA L40S", 46068, "8.9"),
    "p5": ("NVIDIA H100 80GB HBM3", 81559, "9.0"),
}
DRIVER = "595.45.04"
LOST = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."


def main() -> None:
    record(sys.argv)
    gpu = GPUS.get(ask_imds("instance-type").split(".")[0])
    if gpu is None or faults().get("no_gpu"):
        say(LOST)
        sys.exit(9)
    name, memory, capability = gpu
    known = {
        "name": name,
        "gpu_name": name,
        "index": "0",
        "uuid": "GPU-6d9d1b4e-0a0c-7f3e-9d1e-0c2b6f5f0a11",
        "memory.total": f"{memory} MiB",
        "memory.used": "1 MiB",
        "memory.free": f"{memory - 1} MiB",
        "compute_cap": capability,
        "driver_version": DRIVER,
        "utilization.gpu": "0 %",
        "temperature.gpu": "31",
        "power.draw": "16.40 W",
        "count": "1",
    }
    options = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    if "--query-gpu" in options:
        _query(options, known)
    elif sys.argv[1:] == ["-L"]:
        say(f"GPU 0: {name} (UUID: {known['uuid']})")
    elif sys.argv[1:]:
        fail(f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help. ({sys.argv[1:]})", 2)
    else:
        say(f"| NVIDIA-SMI {DRIVER}   Driver Version: {DRIVER}   CUDA Version: 13.2 |")
        say(f"|  0  {name}  1MiB / {memory}MiB |")


def _query(options: dict[str, str], known: dict[str, str]) -> None:
    fields, form = options["--query-gpu"].split(","), options.get("--format", "").split(",")
    if "csv" not in form:
        fail("--format= switch is missing", 2)
    if unknown := [field for field in fields if field not in known]:
        fail(f'Field "{unknown[0]}" is not a valid field to query.', 2)
    values = [known[field] for field in fields]
    if "nounits" in form:
        values = [value.rsplit(" ", 1)[0] if value.endswith((" MiB", " %", " W")) else value for value in values]
    if "noheader" not in form:
        say(", ".join(fields))
    say(", ".join(values))
