# shellcheck shell=bash disable=SC2154 # opt, SCRATCH, far_instance: deploy.sh and the scripts
# Work on the far machine, through AWS Systems Manager: no SSH, no open port, no key. Sourced by deploy.sh.
#
# What runs there is a file of scripts/far/, shipped whole, with scripts/far/common.sh in front of it and its settings
# as quoted assignments before that. Nothing secret may be among them: commands and their output stay in SSM's history.

# far NAME.sh LIMIT_S [KEY=VALUE…]: runs scripts/far/NAME.sh on $far_instance. Its stdout is ours; its stderr goes to
# stderr. Returns its exit status; ends in EXIT_UNAVAILABLE where it could not be run at all or ran past LIMIT_S.
far() {
    local name=$1 limit_s=$2 script parameters
    shift 2
    script=$(far_script "$name" "$@")
    if dry; then
        folded 6 '' "  would run on ${far_instance:-<instance>}: far/$name" "$@" >&2
        return 0
    fi
    parameters=$(jq -cn --arg script "$script" --arg limit "$limit_s" '{commands: [$script], executionTimeout: [$limit]}')
    send "$far_instance" "$name" "$limit_s" "$parameters"
}

# far_answers NAME.sh LIMIT_S [KEY=VALUE…]: like far; what it answers, NAME=VALUE a line, is in ${answer[NAME]} then
declare -A answer=()
far_answers() {
    local line out status=0
    answer=()
    out=$(far "$@") || status=$?
    while IFS= read -r line; do
        if [[ $line =~ ^[a-z_]+= ]]; then answer[${line%%=*}]=${line#*=}; fi
    done <<<"$out"
    return "$status"
}

# far_script NAME.sh [KEY=VALUE…]: what is shipped. KEY@=FILE is the text of scripts/far/FILE. The mark is in the name:
# values may come from the machine or from a tag, and must not be able to name files of ours.
far_script() {
    local name=$1 pair key value
    shift
    printf '#!/bin/bash\n'
    for pair in "$@"; do
        key=${pair%%=*} value=${pair#*=}
        if [[ $key == *@ ]]; then key=${key%@} value=$(<"$LIB/../far/$value"); fi
        printf '%s=%q\n' "$key" "$value"
    done
    cat "$LIB/../far/common.sh" "$LIB/../far/$name"
}

# send INSTANCE NAME LIMIT_S PARAMETERS. For some minutes after a stop and a start AWS still says "Online" of the agent
# that was, so that the first command has to wait for the one that comes.
DELIVERY_LIMIT_S=300
send() {
    local id=$1 name=$2 limit_s=$3 command answer began=$SECONDS told=$SECONDS heard=$SECONDS
    printf '%s' "$4" >"$SCRATCH/parameters.json" # an argument may not be that long
    command=$(aws ssm send-command --instance-ids "$id" --document-name AWS-RunShellScript \
        --comment "${opt[deployment]}: $name" --timeout-seconds "$DELIVERY_LIMIT_S" --parameters "file://$SCRATCH/parameters.json" \
        --query Command.CommandId --output text) ||
        fail "$EXIT_UNAVAILABLE" "the machine $id takes no commands" "Its agent may be late; see riva-100-status.sh. Then run this again."
    while :; do
        if answer=$(aws ssm get-command-invocation --command-id "$command" --instance-id "$id" --output json 2>"$SCRATCH/invocation"); then
            heard=$SECONDS
        else
            answer='{}' # it is not listed at once; but a login that has run out does not come back
            ((SECONDS - heard < 60)) ||
                fail "$EXIT_UNAVAILABLE" "far/$name is at work on $id, but AWS no longer says how it goes" "$(tail -n 1 "$SCRATCH/invocation")" \
                    "It goes on there by itself. Run this again when that is put right."
        fi
        # "Failed" is also what never reached the machine; it has no exit status of its own then.
        case $(jq -r 'if .Status == "Failed" and (.ResponseCode // -1) < 0 then "NotRun" else .Status // "Pending" end' <<<"$answer") in
        Success | Failed) break ;;
        TimedOut | Cancelled | NotRun)
            jq -r '.StandardErrorContent // empty' <<<"$answer" | printable >&2
            fail "$EXIT_UNAVAILABLE" "far/$name did not run to its end on $id: $(jq -r '.StatusDetails // .Status' <<<"$answer")" \
                "It had $(minutes "$limit_s"). What it did is kept; run this again." \
                "How the machine is: riva-100-status.sh. Its output: aws ssm get-command-invocation --command-id $command --instance-id $id"
            ;;
        esac
        if ((SECONDS - began > limit_s + DELIVERY_LIMIT_S + 30)); then
            fail "$EXIT_UNAVAILABLE" "far/$name has not ended on $id within $(minutes "$limit_s")" \
                "Its output: aws ssm get-command-invocation --command-id $command --instance-id $id"
        fi
        if ((SECONDS - told >= 60)); then
            say "it is at work ($(minutes $((SECONDS - began))))"
            told=$SECONDS
        fi
        sleep "${DEPLOY_POLL_S:-3}"
    done
    # AWS's agent adds a line of its own below what a script said before it failed.
    jq -j '.StandardErrorContent // "" | sub("failed to run commands: exit status [0-9]+\\s*$"; "")' <<<"$answer" | printable >&2
    jq -j '.StandardOutputContent // empty' <<<"$answer" | printable
    return "$(jq -r '.ResponseCode // 1' <<<"$answer")"
}

# printable: without what would steer a terminal: the text comes from another machine
printable() { LC_ALL=C tr -d '\000-\010\013-\037\177'; }

# agent_online INSTANCE: Systems Manager has heard from it
agent_online() {
    local status
    status=$(ask ssm describe-instance-information --filters "Key=InstanceIds,Values=$1" \
        --query 'InstanceInformationList[0].PingStatus' 2>"$SCRATCH/agent") || status=''
    # shellcheck disable=SC2034 # wait_until shows it
    waiting_for="its agent is ${status:-not there yet}"
    # That error says that it has not registered yet; others are for people.
    if [ -s "$SCRATCH/agent" ] && ! grep -q InvalidInstanceId "$SCRATCH/agent"; then waiting_for+="; $(tail -n 1 "$SCRATCH/agent")"; fi
    [ "$status" = Online ]
}
