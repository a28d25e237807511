#!/usr/bin/env bash
# The NGC key, from a person's hands into AWS Secrets Manager, past every command line and every log.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"

about 'Puts the NGC key, which fetches the recognizer, into Secrets Manager.' \
    'The key comes from stdin, from --from-file, or is asked for without being shown; never from the command line.' \
    'Without one, the key that is there already stays. Get one: https://org.ngc.nvidia.com/setup/api-keys'
flag from-file FILE '' 'a file that holds the NGC key'
parse "$@"
needs aws jq
checked
set +x # a trace would show the key

READ_LIMIT_S=${DEPLOY_READ_LIMIT_S:-20}

# read_key: sets $key; empty where nobody gave one
read_key() {
    key=''
    if [ -n "${opt[from_file]}" ]; then
        [ -r "${opt[from_file]}" ] || fail "$EXIT_USAGE" "the file '${opt[from_file]}' (--from-file) cannot be read"
        IFS= read -r key <"${opt[from_file]}" || true
    elif [ ! -t 0 ]; then
        IFS= read -r -t "$READ_LIMIT_S" key || true # a pipe that nobody writes to must not hold us up
    elif [ -z "$there" ] || [ "${opt[yes]}" = no ]; then
        printf '  The NGC key%s; it is not shown: ' "${there:+ (Enter: the one that is there)}" >&2
        IFS= read -rs key
        printf '\n' >&2
    fi
    key=${key//[[:space:]]/}
}

check_key() {
    if plausible_key; then return 0; fi
    fail "$EXIT_USAGE" "that does not look like an NGC key (${#key} characters; they begin with nvapi-)" \
        "Nothing was stored. Make one: https://org.ngc.nvidia.com/setup/api-keys"
}

# Written to stdin of aws: neither in its arguments nor in a file.
store() {
    if [ -z "$there" ]; then
        once_gone create
        made "secret $name"
        return
    fi
    if [ "$(jq -r '.DeletedDate // empty' <<<"$there")" ]; then
        told_or '' secretsmanager restore-secret --secret-id "$name"
    fi
    if [ "$(stored)" = "$key" ]; then
        kept "secret $name: the same key"
    else
        printf '%s' "$key" | told_or '' secretsmanager put-secret-value --secret-id "$name" --secret-string file:///dev/stdin
        made "secret $name: another key; the recognizer takes it when it starts next"
    fi
}
# shellcheck disable=SC2046 # words
create() {
    printf '%s' "$key" | told_or '' secretsmanager create-secret --name "$name" --secret-string file:///dev/stdin \
        --description 'riva-gateway: the NGC key that fetches the recognizer' --tags $(tags)
}
stored() { aws secretsmanager get-secret-value --secret-id "$name" --query SecretString --output text 2>/dev/null || true; }

name=riva-${opt[deployment]}/ngc
step 'Secret'
account >/dev/null
there=$(look ResourceNotFoundException secretsmanager describe-secret --secret-id "$name")
read_key
if [ -n "$key" ]; then
    check_key
    store
elif [ -n "$there" ] && [ -z "$(jq -r '.DeletedDate // empty' <<<"$there")" ]; then
    kept "secret $name"
elif dry; then
    say "would ask for the NGC key, and put it into the secret $name"
else
    fail "$EXIT_USAGE" "the NGC key is missing" \
        "Give it on stdin or in a file: ${0##*/} --from-file FILE, or run this in a terminal to be asked." \
        "Get one: https://org.ngc.nvidia.com/setup/api-keys"
fi
