#!/usr/bin/env bash
# From nothing to a gateway that transcribes: all steps in order, each of which can be run by itself, too.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/guard.sh"

HERE=$(cd "$LIB/.." && pwd)
GUARD=150-cost-guard # as soon as there is a machine that costs, whatever comes of the rest
STEPS=(010-preflight 020-network 030-secret 040-launch "$GUARD" 050-deploy-nim 060-readiness 070-deploy-gateway 080-smoke-test)

about 'Makes a whole deployment, or goes on with one that was broken off.' \
    '  riva-000-up.sh --region us-east-1 --allow-from me --stop-at 20:00 --timezone Europe/Berlin' \
    'It runs: '"${STEPS[*]}; $GUARD only with one of its flags, or where there is a nightly stop." \
    'Each flag goes to the steps that know it. The NGC key is read from stdin, --from-file, or asked for.' \
    'It says what it costs and asks before anything is made; --yes answers. Done twice, it changes nothing the second time.'

# The flags are those of the steps, read from their --help; but for those that this script has itself, and those that
# are for going back, not up.
OWN='deployment region dry-run yes off restart back-to trial fetch-only install-only'
declare -A knows=() valued=()
learn() {
    local known=" $OWN " name step line fresh=''
    for step in "${STEPS[@]}"; do
        knows[$step]=' '
        while IFS= read -r line; do
            if [[ $line =~ ^\ \ --([a-z0-9-]+)\ ([^\ ]+)\ +(.*)$ ]]; then
                name=${BASH_REMATCH[1]} valued[$name]=yes
                if [[ $known == *" $name "* ]]; then fresh=''; else flag "$name" "${BASH_REMATCH[2]}" '' "${BASH_REMATCH[3]}" && fresh=yes; fi
            elif [[ $line =~ ^\ \ --([a-z0-9-]+)\ +(.*)$ ]]; then
                name=${BASH_REMATCH[1]}
                if [[ $known == *" $name "* ]]; then fresh=''; else switch "$name" "${BASH_REMATCH[2]}" && fresh=yes; fi
            elif [[ $line =~ ^\ {29}([^\ ].*)$ ]] && [ -n "$fresh" ]; then
                _help[$name]+=" ${BASH_REMATCH[1]}"
                continue
            else
                fresh=''
                continue
            fi
            knows[$step]+="$name "
            known+="$name "
        done < <("$HERE/riva-$step.sh" --help)
    done
}

# given STEP: the flags for it that were given; sets $flags
given() {
    local name value
    flags=()
    for name in ${knows[$1]}; do
        value=${opt[${name//-/_}]:-}
        if [[ " $OWN " == *" $name "* ]]; then continue; fi
        if [ -n "${valued[$name]:-}" ] && [ -n "$value" ]; then flags+=("--$name" "$value"); fi
        if [ -z "${valued[$name]:-}" ] && [ "$value" = yes ]; then flags+=("--$name"); fi
    done
}

# check: each step's flags make sense, before the first of them does anything
check() {
    local step status
    if [ "${opt[spot]}" = yes ] && [ -n "${opt[stop_at]}" ]; then
        fail "$EXIT_USAGE" '--stop-at is not for --spot: such a machine cannot be stopped' "--max-hours ends it instead."
    fi
    for step in "${STEPS[@]}"; do
        given "$step"
        status=0
        DEPLOY_CHECK_ONLY=yes "$HERE/riva-$step.sh" "${same[@]}" --dry-run "${flags[@]}" </dev/null >/dev/null 2>"$SCRATCH/check" || status=$?
        if ((status != 0)); then
            cat "$SCRATCH/check" >&2
            fail "$status" "$step cannot work with these flags; nothing was done"
        fi
    done
}

# guards: sets $flags for the guard: what was asked for; a nightly stop that is there already shall stop the machine that
# is there now. Returns 1 where there is nothing to guard.
guards() {
    local there id words
    given "$GUARD"
    if [ -z "${opt[stop_at]}" ] && there=$(nightly_stop) && [ -n "$there" ]; then
        id=$(the_instance)
        if ! stops "$there" "$id" && { is_new "$id" || [ -z "$(ask ec2 describe-instances --instance-ids "$id" \
            --query 'Reservations[0].Instances[0].InstanceLifecycle')" ]; }; then
            words=$(scheduled "$there")
            flags+=(--stop-at "$(sed -E 's/^cron\((.*)\) .*/\1/' <<<"$words")" --timezone "${words##* }")
        fi
    fi
    [[ " ${flags[*]} " =~ \ --(stop-at|max-hours)\  ]]
}

# run STEP FLAGS…
run() {
    local step=$1 status=0 began=$SECONDS
    shift
    printf '\n%s── %s%s\n' "$_dim" "$step" "$_plain" >&2
    "$HERE/riva-$step.sh" "${same[@]}" "$@" >/dev/null || status=$?
    if ((status != 0)); then
        fail "$status" "$step ended with status $status, $(minutes "$SECONDS") after the start" \
            "What is done is kept. When that is put right, the same command goes on from there:" "$again" \
            "To take everything away again: $(command_for riva-190-destroy.sh)"
    fi
    took+=("$(printf '%-20s %s' "$step" "$(minutes $((SECONDS - began)))")")
}

again=$0
if (($# > 0)); then again+=$(printf ' %q' "$@"); fi
learn
parse "$@"
needs aws jq
if [ "${opt[yes]}" = no ] && ! dry; then [ -t 0 ] || fail "$EXIT_USAGE" 'this asks before it makes anything, and there is no terminal' "Say --yes to agree beforehand."; fi

region=$(the_region)
same=(--deployment "${opt[deployment]}" --region "$region")
check
if dry; then same+=(--dry-run); fi
took=()
given "${STEPS[0]}"
run "${STEPS[0]}" "${flags[@]}" </dev/null
confirm "Make the deployment '${opt[deployment]}' in $region?"
same+=(--yes)
for step in "${STEPS[@]:1}"; do
    if [ "$step" = "$GUARD" ] && ! guards; then continue; fi
    if [ "$step" != "$GUARD" ]; then given "$step"; fi
    if [ "$step" = 030-secret ]; then run "$step" "${flags[@]}"; else run "$step" "${flags[@]}" </dev/null; fi
done

printf '\n' >&2
if dry; then
    step 'That would be all. Nothing was changed.'
    exit 0
fi
step "All is done ($(minutes "$SECONDS"))"
for line in "${took[@]}"; do say "$line"; done
printf '\n' >&2
"$HERE/riva-100-status.sh" --deployment "${opt[deployment]}" --region "$region"
