#!/usr/bin/env bash
# Does the stack on this machine work: words over HTTP, WebSocket and gRPC, doors that stay shut, figures, alerts.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/local.sh"

no_cloud
about 'Sends a recording to the stack of riva-210-local-up.sh in every way, and tries what must not work.' \
    'The recording is tests/fixtures/greeting.wav of this checkout.'
flag file WAV "$ROOT/tests/fixtures/greeting.wav" 'the recording to send'
parse "$@"

bad=0
wrong() {
    warn "$1"
    bad=1
}

# as KEY_FILE: curl's settings with a key in them, for stdin: it is in no argument
as() { printf 'header = "Authorization: Bearer %s"' "$(<"$1")"; }

# answers WANTED WHAT CURL_ARGUMENTS…: the status is WANTED
answers() {
    local wanted=$1 what=$2 got
    shift 2
    got=$(web "$@" --output "$SCRATCH/answer" --write-out '%{http_code}') || got=${got:-000}
    if [ "$got" = "$wanted" ]; then made "$what: $got"; else wrong "$what: $got instead of $wanted"; fi
}

# hears WHAT TEXT: it is not nothing
hears() { if [ -n "${2//[[:space:]]/}" ]; then made "$1: $2"; else wrong "$1: no words"; fi; }

test_doors() {
    step 'Doors'
    answers 200 'takes streams' /readyz
    answers 200 'models, with a key' /v1/models --config - < <(as "$SCRATCH/key")
    answers 401 'models, without one' /v1/models
    answers 403 "figures, with an application's key" /metrics --config - < <(as "$SCRATCH/key")
}

test_words() {
    step 'Words'
    local text
    answers 200 'a recording over HTTP' /v1/audio/transcriptions --config - --form "file=@${opt[file]}" < <(as "$SCRATCH/key")
    hears 'HTTP' "$(jq -r '.text // empty' "$SCRATCH/answer" 2>/dev/null)"
    text=$(in_gateway riva-gateway transcribe --server https://localhost:8443 - <"${opt[file]}") || text=''
    hears 'WebSocket' "$text"
    text=$(in_gateway riva-gateway transcribe --server grpcs://localhost:50052 - <"${opt[file]}") || text=''
    hears 'gRPC' "$text"
}

# prometheus PATH: what Prometheus says there
prometheus() { curl --silent --fail --max-time 10 "http://$prometheus$1"; }

scraped() {
    waiting_for='it has no figures of the gateway yet'
    prometheus '/api/v1/query?query=up%7Bjob%3D%22riva-gateway%22%7D' |
        jq -e '.data.result | length > 0 and all(.value[1] == "1")' >/dev/null
}

test_monitoring() {
    step 'Monitoring'
    if wait_until "${DEPLOY_SCRAPE_LIMIT_S:-60}" Prometheus scraped; then
        made 'Prometheus reads the figures'
    else
        wrong "Prometheus has no figures of the gateway: docker compose logs prometheus"
    fi
    if prometheus '/api/v1/rules?type=alert' | jq -e '[.data.groups[].rules[].name] | index("RivaGatewayDown")' >/dev/null; then
        made 'it knows the alerts'
    else
        wrong 'Prometheus does not know the alerts'
    fi
}

need_docker
[ -r "${opt[file]}" ] || fail "$EXIT_USAGE" "--file '${opt[file]}' cannot be read"
if dry; then
    say "would send ${opt[file]}, and change nothing"
    exit 0
fi
if has_own_certificate; then
    fail "$EXIT_USAGE" "the gateway shows a certificate of yours (TLS_CERT), and this test knows only the gateway's own" \
        "Try it as a client does: riva-gateway transcribe --server https://NAME:8443 ${opt[file]}"
fi
gateway=$(address 8443) prometheus=$(address 9090 prometheus)
in_gateway cat /run/secrets/first-app-key >"$SCRATCH/key" </dev/null ||
    fail "$EXIT_UNAVAILABLE" 'the gateway does not run' 'Start it: riva-210-local-up.sh'
test_doors
test_words
test_monitoring
if ((bad)); then fail "$EXIT_FAILED" 'not all of it works: see above' 'Its log: docker compose logs gateway'; fi
step 'It works.'
