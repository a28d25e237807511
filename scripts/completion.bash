# shellcheck shell=bash
# Completes the flags of scripts/riva-*.sh, and the values of some, for bash:   . scripts/completion.bash
#
# What a script knows is read from its --help, once for each script and shell. Nothing is asked of AWS.

_riva_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
declare -gA _riva_flags=() # by the script's name: its flags, those that want a value with a = behind

_riva_learn() {
    local line
    _riva_flags[$1]=' '
    while IFS= read -r line; do
        if [[ $line =~ ^\ \ (--[a-z0-9-]+)(\ [^\ ])? ]]; then
            _riva_flags[$1]+="${BASH_REMATCH[1]}${BASH_REMATCH[2]:+=} "
        fi
    done < <("$_riva_folder/$1" --help 2>/dev/null)
}

# _riva_column FILE: the first words of a table
_riva_column() { awk -F '\t' '/^#/ { next } seen++ { print $1 }' "$_riva_folder/lib/$1"; }

# _riva_values SCRIPT FLAG: what may stand behind it; nothing where that is not known
_riva_values() {
    case $2 in
    --profile) _riva_column nim-profiles.tsv | grep -vx classic ;;
    --type) if [[ $1 == riva-3* ]]; then _riva_column instance-types.tsv | sed 's/^/ml./'; else _riva_column instance-types.tsv; fi ;;
    --allow-from) echo me none ;;
    --unit | --rollback) echo gateway nim ;;
    --back-to) echo good before ;;
    --tls-secret) if [[ $1 == riva-070-* ]]; then echo self-made; fi ;;
    esac
}

_riva_complete() {
    local script=${1##*/} word=$2 before=$3
    COMPREPLY=()
    [ -n "${_riva_flags[$script]:-}" ] || _riva_learn "$script"
    if [[ ${_riva_flags[$script]} == *" $before= "* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_riva_values "$script" "$before")" -- "$word")
        case $before in --from-file | --clip | --file | --keep) compopt -o default ;; esac
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "${_riva_flags[$script]//=/} --help" -- "$word")
    else
        compopt -o default # a recording, for the scripts that take one
    fi
}

for _riva_script in "$_riva_folder"/riva-[0-9][0-9][0-9]-*.sh; do complete -F _riva_complete "${_riva_script##*/}"; done
unset _riva_script
