# shellcheck shell=bash disable=SC2154 # the settings stand in front
# Asks the gateway of this machine as a client would: a file over HTTP, a live stream over the WebSocket, a live stream
# over gRPC, and all of it is refused without a key. Answers with words and milliseconds; judging is for who asked.
#
# Settings: KEY_SECRET STREAMS (yes or no) WAIT_S POLL_S
release=$(readlink "$APP/current") || die "$EXIT_USAGE" 'there is no gateway on this machine' 'Put one there: riva-070-deploy-gateway.sh'
clip=$release/tests/fixtures/greeting.wav
web=https://localhost:8443 grpc=grpcs://localhost:50052

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
ASR_API_KEY=$(aws secretsmanager get-secret-value --secret-id "$KEY_SECRET" --query SecretString --output text 2>"$scratch/said") ||
    die "$EXIT_UNAVAILABLE" "the key in $KEY_SECRET cannot be read here" "$(tail -n 1 "$scratch/said")" 'Make it: riva-070-deploy-gateway.sh'

# The WebSocket's client knows no public key; HTTP, which comes before, has seen who answers at this port.
trust_gateway
gateway_trust=(--ca-cert "$STATE/tls/localhost.crt") own=no
if grep -q '^TLS_CERT=' "$ETC/gateway.env"; then gateway_trust=(--insecure) own=yes; fi

status_without_key() {
    curl -s -m 10 "${trust[@]}" -o /dev/null -w '%{http_code}' "$web/v1/audio/transcriptions" -F "file=@$clip" || true
}
over_http() {
    # Through stdin: a key on the command line would be there for all to see.
    printf 'header = "Authorization: Bearer %s"' "$ASR_API_KEY" |
        curl -sS -m 60 -K - "${trust[@]}" --fail-with-body "$web/v1/audio/transcriptions" -F "file=@$clip" -F response_format=text
}
over() { (export ASR_API_KEY && cd "$scratch" && timeout 60 "$release/.venv/bin/riva-gateway" transcribe "$clip" --server "$@"); }

# try NAME COMMAND…: its words, or why there are none, and how long it took
try() {
    local name=$1 words began=${EPOCHREALTIME/./}
    shift
    if words=$("$@" 2>"$scratch/said") && [ -n "${words//[[:space:]]/}" ]; then
        answer "${name}_words" "$(tr -s '[:space:]' ' ' <<<"$words")"
    else
        answer "${name}_error" "$({ tail -n 1 "$scratch/said" && printf '%s' "$words"; } | tr -s '[:space:]' ' ' | cut -c 1-300)"
    fi
    answer "${name}_ms" "$(((${EPOCHREALTIME/./} - began) / 1000))"
}

# A recognizer that has just become ready is seen by the gateway a moment later.
until curl -s -m 5 "${trust[@]}" -o /dev/null --fail "$web/readyz" || ((SECONDS >= WAIT_S)); do sleep "${POLL_S:-1}"; done
answer without_key "$(status_without_key)"
try http over_http
if [ "$STREAMS" = yes ]; then
    try websocket over "$web" "${gateway_trust[@]}"
    # gRPC always verifies, so a certificate for another name is asked for from outside only (--from-here).
    if [ "$own" = no ]; then try grpc over "$grpc" "${gateway_trust[@]}"; fi
fi
