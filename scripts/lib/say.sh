# shellcheck shell=bash disable=SC2154 # opt, SCRATCH, far_instance: deploy.sh and the scripts
# What the scripts say, and how they end. Sourced by deploy.sh.
#
# People's lines go to stderr, results (an id, an address, a table) to stdout, so that output can be piped.

# How a script ends. The same numbers mean the same for `riva-gateway` itself.
EXIT_FAILED=1      # something went wrong that is nobody's input
EXIT_USAGE=2       # a flag, a setting or a credential is wrong; nothing was done
EXIT_UNAVAILABLE=3 # not now: no capacity, an agent that is late, a server that is not ready. Run it again
EXIT_ROLLED_BACK=4 # the new version did not come up; the former one serves again
export EXIT_FAILED EXIT_USAGE EXIT_UNAVAILABLE EXIT_ROLLED_BACK

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    _bold=$'\e[1m' _dim=$'\e[2m' _red=$'\e[31m' _green=$'\e[32m' _plain=$'\e[0m'
else
    _bold='' _dim='' _red='' _green='' _plain=''
fi

# step TITLE: a part of the work begins
step() { printf '%s%s%s\n' "$_bold" "$*" "$_plain" >&2; }

# say TEXT: a line below it
say() { printf '  %s\n' "$*" >&2; }

# good TEXT: looked at, and as it should be
good() { printf '  %s✓%s %s\n' "$_green" "$_plain" "$*" >&2; }

# made TEXT / kept TEXT: something is there now / was there already
made() { dry || good "$@"; }
kept() { printf '  %s= %s%s\n' "$_dim" "$*" "$_plain" >&2; }

# folded INDENT END HEAD WORD…: HEAD and the words on lines of $WIDTH columns at most; END ends each that is gone on from
WIDTH=108
folded() {
    local indent=$1 end=$2 line=$3 word fresh=yes
    shift 3
    for word in "$@"; do
        if [ -z "$fresh" ] && ((${#line} + 1 + ${#word} + ${#end} > WIDTH)); then
            printf '%s%s\n' "$line" "$end"
            printf -v line '%*s' "$indent" ''
            line+=$word
        else
            line+=" $word"
        fi
        fresh=''
    done
    printf '%s\n' "$line"
}

# as_typed WORD…: a command as one could type it, a line in ${typed[]} for each flag with its value
as_typed() {
    local word
    typed=()
    for word in "$@"; do
        if [[ ! $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then word=${word@Q}; fi
        if ((${#typed[@]} == 0)) || [[ $word == --* ]]; then typed+=("$word"); else typed[-1]+=" $word"; fi
    done
}

# next_step WHY COMMAND…: what one may want to type now. A script that another one runs leaves that to it.
next_step() {
    local why=$1 typed
    local -a words=()
    if [ -n "$within" ]; then return 0; fi
    shift
    read -ra words <<<"$*"
    as_typed "${words[@]}"
    printf '  %s\n' "$why" >&2
    folded 10 $' \\' '     ' "${typed[@]}" >&2
}

# command_for NAME: how it is typed from here, with the deployment and the region that were asked for
command_for() {
    local folder=${LIB%/lib}
    if [[ $folder == "$PWD"/* ]]; then folder=${folder#"$PWD"/}; fi
    printf '%s' "$folder/$1$DEPLOY_SAME"
}

# warn TEXT: goes on, and somebody should know
warn() { printf '  %s!%s %s\n' "$_red" "$_plain" "$*" >&2; }

# fail STATUS WHAT [DETAIL…]: what happened; then, a line each, what it means and what to do. Ends the script.
fail() {
    local status=$1 line
    shift
    printf '%s%s: %s%s\n' "$_red" "${0##*/}" "$1" "$_plain" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit "$status"
}

# confirm QUESTION: --yes answers it; without a terminal and without --yes the script ends.
confirm() {
    local answer
    if [ "${opt[yes]}" = yes ] || [ "${opt[dry_run]}" = yes ]; then return 0; fi
    [ -t 0 ] || fail "$EXIT_USAGE" "this asks \"$1\", and there is no terminal to answer on" "Say --yes to agree beforehand."
    printf '  %s [y/N] ' "$1" >&2
    read -r answer || true # Ctrl-D is a no
    [[ $answer =~ ^[yY] ]] || fail "$EXIT_USAGE" "nothing was changed"
}

# wait_until SECONDS WHAT COMMAND…: asks COMMAND every ${DEPLOY_POLL_S:-10} s until it succeeds. It may say in
# $waiting_for what it waits for; that is shown when it changes, and every minute. Returns 1 when the time is over.
wait_until() {
    local limit_s=$1 what=$2 began=$SECONDS told=$SECONDS shown='' poll=${DEPLOY_POLL_S:-10}
    shift 2
    waiting_for=''
    if [ "${opt[dry_run]}" = yes ]; then
        say "would wait up to $(minutes "$limit_s") for $what"
        return 0
    fi
    until "$@"; do
        if ((SECONDS - began >= limit_s)); then return 1; fi
        if [ -n "$waiting_for" ] && { [ "$waiting_for" != "$shown" ] || ((SECONDS - told >= 60)); }; then
            say "$what: $waiting_for ($((SECONDS - began)) s)"
            shown=$waiting_for told=$SECONDS
        fi
        sleep "$poll"
    done
}

# minutes SECONDS: as people say it
minutes() {
    if (($1 >= 120)); then echo "$(($1 / 60)) minutes"; elif (($1 == 1)); then echo '1 second'; else echo "$1 seconds"; fi
}
