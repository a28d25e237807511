# shellcheck shell=bash disable=SC2154 # the settings stand in front
# A piece of a unit's log, and where it ends: the last line is "cursor=…", from which the next piece goes on.
#
# Settings: UNIT LINES SINCE (empty: no bound) AFTER (a cursor; empty: the last LINES)
MOST_BYTES=20000 # Systems Manager keeps 24000 characters of what a command prints

piece=$(mktemp)
trap 'rm -f "$piece"' EXIT
from=(--lines "$LINES_WANTED")
if [ -n "$AFTER" ]; then from=(--after-cursor "$AFTER"); elif [ -n "$SINCE" ]; then from+=(--since "$SINCE"); fi
journalctl --unit "$UNIT" --no-pager --output short-iso --show-cursor "${from[@]}" >"$piece" 2>&1 ||
    die "$EXIT_FAILED" "the log of $UNIT cannot be read: $(tail -n 1 "$piece")"
grep -v -e '^-- cursor: ' -e '^-- No entries --' "$piece" | without_keys | tail -c "$MOST_BYTES" || true
answer cursor "$(sed -n 's/^-- cursor: //p' "$piece" | tail -n 1)"
