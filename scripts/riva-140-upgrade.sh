#!/usr/bin/env bash
# Another version of the recognizer, of the gateway, or of both, and back to the former one where it does not do.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"
. "$LIB/recognizer.sh"
. "$LIB/release.sh"

about 'Changes the recognizer or the gateway under the eyes of a smoke test; goes back by itself where it fails.' \
    'What is new is fetched first. Streams that run may finish, then it is switched, asked for words, and kept or taken' \
    'back. Status 4: the former version serves again. A recognizer loads for minutes, in which new streams are refused.'
flag nim TAG '' 'another version of the recognizer that is there'
recognizer_flags
switch gateway 'the gateway of this folder'
flag rollback WHAT '' 'nim or gateway: to the one before the one that works now, by hand'
flag minutes N 40 'how long the recognizer may take to be ready'
flag expect TEXT '' 'the words of the smoke test'
parse "$@"
needs aws jq tar sha256sum
HERE=$LIB/..

common=(--deployment "${opt[deployment]}" --yes)
if [ -n "${opt[region]}" ]; then common+=(--region "${opt[region]}"); fi
if dry; then common+=(--dry-run); fi

# part SCRIPT FLAG…: another of these scripts; why it failed is in $why then
part() {
    local script=$1 status=0
    shift
    "$HERE/$script" "${common[@]}" "$@" 2>&1 >/dev/null | tee "$SCRATCH/said" >&2 || status=${PIPESTATUS[0]}
    if ((status != 0)); then
        why=$(grep -oE "^(riva-[0-9]{3}[a-z-]*\.sh|${opt[deployment]}): .*" "$SCRATCH/said" | tail -n 1) || why="$script ended with status $status"
    fi
    return "$status"
}

fetch_nim() { part riva-050-deploy-nim.sh --fetch-only "$@"; }
switch_nim() { part riva-050-deploy-nim.sh "$@"; }
check_nim() { part riva-060-readiness.sh --trial --minutes "${opt[minutes]}" && check_gateway; }
fetch_gateway() { part riva-070-deploy-gateway.sh --install-only "$@"; }
switch_gateway() { part riva-070-deploy-gateway.sh --trial "$@"; }
check_gateway() {
    local release
    release=$(instance_tag "$far_instance" riva:gateway-release) || { why='AWS did not say what is on the machine' && return 1; }
    if [ -z "$release" ]; then return 0; fi # before the first gateway the recognizer's own words have to do
    part riva-080-smoke-test.sh --expect "${opt[expect]}"
}

# change PART NAME FLAG…: the new one, looked at, or back to the former one. The FLAGs say which one to the script that
# deploys it.
change() {
    local part=$1 name=$2 status=0 reason
    shift 2
    step "Another $name"
    "fetch_$part" "$@" || fail "$?" "nothing was changed: the $name that is there goes on" "the new one: $why"
    if "switch_$part" "$@" && "check_$part"; then
        mark "$part"
        made "the $name is another one, and works"
        return 0
    fi
    reason=$why
    if dry; then return 0; fi
    step "Back to the former $name"
    if "switch_$part" --back-to good && "check_$part"; then
        fail "$EXIT_ROLLED_BACK" "the former $name serves again" "the new one: $reason"
    fi
    fail "$EXIT_FAILED" "neither the new $name nor the former one works" "the new one: $reason" "the former one: $why" \
        "What runs, and what it says: riva-100-status.sh, riva-110-logs.sh" \
        "To try the former one again: riva-050-deploy-nim.sh --back-to good, riva-060-readiness.sh, riva-070-deploy-gateway.sh --back-to good" \
        "To begin anew on another machine: riva-190-destroy.sh, then riva-000-up.sh"
}

# nim_flags: sets $flags, how riva-050-deploy-nim.sh is told what is wanted
nim_flags() {
    local name
    flags=()
    for name in profile tag image selector; do
        if [ -n "${opt[$name]}" ]; then flags+=("--$name" "${opt[$name]}"); fi
    done
    if [ "${opt[classic]}" = yes ]; then flags+=(--classic); fi
    if ((${#flags[@]} > 0)) && [ "${opt[allow_unsupported_gpu]}" = yes ]; then flags+=(--allow-unsupported-gpu); fi
}

# has_before TAG NAME: the script ends where there is nothing to go back to
has_before() {
    [ -n "$(instance_tag "$far_instance" "$1")" ] ||
        fail "$EXIT_USAGE" "there is no former $2 to go back to" "One is kept from the second one on that was seen working."
}

if [ -n "${opt[nim]}" ]; then
    [ -z "${opt[tag]}" ] || fail "$EXIT_USAGE" '--nim and --tag say the same; one of them is enough'
    opt[tag]=${opt[nim]}
fi
nim_flags
far_instance=$(the_instance running)
case ${opt[rollback]} in
nim | gateway)
    if ((${#flags[@]} > 0)) || [ "${opt[gateway]}" = yes ]; then
        fail "$EXIT_USAGE" '--rollback goes with nothing else that is to change'
    fi
    if [ "${opt[rollback]}" = nim ]; then
        has_before riva:nim-image-before recognizer
        confirm 'Go back to the former recognizer? New streams are refused for some minutes.'
        change nim recognizer --back-to before
    else
        has_before riva:gateway-release-before gateway
        confirm 'Go back to the former gateway?'
        change gateway gateway --back-to before
    fi
    exit
    ;;
'') ;;
*) fail "$EXIT_USAGE" "--rollback is nim or gateway, not '${opt[rollback]}'" ;;
esac
((${#flags[@]} > 0)) || [ "${opt[gateway]}" = yes ] ||
    fail "$EXIT_USAGE" 'nothing to change was named' 'Name a version (--nim 1.6.0), a recognizer (--profile ctc) or the gateway of this folder (--gateway).'
if ((${#flags[@]} > 0)); then
    confirm 'Change the recognizer? New streams are refused for some minutes.'
    change nim recognizer "${flags[@]}"
fi
if [ "${opt[gateway]}" = yes ]; then
    confirm 'Change the gateway? Streams that run may finish.'
    change gateway gateway
fi
