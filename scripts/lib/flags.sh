# shellcheck shell=bash
# Flags, declared once: parsed, checked and shown by --help from the same lines. Sourced by deploy.sh.
#
#   about 'One line.' 'More lines for --help…'
#   flag  type NAME g6.xlarge 'the instance type'       → ${opt[type]}
#   switch on-demand-only 'no spot capacity'            → ${opt[on_demand_only]} is yes or no
#   parse "$@"                                          (further words: in $words)
#
# Every script has --deployment, --region (but for no_cloud), --dry-run, --yes and --help besides.

declare -A opt=() _takes=() _help=()
declare -a _order=() words=()
_about=() _words_help='' _no_cloud=''

# about LINE…: what --help says first; the first line is the summary
about() { _about=("$@"); }

# no_cloud: the script works on this machine alone, and has no --region
no_cloud() { _no_cloud=yes; }

# takes_words TEXT: the script takes words beside its flags; TEXT names them in the usage line
takes_words() { _words_help=$1; }

# flag NAME VALUE DEFAULT HELP
flag() { _order+=("$1") _takes[$1]=$2 opt[${1//-/_}]=$3 _help[$1]=$4; }

# switch NAME HELP
switch() { _order+=("$1") _takes[$1]='' opt[${1//-/_}]=no _help[$1]=$2; }

# usage: --help's text, on stdout
usage() {
    local name left
    printf '%s: %s\n' "${0##*/}" "${_about[0]}"
    printf '\nUsage: %s [flags]%s\n\n' "${0##*/}" "${_words_help:+ $_words_help}"
    for name in "${_order[@]}"; do
        left="--$name${_takes[$name]:+ ${_takes[$name]}}"
        printf '  %-26s %s' "$left" "${_help[$name]}"
        if [ -n "${_takes[$name]}" ] && [ -n "${opt[${name//-/_}]}" ]; then printf ' (%s)' "${opt[${name//-/_}]}"; fi
        printf '\n'
    done
    if ((${#_about[@]} > 1)); then printf '\n%s' "$(printf '%s\n' "${_about[@]:1}")" && printf '\n'; fi
    printf '\nExit status: 0 done, 1 failed, 2 a flag or credential is wrong, 3 not now: run it again, 4 rolled back.\n'
}

# parse "$@"
parse() {
    flag deployment NAME "${DEPLOY_NAME:-riva}" 'the name of what belongs together; also DEPLOY_NAME'
    if [ -z "$_no_cloud" ]; then
        flag region REGION "${AWS_REGION:-${AWS_DEFAULT_REGION:-}}" "AWS region; unset: what \`aws\` is configured for"
    fi
    switch dry-run 'say what would be done, and change nothing'
    switch yes 'do not ask'
    local name value
    while (($# > 0)); do
        case $1 in
        -h | --help)
            usage
            exit 0
            ;;
        -y) opt[yes]=yes ;;
        --*)
            name=${1#--}
            value=''
            if [[ $name == *=* ]]; then value=${name#*=} name=${name%%=*}; fi
            [ -n "${_takes[$name]+known}" ] || _unknown "--$name"
            if [ -z "${_takes[$name]}" ]; then
                [[ $1 != *=* ]] || fail "$EXIT_USAGE" "--$name takes no value"
                opt[${name//-/_}]=yes
            elif [[ $1 == *=* ]]; then
                opt[${name//-/_}]=$value
            else
                (($# > 1)) || fail "$EXIT_USAGE" "--$name wants a value: --$name ${_takes[$name]}"
                opt[${name//-/_}]=$2
                shift
            fi
            ;;
        -*) _unknown "$1" ;;
        *)
            [ -n "$_words_help" ] || _unknown "$1"
            words+=("$1")
            ;;
        esac
        shift
    done
    [[ ${opt[deployment]} =~ ^[a-z][a-z0-9-]{0,22}$ ]] ||
        fail "$EXIT_USAGE" "--deployment '${opt[deployment]}' cannot be a name" \
            "It becomes part of many names: lower-case letters, digits and -, a letter first, at most 23 characters."
    if [ -n "${opt[region]:-}" ]; then export AWS_REGION=${opt[region]} AWS_DEFAULT_REGION=${opt[region]}; fi
}

_unknown() {
    fail "$EXIT_USAGE" "'$1' is not known" "It knows: $(printf -- '--%s ' "${_order[@]}")" "More: ${0##*/} --help"
}

# dry: whether nothing may be changed
dry() { [ "${opt[dry_run]}" = yes ]; }
