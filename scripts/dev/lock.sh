#!/usr/bin/env bash
# Pin every dependency with its hashes: requirements/runtime.txt (what runs), dev.txt (that and the tools)
# clients.txt (the clients of others that the contract tests drive) and image.txt (what only the building of the container
# image needs).
#
# Versions already pinned stay; --upgrade takes the newest. One file serves every platform and Python
# from 3.11 on, and names no place to download from: that stays the choice of who installs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check uv

compile() {
    local output=$1
    shift
    "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-header --no-annotate "$@" --output-file "$output"
    echo "wrote $output"
}

compile requirements/runtime.txt pyproject.toml --extra aws --extra microphone --extra vad --group build "${@}"
compile requirements/dev.txt pyproject.toml --extra aws --extra microphone --extra vad --group build --group dev "${@}"
compile requirements/clients.txt --group clients "${@}"
compile requirements/image.txt requirements/image.in --constraint requirements/dev.txt "${@}"
