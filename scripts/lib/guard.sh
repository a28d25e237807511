# shellcheck shell=bash disable=SC2154 # opt, region: deploy.sh and the scripts
# The nightly stop: an EventBridge schedule that calls ec2:StopInstances. Sourced after role.sh.
SCHEDULE=nightly-stop

# nightly_stop: what is scheduled, as JSON; nothing where nothing is
nightly_stop() { look ResourceNotFoundException scheduler get-schedule --group-name "riva-${opt[deployment]}" --name "$SCHEDULE"; }

# scheduled JSON: for people
scheduled() {
    jq -r '"\(.ScheduleExpression) \(.ScheduleExpressionTimezone // "UTC")"' <<<"$1"
}

# stops JSON ID: whether the schedule is for that machine
stops() { [ "$(jq -r '.Target.Input | fromjson | .InstanceIds[0]' <<<"$1")" = "$2" ]; }
