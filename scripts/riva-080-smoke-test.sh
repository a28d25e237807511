#!/usr/bin/env bash
# Whether a client gets words: a file over HTTP, a live stream over the WebSocket, a live stream over gRPC.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"
. "$LIB/release.sh"

about 'Asks the gateway as a client would, with the key and without it, and prints words and times to stdout.' \
    'It asks on the machine itself; --from-here asks over the network, with the certificate that was published.'
flag expect TEXT '' 'the words that have to come in the smoke test; case and punctuation do not count'
switch from-here "ask from this machine; streams need \`riva-gateway\` on it"
flag server ADDRESS '' 'with --from-here: its name or address; unset: that of the machine'
flag clip FILE '' 'with --from-here: another recording; unset: the one that comes along'
parse "$@"
needs aws jq curl
checked
set +x # a trace would show the key

bad=()
plain() { printf '%s' "$1" | tr '[:upper:]' '[:lower:]' | tr -d '[:punct:]' | xargs; }

# judge TITLE NAME: what came of it, in a line
judge() {
    local heard=${answer[$2_words]:-} ms=${answer[$2_ms]:-}
    if [ -z "$ms" ]; then return 0; fi
    if [ -z "$heard" ]; then
        warn "$1: no words: ${answer[$2_error]:-}"
        bad+=("$1: no words: ${answer[$2_error]:-}")
    elif [ -n "${opt[expect]}" ] && [ "$(plain "$heard")" != "$(plain "${opt[expect]}")" ]; then
        warn "$1: other words: $heard"
        bad+=("$1: other words than expected: $heard")
    else
        made "$1: ${heard% } ($ms ms)"
        printf '%s\t%s\t%s\n' "$2" "$ms" "${heard% }"
    fi
}

judge_all() {
    if [ "${answer[without_key]:-}" = 401 ]; then
        made 'without a key: refused'
    else
        warn "without a key it answers ${answer[without_key]:-nothing}, not 401"
        bad+=("without a key it answers ${answer[without_key]:-nothing}, not 401: is AUTH=off set?")
    fi
    judge 'a file over HTTP' http
    judge 'a stream over the WebSocket' websocket
    judge 'a stream over gRPC' grpc
    if ((${#bad[@]} == 0)); then return 0; fi
    fail "$EXIT_FAILED" 'the smoke test failed' "${bad[@]}" 'Logs: riva-110-logs.sh; is the recognizer ready? riva-060-readiness.sh'
}

# streams: whether the recognizer takes live streams
streams() {
    local profile
    profile=$(if is_new "$far_instance"; then :; else instance_tag "$far_instance" riva:profile; fi)
    [ "$(table "$NIM_PROFILES" "$profile" streams)" != no ]
}

there() {
    far_answers smoke.sh 300 "DEPLOYMENT=${opt[deployment]}" "REGION=$(the_region)" \
        "KEY_SECRET=riva-${opt[deployment]}/gateway-key" "WAIT_S=${DEPLOY_GATEWAY_READY_S:-60}" "POLL_S=${DEPLOY_POLL_S:-1}" \
        "STREAMS=$(if streams; then echo yes; else echo no; fi)" || exit
}

# own_gateway: the command on this machine: of a checkout, else on the PATH; nothing where there is none
own_gateway() {
    local here=$LIB/../../.venv/bin/riva-gateway
    if [ -x "$here" ]; then echo "$here"; else command -v riva-gateway || true; fi
}

# The certificate that was published is trusted, and nothing else: this speaks with that machine or with nobody.
here() {
    local address=${opt[server]:-$(gateway_address "$far_instance")} clip=${opt[clip]:-$LIB/../../tests/fixtures/greeting.wav} program
    ask ssm get-parameter --name "/riva/${opt[deployment]}/gateway-certificate" --query Parameter.Value >"$SCRATCH/gateway.crt" ||
        fail "$EXIT_USAGE" 'the gateway has published no certificate' 'Is there one? riva-070-deploy-gateway.sh'
    ASR_API_KEY=$(ask secretsmanager get-secret-value --secret-id "riva-${opt[deployment]}/gateway-key" --query SecretString) ||
        fail "$EXIT_USAGE" "the key in riva-${opt[deployment]}/gateway-key cannot be read" 'Make it: riva-070-deploy-gateway.sh'
    answer=()
    answer[without_key]=$(request "$address" "$clip" -o /dev/null -w '%{http_code}' 2>/dev/null) || true
    if [ "${answer[without_key]}" = 000 ]; then
        fail "$EXIT_UNAVAILABLE" "nobody answers at https://$address:8443" \
            'May this machine reach it? riva-020-network.sh --allow-from me. Does it run? riva-100-status.sh'
    fi
    # Through stdin: a key on the command line would be there for all to see.
    try http with_key "$address" "$clip"
    program=$(own_gateway)
    if [ -z "$program" ]; then
        say "streams were not tried: \`riva-gateway\` is not installed here"
    elif streams; then
        try websocket client "$program" "$clip" "https://$address:8443"
        try grpc client "$program" "$clip" "grpcs://$address:50052"
    fi
}
request() {
    local address=$1 clip=$2
    shift 2
    curl -sS -m 60 --cacert "$SCRATCH/gateway.crt" "$@" "https://$address:8443/v1/audio/transcriptions" -F "file=@$clip" -F response_format=text
}
with_key() { printf 'header = "Authorization: Bearer %s"' "$ASR_API_KEY" | request "$1" "$2" -K - --fail-with-body; }
client() { (export ASR_API_KEY && cd "$SCRATCH" && "$1" transcribe "$2" --server "$3" --ca-cert "$SCRATCH/gateway.crt"); }

# try NAME COMMAND…: its words, or why there are none, and how long it took
try() {
    local name=$1 heard began=${EPOCHREALTIME/[.,]/}
    shift
    if heard=$("$@" 2>"$SCRATCH/said") && [ -n "${heard//[[:space:]]/}" ]; then
        answer[${name}_words]=$(tr -s '[:space:]' ' ' <<<"$heard")
    else
        answer[${name}_error]="$(tail -n 1 "$SCRATCH/said") $heard"
    fi
    answer[${name}_ms]=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
}

far_instance=$(the_instance running)
step "Smoke test$(if [ "${opt[from_here]}" = yes ]; then echo ' from here'; fi)"
if dry; then
    say 'would ask for words: over HTTP, the WebSocket and gRPC'
elif [ "${opt[from_here]}" = yes ]; then
    here
else
    there
fi
dry || judge_all
