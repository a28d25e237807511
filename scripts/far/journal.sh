# shellcheck shell=bash disable=SC2154 # the settings stand in front
# A piece of a unit's log, and where it ends: "cursor=…", from which the next piece goes on, is below it. What comes after
# a cursor is told from its beginning on and without gaps, however much it is; "more=yes": the next piece is there already.
#
# Settings: UNIT LINES_WANTED SINCE (empty: no bound) AFTER (a cursor; empty: the last LINES_WANTED)
MOST_BYTES=20000 # Systems Manager keeps 24000 characters of what a command prints

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
from=(--lines "$LINES_WANTED")
if [ -n "$AFTER" ]; then from=(--after-cursor "$AFTER"); elif [ -n "$SINCE" ]; then from+=(--since "$SINCE"); fi

# journal FORMAT FLAG: what is asked for
journal() { journalctl --unit "$UNIT" --no-pager "${from[@]}" --output "$@"; }

# first_ones: of what is new the whole entries that fit, one at least; sets $cursor to the last of them
first_ones() {
    local count
    # An entry begins with its time; lines that it goes on with are indented. The last that begins here may be cut off.
    count=$(head -c "$MOST_BYTES" "$folder/shown" | grep -c '^[0-9]' || true)
    count=$((count > 1 ? count - 1 : 1))
    { awk -v count="$count" '/^[0-9]/ { seen++ } seen > count { exit } { print }' "$folder/shown" || true; } | head -c "$MOST_BYTES"
    cursor=$({ journal json --output-fields=_PID || true; } | sed -n "${count}{s/.*\"__CURSOR\" *: *\"\([^\"]*\)\".*/\1/p;q}")
}

journal short-iso --show-cursor >"$folder/piece" 2>&1 ||
    die "$EXIT_FAILED" "the log of $UNIT cannot be read: $(tail -n 1 "$folder/piece")"
cursor=$(sed -n 's/^-- cursor: //p' "$folder/piece" | tail -n 1)
{ grep -v -e '^-- cursor: ' -e '^-- No entries --' "$folder/piece" || true; } | without_keys >"$folder/shown"
if (($(wc -c <"$folder/shown") <= MOST_BYTES)); then
    cat "$folder/shown"
elif [ -n "$AFTER" ]; then
    first_ones
    answer more yes
else
    say 'there are more lines before these than are sent at a time'
    tail -c "$MOST_BYTES" "$folder/shown" | sed 1d
fi
answer cursor "$cursor"
