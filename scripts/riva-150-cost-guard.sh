#!/usr/bin/env bash
# Guards against the bill of a machine that somebody has forgotten: a nightly stop, and a limit of hours.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"
. "$LIB/role.sh"
. "$LIB/guard.sh"

about 'Stops the machine every night, or some hours after each start; without flags, says what is active.' \
    'The nightly stop is a schedule of AWS, and works whatever the machine does. --max-hours is a timer on the machine.' \
    'Both only stop: riva-130-start.sh starts it again, with all that was on its disk.'
flag stop-at WHEN '' "20:00 for every day, or six fields as in '0 20 ? * MON-FRI *' (minute hour day month weekday year)"
zone=${TZ:-UTC}
[[ $zone =~ ^[A-Z][A-Za-z_]+(/[A-Za-z0-9_/+-]+)?$ ]] || zone=UTC # TZ may hold more than a name, as :/etc/localtime
flag timezone ZONE "$zone" 'of --stop-at, as in Europe/Berlin'
flag max-hours N '' 'the machine shuts itself down so many hours after each start'
switch off 'no guards any more'
parse "$@"
needs aws jq

name=riva-${opt[deployment]}

# expression: --stop-at as a schedule of AWS
expression() {
    if [[ ${opt[stop_at]} =~ ^([01]?[0-9]|2[0-3]):([0-5][0-9])$ ]]; then
        printf 'cron(%d %d * * ? *)' "$((10#${BASH_REMATCH[2]}))" "$((10#${BASH_REMATCH[1]}))"
    elif [[ ${opt[stop_at]} =~ ^[0-9A-Z,\*/?L#W-]+(\ [0-9A-Z,\*/?L#W-]+){5}$ ]]; then
        printf 'cron(%s)' "${opt[stop_at]}"
    else
        fail "$EXIT_USAGE" "--stop-at '${opt[stop_at]}' is not a time" "Write 20:00, or six fields: '0 20 ? * MON-FRI *'"
    fi
}

# stopper: the role that the schedule takes; it may stop this deployment's machine, and nothing else
stopper() {
    local policy there
    policy=$(jq -cn --arg d "${opt[deployment]}" --arg arn "arn:$partition:ec2:$region:$account:instance/*" '{Version: "2012-10-17",
        Statement: [{Effect: "Allow", Action: "ec2:StopInstances", Resource: $arn,
                     Condition: {StringEquals: {"aws:ResourceTag/riva:deployment": $d}}}]}')
    there=$(look NoSuchEntity iam get-role --role-name "$name-scheduler")
    if [ -z "$there" ]; then
        # shellcheck disable=SC2046 # words
        told_or '' iam create-role --role-name "$name-scheduler" --description "riva-gateway: stops the machine of '${opt[deployment]}'" \
            --assume-role-policy-document "$(trust scheduler | jq -c --arg account "$account" \
                '.Statement[0].Condition = {StringEquals: {"aws:SourceAccount": $account}}')" --tags $(tags) "Key=riva:region,Value=$region"
        made "role $name-scheduler"
    else
        check_role "$name-scheduler" "$there"
    fi
    there=$(look NoSuchEntity iam get-role-policy --role-name "$name-scheduler" --policy-name stop)
    if ! same "$(jq -c '.PolicyDocument // empty' <<<"$there")" "$policy"; then
        told_or '' iam put-role-policy --role-name "$name-scheduler" --policy-name stop --policy-document "$policy"
    fi
}

# former_group_is_gone: for wait_until: AWS takes a group away with all that is in it, and needs a while
former_group_is_gone() {
    local there
    there=$(look ResourceNotFoundException scheduler get-schedule-group --name "$name") || return
    waiting_for='the former one is on its way out'
    [ "$(jq -r .State <<<"${there:-{\}}")" != DELETING ]
}

# schedule VERB: create-schedule or update-schedule; for wait_until: a new role is not known everywhere at once
schedule() {
    local err status=0
    err=$(told_or '' scheduler "$1" --name "$SCHEDULE" --group-name "$name" --schedule-expression "$expression" \
        --schedule-expression-timezone "${opt[timezone]}" --flexible-time-window Mode=OFF --target "$target" 2>&1) || status=$?
    if dry; then printf '%s\n' "$err" >&2; fi
    if ((status == 0)); then return 0; fi
    waiting_for=$(tail -n 1 <<<"$err")
    [[ $err == *role* ]] || fail "$EXIT_USAGE" "AWS does not take this schedule" "$waiting_for" "See --stop-at and --timezone."
    return 1
}

set_nightly_stop() {
    local id there role
    id=$(the_instance)
    if [ "$(field "$(is_new "$id" && echo '{}' || describe "$id")" InstanceLifecycle)" = spot ]; then
        fail "$EXIT_USAGE" "the machine $id is on spot capacity, which cannot be stopped" "--max-hours ends it instead."
    fi
    stopper
    dry || wait_until "${DEPLOY_DELETE_LIMIT_S:-300}" 'the schedule' former_group_is_gone ||
        fail "$EXIT_UNAVAILABLE" 'AWS has not taken away the former schedule yet' 'Run this again.'
    if [ -z "$(look ResourceNotFoundException scheduler get-schedule-group --name "$name")" ]; then
        # shellcheck disable=SC2046 # words
        told_or ConflictException scheduler create-schedule-group --name "$name" --tags $(tags)
    fi
    role=arn:$partition:iam::$account:role/$name-scheduler
    # Unless told, AWS goes on trying for a day, and would stop it in the morning.
    target=$(jq -cn --arg id "$id" --arg role "$role" --arg arn "arn:$partition:scheduler:::aws-sdk:ec2:stopInstances" \
        '{Arn: $arn, RoleArn: $role, Input: ({InstanceIds: [$id]} | tojson),
          RetryPolicy: {MaximumEventAgeInSeconds: 3600, MaximumRetryAttempts: 20}}')
    there=$(nightly_stop)
    if [ -n "$there" ] && [ "$(scheduled "$there")" = "$expression ${opt[timezone]}" ] && stops "$there" "$id"; then
        return 0
    fi
    if dry; then schedule create-schedule; fi
    wait_until "${DEPLOY_ROLE_LIMIT_S:-60}" 'the schedule' schedule "$(if [ -n "$there" ]; then echo update; else echo create; fi)-schedule" ||
        fail "$EXIT_UNAVAILABLE" 'AWS does not know the new role yet' "$waiting_for" 'Run this again.'
    made "the machine $id stops $(nightly_words "$expression ${opt[timezone]}")"
}

set_max_hours() {
    far_instance=$(the_instance running)
    far max-hours.sh 60 DEPLOYMENT="${opt[deployment]}" REGION="$region" HOURS="$1" >/dev/null
    tag_instance "$far_instance" riva:max-hours "$(if [ "$1" != 0 ]; then echo "$1"; fi)"
    if [ "$1" != 0 ]; then made "the machine shuts itself down $1 hours after each start"; fi
}

turn_off() {
    local id role
    id=$(instance)
    if [ -n "$id" ] && [ -n "$(instance_tag "$id" riva:max-hours)" ]; then
        instance running | grep -q . || fail "$EXIT_UNAVAILABLE" "the timer is on the machine $id, which does not run" "Start it (riva-130-start.sh), then run this again."
        set_max_hours 0
    fi
    if [ -n "$(look ResourceNotFoundException scheduler get-schedule-group --name "$name")" ]; then
        told_or ResourceNotFoundException scheduler delete-schedule-group --name "$name" # with what is in it
    fi
    role=$(look NoSuchEntity iam get-role --role-name "$name-scheduler")
    if [ -n "$role" ] && is_ours "$(jq -c '.Role.Tags // []' <<<"$role")"; then # it may be another region's
        told_or NoSuchEntity iam delete-role-policy --role-name "$name-scheduler" --policy-name stop
        told_or NoSuchEntity iam delete-role --role-name "$name-scheduler"
    fi
    made 'no guards any more'
}

show() {
    local id there hours price
    step "Guards of ${opt[deployment]}"
    id=$(instance)
    there=$(nightly_stop)
    if [ -n "$there" ]; then kept "stops $(nightly_words "$(scheduled "$there")")"; else kept 'no nightly stop'; fi
    if [ -n "$there" ] && [ -n "$id" ] && ! stops "$there" "$id"; then warn "it stops another machine than $id: run this again with --stop-at"; fi
    hours=$(if [ -n "$id" ]; then instance_tag "$id" riva:max-hours; fi)
    if [ -n "$hours" ]; then kept "stops $hours hours after each start"; else kept 'no limit of hours'; fi
    price=$(if [ -n "$id" ]; then price_of "$(field "$(describe "$id")" InstanceType)"; fi)
    if [ -n "$price" ]; then
        say "ten hours on working days cost about \$$(times "$price" 10 22) a month, day and night \$$(times "$price" "$HOURS_PER_MONTH"):" \
            "\$$(times "$price" $((HOURS_PER_MONTH - 220))) less"
    fi
}

[[ ${opt[max_hours]} =~ ^([1-9][0-9]{0,2})?$ ]] || fail "$EXIT_USAGE" "--max-hours '${opt[max_hours]}' is not a number from 1 to 999"
[[ ${opt[timezone]} =~ ^[A-Za-z0-9_/+-]{1,50}$ ]] || fail "$EXIT_USAGE" "--timezone '${opt[timezone]}' is not a time zone" "Write Europe/Berlin"
if [ "${opt[off]}" = yes ] && [ -n "${opt[stop_at]}${opt[max_hours]}" ]; then fail "$EXIT_USAGE" '--off goes alone'; fi
expression=''
if [ -n "${opt[stop_at]}" ]; then expression=$(expression); fi
checked
account=$(account)
region=$(the_region)
partition=$(partition)
if [ "${opt[off]}" = yes ]; then turn_off; fi
if [ -n "$expression" ]; then set_nightly_stop; fi
if [ -n "${opt[max_hours]}" ]; then set_max_hours "${opt[max_hours]}"; fi
show
