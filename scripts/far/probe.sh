# shellcheck shell=bash disable=SC2154 # the settings stand in front
# How far the recognizer has come. Looks for up to WAIT_S seconds, and ends sooner when it is ready, when it will never
# be, or when it has come a step further than the one named in SEEN. Changes nothing.
#
# Status 0: ready, with `words` and `models`. 3: not yet, `waiting` says for what. 1: it will not be by itself.
#
# Settings: WAIT_S POLL_S SEEN RELEASE (whose riva-gateway asks it)
LOOPING=3 # restarts by systemd that are no accident any more

# shellcheck disable=SC1091
. "$NIM_ETC/nim.env" 2>/dev/null ||
    die "$EXIT_USAGE" 'there is no recognizer on this machine' 'Put one there: riva-050-deploy-nim.sh'
gateway=$APP/releases/$RELEASE/.venv/bin/riva-gateway
clip=$APP/releases/$RELEASE/tests/fixtures/greeting.wav

# Each says in $waiting what is missing.
unit_is_active() {
    local restarts
    restarts=$(systemctl show --property=NRestarts --value riva-nim)
    if ((${restarts:-0} >= LOOPING)); then
        say 'the end of its log:'
        last_lines riva-nim 15
        die "$EXIT_FAILED" "the recognizer ends again and again, $restarts times so far" \
            'A profile or selector that does not fit this GPU ends it at once, and so does a key that NVIDIA does not accept.' \
            'The whole log: riva-110-logs.sh. Another recognizer: riva-050-deploy-nim.sh --profile …'
    fi
    waiting="its unit is $(systemctl show --property=ActiveState --value riva-nim)"
    systemctl is-active --quiet riva-nim
}
container_is_up() {
    waiting='its container is not up'
    [ "$(docker inspect --format '{{.State.Running}}' riva-nim 2>/dev/null)" = true ]
}
http_says_ready() {
    local answer
    waiting='it loads its model'
    if [ "$KIND" = classic ]; then return 0; fi
    answer=$(curl -sf -m 5 http://127.0.0.1:9000/v1/health/ready) || return 1
    # Versions differ: {"ready":true} and {"status":"ready"}.
    [[ ${answer//[[:space:]]/} =~ \"ready\":true|\"status\":\"ready\" ]]
}
lists_models() {
    waiting='it lists no model'
    models=$(timeout 30 "$gateway" models --server localhost:50051 2>/dev/null | cut -f 1 | paste -sd ' ') && [ -n "$models" ]
}
# A stream, or a file where it takes no streams.
hears_words() {
    waiting='it gives no words for a recording'
    words=$(timeout 60 "$gateway" transcribe "$clip" --server localhost:50051 2>"$scratch/said") && [ -n "$words" ] && return 0
    waiting+=": $(tail -n 1 "$scratch/said" | cut -c 1-200)"
    return 1
}
ready() { unit_is_active && container_is_up && http_says_ready && lists_models && hears_words; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
until ready; do
    if ((SECONDS >= WAIT_S)) || [ "$waiting" != "${SEEN:-}" ]; then
        answer waiting "$waiting"
        exit "$EXIT_UNAVAILABLE"
    fi
    sleep "${POLL_S:-2}"
done
answer models "$models"
answer words "$(tr '\n' ' ' <<<"$words")"
