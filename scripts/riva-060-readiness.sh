#!/usr/bin/env bash
# Whether the recognizer can be asked: not whether a container runs, but whether it gives words.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/release.sh"

about 'Waits until the recognizer gives words for a recording, and says meanwhile how far it has come.' \
    'In order: its service, its container, its own word that it is ready, its models, words. One that ends again and' \
    'again is told at once. While it loads, the gateway is installed beside it: its commands ask the questions.' \
    'The words are printed to stdout.'
flag minutes N 40 'how long to wait for the recognizer; the first start loads and builds its model'
switch trial 'do not make it the one to go back to'
parse "$@"
needs aws jq
[[ ${opt[minutes]} =~ ^[1-9][0-9]{0,3}$ ]] || fail "$EXIT_USAGE" "--minutes '${opt[minutes]}' is not a whole number"
checked
LIMIT_S=${DEPLOY_READY_LIMIT_S:-$((opt[minutes] * 60))}

# probe: for wait_until. The script ends where it will not come by itself.
probe() {
    local status=0 waited_min=$(((SECONDS - began) / 60))
    far_answers probe.sh 180 "DEPLOYMENT=${opt[deployment]}" "REGION=$(the_region)" "RELEASE=$release" \
        "WAIT_S=$((LIMIT_S < 20 ? LIMIT_S : 20))" "POLL_S=${DEPLOY_POLL_S:-2}" "SEEN=$step" || status=$?
    case $status in
    0) return 0 ;;
    "$EXIT_UNAVAILABLE")
        step=${answer[waiting]:-its machine takes no commands}
        waiting_for=$step
        if ((waited_min > 0)); then waiting_for+=", for $waited_min min so far"; fi # so that every minute has its line
        return 1
        ;;
    *) exit "$status" ;;
    esac
}

far_instance=$(the_instance running)
step 'Readiness of the recognizer'
release=$(if is_new "$far_instance"; then :; else instance_tag "$far_instance" riva:gateway-release; fi)
# It becomes a part of a path there, and whoever may set tags must not choose what runs.
if [[ ! $release =~ ^[0-9a-f]{64}$ ]]; then install_release; fi
began=$SECONDS step=''
wait_until "$LIMIT_S" 'the recognizer' probe ||
    fail "$EXIT_UNAVAILABLE" "the recognizer is not ready after $(minutes "$LIMIT_S"): $waiting_for" \
        "It goes on by itself. Wait longer: ${0##*/} --deployment ${opt[deployment]}; what it says meanwhile: riva-110-logs.sh"
if dry; then exit 0; fi
heard=${answer[words]% }
made "models: ${answer[models]}"
made "words: $heard"
if [ "${opt[trial]}" = no ]; then mark nim; fi
printf '%s\n' "$heard"
