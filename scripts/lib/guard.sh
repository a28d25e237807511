# shellcheck shell=bash disable=SC2154 # opt, region: deploy.sh and the scripts
# The nightly stop: an EventBridge schedule that calls ec2:StopInstances. Sourced after role.sh.
SCHEDULE=nightly-stop

# nightly_stop: what is scheduled, as JSON; nothing where nothing is
nightly_stop() { look ResourceNotFoundException scheduler get-schedule --group-name "riva-${opt[deployment]}" --name "$SCHEDULE"; }

# nightly_words TEXT: what scheduled gives, for people
nightly_words() {
    if [[ $1 =~ ^cron\(([0-9]+)\ ([0-9]+)\ \*\ \*\ \?\ \*\)\ (.*)$ ]]; then
        printf 'every day at %02d:%02d, %s' "${BASH_REMATCH[2]}" "${BASH_REMATCH[1]}" "${BASH_REMATCH[3]}"
    else
        printf '%s' "$1"
    fi
}

# scheduled JSON: its times as AWS writes them, and their time zone
scheduled() {
    jq -r '"\(.ScheduleExpression) \(.ScheduleExpressionTimezone // "UTC")"' <<<"$1"
}

# stops JSON ID: whether the schedule is for that machine
stops() { [ "$(jq -r '.Target.Input | fromjson | .InstanceIds[0]' <<<"$1")" = "$2" ]; }
