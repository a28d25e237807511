#!/usr/bin/env bash
# The release gate for a pipeline: does a deployment hear well and soon enough, over the network, as a client hears it.
. "$(dirname "${BASH_SOURCE[0]}")/../lib/deploy.sh"

about 'Streams the golden set to a deployment, and fails where a limit is missed: golden.json, golden.html.' \
    'The certificate to trust and the key are those that the deployment has published in AWS. Of several gateways each' \
    'must pass, and each has its own result: golden-HOST.json, golden-HOST.html.'
flag server URLS "${ASR_SERVER:-}" 'the gateway; several with commas; also ASR_SERVER'
flag profile NAME riva 'the limits: riva, a TOML file of your own, or none'
flag set DIR "$LIB/../../tests/golden" 'the clips'
flag output DIR . 'where the result goes'
parse "$@"

program=${DEPLOY_GATEWAY_COMMAND:-$LIB/../../.venv/bin/riva-gateway}
# shellcheck disable=SC2154 # opt: flags.sh
IFS=', ' read -ra gateways <<<"${opt[server]}"
((${#gateways[@]} > 0)) || fail "$EXIT_USAGE" 'no gateway is named' 'Name it: --server https://gateway.example.com:8443'
needs aws "$program"
if dry; then
    say "would stream ${opt[set]} to ${opt[server]}"
    exit 0
fi
# Where a public authority has signed it, no certificate is published.
if [ -z "${ASR_CA_CERT:-}" ] && ask ssm get-parameter --name "/riva/${opt[deployment]}/gateway-certificate" --query Parameter.Value >"$SCRATCH/gateway.crt" 2>/dev/null; then
    export ASR_CA_CERT=$SCRATCH/gateway.crt
fi
export ASR_API_KEY=${ASR_API_KEY:-aws-sm:riva-${opt[deployment]}/gateway-key}

# gate GATEWAY: it keeps the limits
gate() {
    local at=${1#*://} name=golden
    if ((${#gateways[@]} > 1)); then name=golden-${at//[^A-Za-z0-9.-]/-}; fi
    step "$1"
    "$program" golden --server "$1" --set "${opt[set]}" --profile "${opt[profile]}" \
        --json "${opt[output]}/$name.json" --html "${opt[output]}/$name.html"
}

shut=()
for gateway in "${gateways[@]}"; do
    gate "$gateway" || shut+=("$gateway")
done
((${#shut[@]} == 0)) || fail "$EXIT_FAILED" "the release gate is shut: ${shut[*]}" \
    "What was missed is said above, and shown by ${opt[output]}/golden*.html"
step 'The release gate is open.'
