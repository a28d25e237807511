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

mapfile -t shell_files < <(find scripts .ci -type f \( -name '*.sh' -o -name '*.bash' -o -path '.ci/run' \) | sort)
step "style (ruff check)" .venv/bin/ruff check --no-cache .
step "format (ruff format)" .venv/bin/ruff format --no-cache --check .
step "types (mypy, strict)" .venv/bin/mypy
step "types of the public API (mypy, strict)" .venv/bin/mypy tests/typing/api.py
step "import directions (import-linter)" .venv/bin/lint-imports --no-cache
step "rules of our own (scripts/dev/own_rules.py)" .venv/bin/python scripts/dev/own_rules.py
step "static security (bandit)" .venv/bin/bandit --quiet -c pyproject.toml --severity-level medium -r src load scripts
step "secrets (detect-secrets)" .venv/bin/python scripts/dev/scan_secrets.py

# Where nobody can be asked it is said so: DEPENDENCY_AUDIT=required makes that a failure, for places with a network.
audit=$(.venv/bin/python scripts/dev/audit.py 2>&1)
case $? in
0) echo "ok    known vulnerabilities of dependencies (pip-audit)" ;;
3)
    echo "      $audit"
    if [ "${DEPENDENCY_AUDIT:-}" = required ]; then bad=1; fi
    ;;
*)
    printf '%s\nWRONG known vulnerabilities of dependencies (pip-audit)\n' "$audit"
    bad=1
    ;;
esac

if command -v shellcheck >/dev/null; then
    step "shell scripts (shellcheck)" shellcheck --external-sources "${shell_files[@]}"
else
    for file in "${shell_files[@]}"; do
        step "shell script $file (bash -n; shellcheck is not installed)" bash -n "$file"
    done
fi
if command -v shfmt >/dev/null; then step "format of shell scripts (shfmt)" shfmt -i 4 -d "${shell_files[@]}"; fi
exit "$bad"
