"""What the Helm chart knows of the gateway's settings, made of them; `python scripts/dev/chart_settings.py`.

Two files follow: in `values.schema.json` the keys below `settings`, so that a misspelt one is refused before anything
is installed, and `files/settings.json`, by which templates tell secrets and settings from foreign variables. A test
holds both equal to `ServerSettings`. `--check` changes nothing and says by its status whether they are.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from server.settings import ServerSettings

CHART = Path(__file__).resolve().parents[1] / "kubernetes" / "riva-gateway"
SCHEMA = CHART / "values.schema.json"
NAMES = CHART / "files" / "settings.json"
_SWITCH = ["on", "off", True, False]  # YAML takes on and off for true and false
_REFERENCE = {"type": "string", "pattern": "^(aws-sm:|file:).+"}


def kinds() -> dict[str, list[str]]:
    """All keys, and those of them that are secret, in the order of the settings."""
    shapes = _shapes()
    return {"all": list(shapes), "secrets": [key for key, shape in shapes.items() if shape.get("writeOnly")]}


def setting_schemas() -> dict[str, Any]:
    """The JSON schema of each key's value, as it may stand in a file of values."""
    return {key: _REFERENCE if shape.get("writeOnly") else _value(shape) for key, shape in _shapes().items()}


def whole_schema() -> str:
    """`values.schema.json` with the keys of today."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    schema["properties"]["settings"]["properties"] = setting_schemas()
    return json.dumps(schema, indent=2) + "\n"


def names() -> str:
    """`files/settings.json` with the keys of today."""
    return json.dumps(kinds(), indent=2) + "\n"


def _shapes() -> dict[str, dict[str, Any]]:
    found = {}
    for name, shape in ServerSettings.model_json_schema()["properties"].items():
        real = [option for option in shape.get("anyOf", [shape]) if option.get("type") != "null"]
        found[name.upper()] = real[0]
    return found


def _value(shape: dict[str, Any]) -> dict[str, Any]:
    if shape["type"] == "boolean":
        return {"enum": _SWITCH}
    if choices := shape.get("enum") or ([shape["const"]] if "const" in shape else None):
        return {"enum": [*choices, *(word == "on" for word in choices if word in ("on", "off"))]}
    return {name: shape[name] for name in ("type", "minimum", "maximum") if name in shape}


def main(arguments: list[str]) -> int:
    """Write both files, or with `--check` only compare."""
    wanted = {SCHEMA: whole_schema(), NAMES: names()}
    stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" not in arguments:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path}: not as the settings are. Run python {Path(__file__).name}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
