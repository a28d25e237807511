#!/usr/bin/env bash
# The logs of recognizer and gateway, through Systems Manager; what the machine printed while booting, without it.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"

about 'Shows the log of the recognizer or the gateway, and goes on with --follow until Ctrl-C.' \
    'Where the agent of the machine does not answer, what the machine printed while booting is shown instead.'
flag unit NAME gateway 'gateway or nim, or the name of another unit'
flag lines N 100 'how many lines, the last ones'
flag since WHEN '' 'not before: "10 min ago", "2027-01-31 18:00"'
switch follow 'go on with what comes'
switch console 'what the machine printed while booting'
parse "$@"
needs aws jq

case ${opt[unit]} in gateway | nim) unit=riva-${opt[unit]} ;; *) unit=${opt[unit]} ;; esac
[[ $unit =~ ^[A-Za-z0-9@._-]{1,100}$ ]] || fail "$EXIT_USAGE" "--unit '$unit' cannot be the name of a unit"
[[ ${opt[lines]} =~ ^[1-9][0-9]{0,3}$ ]] || fail "$EXIT_USAGE" "--lines '${opt[lines]}' is not a number from 1 to 9999"
[[ ${opt[since]} =~ ^[A-Za-z0-9\ :.+-]*$ ]] || fail "$EXIT_USAGE" "--since '${opt[since]}' is not a time"

console() {
    local text
    # What it prints now: without --latest AWS keeps what was there at the last start or stop.
    text=$(ask ec2 get-console-output --instance-id "$id" --latest --query Output 2>/dev/null) ||
        text=$(ask ec2 get-console-output --instance-id "$id" --query Output)
    if [ -z "$text" ]; then say 'AWS has nothing yet; it takes some minutes after a start'; fi
    printf '%s\n' "$text" | printable
}

# piece CURSOR: prints what comes after it, and sets $cursor, and $more where that was not all yet
piece() {
    local said
    said=$(far journal.sh 60 DEPLOYMENT="${opt[deployment]}" REGION="$(the_region)" UNIT="$unit" LINES_WANTED="${opt[lines]}" \
        SINCE="${opt[since]}" AFTER="$1")
    grep -vE '^(cursor|more)=' <<<"$said" || true
    more=$(sed -n 's/^more=//p' <<<"$said")
    cursor=$(sed -n 's/^cursor=//p' <<<"$said" | tail -n 1)
}

account >/dev/null
id=$(the_instance)
if is_new "$id"; then exit 0; fi
if [ "${opt[console]}" = yes ]; then
    console
    exit 0
fi
if ! agent_online "$id"; then
    warn "the machine $id takes no commands ($waiting_for); this is what it printed while booting"
    console
    exit "$EXIT_UNAVAILABLE"
fi
far_instance=$id
piece ''
if dry; then exit 0; fi
while [ "${opt[follow]}" = yes ]; do
    if [ -z "$more" ]; then sleep "${DEPLOY_POLL_S:-3}"; fi
    last=$cursor
    piece "$last"
    cursor=${cursor:-$last}
done
