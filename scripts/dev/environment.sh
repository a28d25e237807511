#!/usr/bin/env bash
# Bring .venv up to date: with what the gateway needs (runtime), or with the tools and tests as well (dev); or
# .venv-clients with the clients of other people that the contract tests drive (clients).
#
# A stamp in .venv remembers what was installed, so that a second run takes no time. Everything comes
# from the lock files in requirements/, checked against their hashes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

group=${1:?usage: $0 runtime|dev|clients}
python=${PYTHON:-python3}
venv=.venv
[ "$group" != clients ] || venv=.venv-clients

exec 9<"requirements/$group.txt"
if command -v flock >/dev/null; then flock 9; fi # two makes at once: the second waits and finds it done

# What an environment depends on: locks, project, interpreter, and the place it stands in (scripts in it name the path).
stamp() {
    { cat "requirements/$1.txt" pyproject.toml && "$venv"/bin/python -VV && pwd; } 2>/dev/null | sha256sum | cut -d' ' -f1
}

current() {
    [ -x "$venv"/bin/python ] && [ -f "$venv/.installed-$1" ] && [ "$(cat "$venv/.installed-$1")" = "$(stamp "$1")" ]
}

if current "$group" || { [ "$group" = runtime ] && current dev; }; then exit 0; fi

if ! "$venv"/bin/python -c 'import pip' 2>/dev/null || ! grep -qF "$PWD/$venv" "$venv"/bin/activate 2>/dev/null; then
    echo "making $venv with $("$python" -V 2>&1)" >&2
    "$python" -m venv --clear "$venv"
fi
rm -f "$venv"/.installed-*

pip() {
    "$venv"/bin/python -m pip -qq --disable-pip-version-check --no-input "$@"
}

echo "installing Python packages ($group); this takes a minute, once" >&2
pip install --require-hashes -r "requirements/$group.txt" || {
    echo "make: the Python packages could not be installed; is the network up? The lines above say more." >&2
    exit 1
}
[ "$group" = clients ] || pip install --no-build-isolation --no-deps --editable .
stamp "$group" >"$venv/.installed-$group"
