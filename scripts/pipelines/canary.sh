#!/usr/bin/env bash
# The steps of docs/runbooks/rollout-plan.md for a pipeline: each is refused where the one before it says no.
. "$(dirname "${BASH_SOURCE[0]}")/../lib/deploy.sh"

about 'Takes the next step with a canary at all gateways, or goes back.' \
    'Steps: show, 1, 5, 25, 50, 100, abort, promote, rollback. They come in this order; where streams are few, 5 may be the' \
    'first. A step from 25 on wants the verdict "good" at every gateway, each of them that none says "worse".' \
    "promote wants 100: while all streams go to the canary, the deployment's own NIM becomes that of --nim, and gets the" \
    'streams back. rollback makes it the former one again.' \
    'The key that it shows is in ASR_API_KEY, or in the secret of --admin-key.'
takes_words STEP
flag reason TEXT '' "why: it stands in the gateways' log"
flag gateways URLS "${ASR_SERVER:-}" 'the gateways, with commas; also ASR_SERVER'
flag admin-key NAME "${ADMIN_KEY:-}" 'the secret in AWS with a key of the scope admin; also ADMIN_KEY'
flag nim TAG '' 'promote: the version of the NIM that the canary has run'
parse "$@"

program=${DEPLOY_GATEWAY_COMMAND:-$LIB/../../.venv/bin/riva-gateway}
IFS=', ' read -ra gateways <<<"${opt[gateways]}"

# trust: the certificate that the deployment has published, unless another is named or a public authority has signed it
trust() {
    [ -z "${ASR_CA_CERT:-}" ] || return 0
    if ask ssm get-parameter --name "/riva/${opt[deployment]}/gateway-certificate" --query Parameter.Value >"$SCRATCH/gateway.crt" 2>/dev/null; then
        export ASR_CA_CERT=$SCRATCH/gateway.crt
    fi
}

# at GATEWAY ARGUMENTS…: riva-gateway rollout there
at() {
    local gateway=$1
    shift
    "$program" rollout "$@" --server "$gateway"
}

# everywhere ARGUMENTS…: at all gateways; one that fails does not keep the others from it
everywhere() {
    local gateway failed=()
    for gateway in "${gateways[@]}"; do
        step "$gateway"
        if dry; then
            would riva-gateway rollout "$@" --server "$gateway"
        elif ! at "$gateway" "$@"; then
            failed+=("$gateway")
        fi
    done
    if ((${#failed[@]} > 0)); then
        fail "$EXIT_FAILED" "not done at ${failed[*]}" "Those that answered have done it. Run this again, or write their file: docs/rollout.md"
    fi
}

# look GATEWAY: sets $percent and $verdict, a dash where there is no canary
look() {
    local told
    told=$(at "$1" show --json) || fail "$EXIT_UNAVAILABLE" "$1 does not say how its canary does" 'Nothing was changed.'
    read -r percent verdict < <(jq -r '"\(.canary_percent // 0) \(.canary.verdict // "-")"' <<<"$told")
}

# may_take PERCENT: every gateway is at the step before it, or there already, and its verdict allows it
may_take() {
    local gateway percent verdict
    local -A before=([1]=0 [5]=0 [25]=5 [50]=25 [100]=50)
    for gateway in "${gateways[@]}"; do
        look "$gateway"
        say "$gateway: $percent %, verdict $verdict"
        if [ "$verdict" = worse ] && (($1 > 1)); then
            fail "$EXIT_FAILED" "$gateway has found the canary worse" 'Look why: docs/runbooks/canary.md. A new beginning is step 1.'
        fi
        if ((percent > $1)); then
            fail "$EXIT_USAGE" "$gateway sends the canary $percent % of the streams already" 'Fewer are a new beginning: abort, then step 1.'
        fi
        if ((percent < ${before[$1]})); then
            fail "$EXIT_USAGE" "$gateway sends the canary $percent % of the streams, and step $1 comes after ${before[$1]} %" \
                'Take the steps in their order: docs/runbooks/rollout-plan.md'
        fi
        if (($1 >= 25)) && [ "$verdict" != good ]; then
            fail "$EXIT_UNAVAILABLE" "the verdict at $gateway is not \"good\" yet" 'Wait for more streams, then run this again: docs/runbooks/rollout-plan.md'
        fi
    done
}

promote() {
    local gateway percent verdict
    [ -n "${opt[nim]}" ] || fail "$EXIT_USAGE" 'promote wants --nim TAG: the version that the canary has run'
    for gateway in "${gateways[@]}"; do
        look "$gateway"
        ((percent == 100)) || fail "$EXIT_USAGE" "$gateway sends the canary $percent % of the streams" 'Promote it from 100, when nobody needs the usual one.'
    done
    upgrade --nim "${opt[nim]}"
    everywhere canary 0 --reason "${opt[reason]}"
}

# rollback: the NIM goes back for those gateways that answer, whoever does not
rollback() {
    local status=0
    (everywhere abort --reason "${opt[reason]}") || status=$?
    upgrade --rollback nim
    exit "$status"
}

# upgrade FLAGS…: of the deployment's NIM; its exit status is ours
upgrade() {
    local flags=(--deployment "${opt[deployment]}" --yes)
    if [ -n "${opt[region]}" ]; then flags+=(--region "${opt[region]}"); fi
    if dry; then flags+=(--dry-run); fi
    "$LIB/../riva-140-upgrade.sh" "$@" "${flags[@]}" || exit
}

# shellcheck disable=SC2154 # words: flags.sh
((${#words[@]} == 1)) || fail "$EXIT_USAGE" 'one step is wanted' "One of: show 1 5 25 50 100 abort promote rollback"
((${#gateways[@]} > 0)) || fail "$EXIT_USAGE" 'no gateway is named' 'Name them: --gateways https://gateway.example.com:8443'
[ "${words[0]}" = show ] || [ -n "${opt[reason]}" ] || fail "$EXIT_USAGE" 'no reason is given' 'It stands in the log for whoever asks later: --reason TEXT'
needs aws jq "$program"
if [ -n "${opt[admin_key]}" ]; then export ASR_API_KEY=aws-sm:${opt[admin_key]}; fi # the command fetches it itself
trust

case ${words[0]} in
show) everywhere show ;;
1 | 5 | 25 | 50 | 100)
    may_take "${words[0]}"
    everywhere canary "${words[0]}" --reason "${opt[reason]}"
    ;;
abort) everywhere abort --reason "${opt[reason]}" ;;
promote) promote ;;
rollback) rollback ;;
*) fail "$EXIT_USAGE" "'${words[0]}' is no step" "One of: show 1 5 25 50 100 abort promote rollback" ;;
esac
