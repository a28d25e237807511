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
    local -a text=()
    read -ra text <<<"${_about[0]}"
    folded 2 '' "${0##*/}:" "${text[@]}"
    printf '\nUsage: %s [flags]%s\n\n' "${0##*/}" "${_words_help:+ $_words_help}"
    for name in "${_order[@]}"; do
        left="--$name${_takes[$name]:+ ${_takes[$name]}}"
        read -ra text <<<"${_help[$name]}"
        if [ -n "${_takes[$name]}" ] && [ -n "${opt[${name//-/_}]}" ]; then text+=("(${opt[${name//-/_}]})"); fi
        folded 29 '' "$(printf '  %-26s' "$left")" "${text[@]}"
    done
    _more
    printf '\nExit status: 0 done, 1 failed, 2 a flag or credential is wrong, 3 not now: run it again, 4 rolled back.\n'
}

# _more: what `about` says after its first line: prose, and the lines of lists, which stay lines
_more() {
    local line left
    local -a text=() prose=()
    if ((${#_about[@]} > 1)); then printf '\n'; fi
    while IFS= read -r line; do
        if [[ $line =~ ^(\ +[^\ ]+\ *)\ (.*)$ ]]; then
            left=${BASH_REMATCH[1]}
            read -ra text <<<"${BASH_REMATCH[2]}"
            _paragraph "${prose[@]}"
            prose=()
            if ((${#line} > WIDTH)); then folded "$((${#left} + 1))" '' "$left" "${text[@]}"; else printf '%s\n' "$line"; fi
            continue
        fi
        if [[ $line == -* ]]; then # what it says of a flag begins anew
            _paragraph "${prose[@]}"
            prose=()
        fi
        read -ra text <<<"$line"
        prose+=("${text[@]}")
    done < <(if ((${#_about[@]} > 1)); then printf '%s\n' "${_about[@]:1}"; fi)
    _paragraph "${prose[@]}"
}
_paragraph() { if (($# > 0)); then folded 0 '' "$@"; fi; }

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
        --[a-zA-Z]*)
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
    _remember
    if [ -n "${opt[region]:-}" ]; then export AWS_REGION=${opt[region]} AWS_DEFAULT_REGION=${opt[region]}; fi
}

# _remember: $DEPLOY_SAME, the flags that name this deployment, where the environment does not; for `command_for`. $within: this is
# run by another script, which has said so already.
_remember() {
    within=${DEPLOY_SAME+yes}
    if [ -n "$within" ]; then return 0; fi
    DEPLOY_SAME=''
    if [ "${opt[deployment]}" != "${DEPLOY_NAME:-riva}" ]; then DEPLOY_SAME+=" --deployment ${opt[deployment]}"; fi
    if [ "${opt[region]:-}" != "${AWS_REGION:-${AWS_DEFAULT_REGION:-}}" ]; then DEPLOY_SAME+=" --region ${opt[region]}"; fi
    export DEPLOY_SAME
}

_unknown() {
    fail "$EXIT_USAGE" "'$1' is not known" "It knows: $(printf -- '--%s ' "${_order[@]}")" "More: ${0##*/} --help"
}

# checking: riva-000-up.sh wants to know, before it makes anything, whether the flags of each of its steps make sense
# checked: they do, as far as that can be said without asking AWS; the script ends here where that was the question
checking() { [ -n "${DEPLOY_CHECK_ONLY:-}" ]; }
checked() { if checking; then exit 0; fi; }

# dry: whether nothing may be changed
dry() { [ "${opt[dry_run]}" = yes ]; }
