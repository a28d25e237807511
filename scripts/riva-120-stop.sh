#!/usr/bin/env bash
# Stops the machine: it costs nothing but its disk until it is started again.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"

about 'Stops the machine, and waits until it has. riva-130-start.sh starts it again.' \
    'The disk with image, model and settings stays, and is all that is paid for then. The public address is given back.'
parse "$@"
needs aws jq

step 'Stop'
account >/dev/null
id=$(the_instance)
if is_new "$id"; then exit 0; fi
there=$(describe "$id")
if [ "$(field "$there" InstanceLifecycle)" = spot ]; then
    fail "$EXIT_USAGE" "the machine $id is on spot capacity, which cannot be stopped, only given back" \
        "riva-190-destroy.sh takes the deployment away; riva-000-up.sh makes it anew."
fi
case $(field "$there" State.Name) in
stopped)
    kept "the machine $id is stopped"
    exit 0
    ;;
pending) wait_until "${DEPLOY_RUNNING_LIMIT_S:-300}" "the machine $id" in_state "$id" running || true ;;
esac
told_or '' ec2 stop-instances --instance-ids "$id"
wait_until "${DEPLOY_STOPPED_LIMIT_S:-600}" "the machine $id" in_state "$id" stopped ||
    fail "$EXIT_UNAVAILABLE" "the machine $id has not stopped yet ($waiting_for)" "Run this again to go on waiting."
made "the machine $id is stopped; its disk goes on costing"
next_step 'Start it again:' "$(command_for riva-130-start.sh)"
