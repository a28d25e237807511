# shellcheck shell=bash disable=SC2034 # the scripts read what is set here
# The two tables, and how they are read. Sourced by the parts that need them.

INSTANCE_TYPES=$LIB/instance-types.tsv NIM_PROFILES=$LIB/nim-profiles.tsv

# table FILE KEY COLUMN: a cell, by the row's first word and the name of the column; nothing where there is none
table() {
    [ -r "$1" ] || return 0
    awk -F '\t' -v key="$2" -v name="$3" '
        /^#/ { next }
        !header { for (i = 1; i <= NF; i++) if ($i == name) column = i; header = 1; next }
        $1 == key && column { print $column; exit }' "$1"
}

# price_of TYPE: US dollars an hour on demand in us-east-1, about; nothing where it is not known
price_of() { table "$INSTANCE_TYPES" "$1" usd_per_hour; }

# times A B…: their product with two digits after the point
times() { printf '%s\n' "$@" | awk 'BEGIN { p = 1 } { p *= $1 } END { printf "%.2f", p }'; }

# profiles: the names of the recognizers, as one reads them
profiles() { awk -F '\t' 'NR > 1 && $1 != "classic" { names = names (names ? ", " : "") $1 } END { print names }' "$NIM_PROFILES"; }
