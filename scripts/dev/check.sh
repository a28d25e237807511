#!/usr/bin/env bash
# Everything that can be judged without running the program. Quiet where nothing is wrong.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

bad=0
step() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        echo "ok    $name"
    else
        printf '%s\nWRONG %s\n' "$out" "$name"
        bad=1
    fi
}

mapfile -t shell_files < <(find scripts .ci -type f \( -name '*.sh' -o -path '.ci/run' \) | sort)
step "style (ruff check)" .venv/bin/ruff check --no-cache .
step "format (ruff format)" .venv/bin/ruff format --no-cache --check .
step "types (mypy, strict)" .venv/bin/mypy
step "types of the public API (mypy, strict)" .venv/bin/mypy tests/typing/api.py
step "import directions (import-linter)" .venv/bin/lint-imports --no-cache
if command -v shellcheck >/dev/null; then
    step "shell scripts (shellcheck)" shellcheck "${shell_files[@]}"
else
    for file in "${shell_files[@]}"; do
        step "shell script $file (bash -n; shellcheck is not installed)" bash -n "$file"
    done
fi
exit "$bad"
