#!/usr/bin/env bash
# The machine: one, found by its tag or started in the first zone that has room, until it takes commands.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"

about 'Starts the machine, or goes on with the one that is there; waits until it takes commands.' \
    'Zones are tried in turn where one has no room. There is never a second machine in a deployment.' \
    'Its id and its address are printed to stdout.'
machine_flags
flag rounds N 3 'how often all zones are tried, a minute apart, before this gives up'
switch protect 'it cannot be destroyed by mistake: riva-190-destroy.sh wants --unprotect then'
parse "$@"
needs aws jq sha256sum

USER_DATA=$'#!/bin/bash\nmkdir -p /var/lib/riva && date -u +%FT%TZ >/var/lib/riva/first-boot\n'

# group PART: the id of a security group of riva-020-network.sh
group() {
    local found
    found=$(awk -F '\t' -v name="riva-${opt[deployment]}-$1" '$1 == name { print $2 }' <<<"$groups")
    if [ -z "$found" ] && dry; then found="<riva-${opt[deployment]}-$1>"; fi
    [ -n "$found" ] ||
        fail "$EXIT_USAGE" "the security groups are not there" "Run riva-020-network.sh --deployment ${opt[deployment]} first."
    printf '%s' "$found"
}

# places: "SUBNET ZONE PUBLIC", a line each: --subnet alone, else those whose zone offers the type, public ones first
places() {
    local vpc zones query='Subnets[].[MapPublicIpOnLaunch,AvailabilityZone,SubnetId]'
    zones=$(zones_of "${opt[type]}")
    if [ -n "${opt[subnet]}" ]; then
        ask ec2 describe-subnets --subnet-ids "${opt[subnet]}" --query "$query"
    else
        vpc=$(cut -f 3 <<<"$groups" | head -n 1)
        ask ec2 describe-subnets --query "$query" --filters \
            "$(if [ -n "$vpc" ]; then echo "Name=vpc-id,Values=$vpc"; else echo Name=default-for-az,Values=true; fi)"
    fi | sort -k 1,1r -k 2 | awk -v zones="$(xargs <<<"$zones")" 'index(" " zones " ", " " $2 " ") { print $3, $2, $1 }'
}

# specification SUBNET: what is asked for, in the words of run-instances; sets $wanted
specification() {
    local name=riva-${opt[deployment]} root
    wanted=(--image-id "$ami" --instance-type "${opt[type]}" --count 1 --subnet-id "$1" --security-group-ids "$gateway" "$nim"
        --iam-instance-profile "Name=$name" --user-data "$USER_DATA"
        --metadata-options 'HttpTokens=required,HttpPutResponseHopLimit=1,HttpEndpoint=enabled'
        --tag-specifications "$(ec2_tags instance "$name")" "$(ec2_tags volume "$name")" "$(ec2_tags network-interface "$name")")
    root=$(jq -cn --arg device "$root_device" --argjson gb "${opt[disk_gb]}" '[{DeviceName: $device,
        Ebs: {VolumeSize: $gb, VolumeType: "gp3", Encrypted: true, DeleteOnTermination: true}}]')
    wanted+=(--block-device-mappings "$root")
    if [ "${opt[spot]}" = yes ]; then
        wanted+=(--instance-initiated-shutdown-behavior terminate
            --instance-market-options 'MarketType=spot,SpotOptions={SpotInstanceType=one-time}')
    else
        wanted+=(--instance-initiated-shutdown-behavior stop)
    fi
    if [ "${opt[protect]}" = yes ]; then wanted+=(--disable-api-termination); fi
}

# start SUBNET ROUND: sets $id; or sets $refused (AWS's code) and returns 1. The same request twice within the hour is one
# machine: its token says what it asks for, so that an answer that got lost on the way back costs nothing.
start() {
    local began=$SECONDS token
    specification "$1"
    token=$(printf '%s\n' "${opt[deployment]}" "$2" "$last" "$(date -u +%F-%H)" "${wanted[@]}" | sha256sum | cut -c 1-48)
    wanted+=(--client-token "$token" --query 'Instances[0].InstanceId' --output text)
    if dry; then
        id=$(placeholder='<instance>' told ec2 run-instances "${wanted[@]}")
        return 0
    fi
    while :; do
        if id=$(aws ec2 run-instances "${wanted[@]}" 2>"$SCRATCH/refusal"); then return 0; fi
        refused=$(error_code "$(<"$SCRATCH/refusal")")
        # A new instance profile is not known everywhere at once, and then for a while without its role.
        if ! grep -qiE 'invalid iam instance profile|no associated iam roles' "$SCRATCH/refusal" || ((SECONDS - began > ${DEPLOY_PROFILE_LIMIT_S:-90})); then return 1; fi
        say 'AWS does not know the new instance profile everywhere yet; asking again'
        sleep "${DEPLOY_POLL_S:-10}"
    done
}

# launch: sets $id
launch() {
    local round subnet zone public
    for ((round = 1; round <= opt[rounds]; round++)); do
        if ((round > 1)); then
            say "no zone has room; all of them again ($round of ${opt[rounds]})"
            sleep "${DEPLOY_POLL_S:-60}"
        fi
        while read -r subnet zone public <&3; do
            if start "$subnet" "$round"; then
                made "machine $id: ${opt[type]}$(if [ "${opt[spot]}" = yes ]; then echo ' (spot)'; fi) in $zone"
                if [ "$public" = False ]; then
                    warn "$subnet gives no public address: its way out has to be a NAT gateway, and VPC endpoints for Systems Manager"
                fi
                return 0
            fi
            explain "$zone"
        done 3<<<"$places"
    done
    fail "$EXIT_UNAVAILABLE" "no zone of $(the_region) has room for ${opt[type]} now ($(cut -d ' ' -f 2 <<<"$places" | xargs))" \
        "That changes by the hour. Run this again later, or take another --type (g5.xlarge, g6.2xlarge), --region, or $(
            if [ "${opt[spot]}" = yes ]; then echo 'no --spot'; else echo '--spot'; fi
        ). Nothing is running."
}

# explain ZONE: what $refused means: returns where another zone may do, else ends the script
explain() {
    case $refused in
    InsufficientInstanceCapacity | InsufficientHostCapacity | InsufficientFreeAddressesInSubnet | Unsupported | \
        SpotMaxPriceTooLow | InsufficientCapacity)
        warn "$1: $refused"
        ;;
    VcpuLimitExceeded | MaxSpotInstanceCountExceeded | InstanceLimitExceeded)
        fail "$EXIT_USAGE" "the account may not run so many machines of this kind ($refused)" \
            "riva-010-preflight.sh says how to ask AWS for more; stopping others of the kind helps, too."
        ;;
    UnauthorizedOperation | AccessDenied | AuthFailure)
        fail "$EXIT_USAGE" "these credentials may not start machines ($refused)" "They need ec2:RunInstances, ec2:CreateTags and iam:PassRole."
        ;;
    PendingVerification | RequestLimitExceeded | InternalError | InternalFailure | Unavailable | ServiceUnavailable)
        fail "$EXIT_UNAVAILABLE" "AWS does not start machines for this account just now ($refused)" \
            "$(tail -n 1 "$SCRATCH/refusal")" "Run this again later: a new account is looked at for some hours, the rest are minutes."
        ;;
    *) fail "$EXIT_FAILED" "AWS did not start the machine" "$(tail -n 1 "$SCRATCH/refusal")" "Run this again when that is put right." ;;
    esac
}

# take_up: the machine that is there, whatever it is doing; a stopped one starts again
take_up() {
    local there state type
    there=$(describe "$id")
    state=$(field "$there" State.Name) type=$(field "$there" InstanceType)
    kept "machine $id ($state)"
    if [ "$type" != "${opt[type]}" ]; then warn "it is a $type, not a ${opt[type]}; riva-190-destroy.sh first would change that"; fi
    case $state in stopping | stopped) start_again "$id" ;; esac
}

[[ ${opt[disk_gb]} =~ ^[1-9][0-9]{1,4}$ ]] || fail "$EXIT_USAGE" "--disk-gb '${opt[disk_gb]}' is not a whole number of GB"
[[ ${opt[rounds]} =~ ^[1-9][0-9]?$ ]] || fail "$EXIT_USAGE" "--rounds '${opt[rounds]}' is not a number from 1 to 99"
if [ "${opt[spot]}${opt[protect]}" = yesyes ]; then fail "$EXIT_USAGE" "--protect is not for --spot: AWS knows no such protection there"; fi
checked

step 'Machine'
account >/dev/null
id=$(instance)
if [ -n "$id" ]; then
    take_up
else
    groups=$(ask ec2 describe-security-groups --filters "$(mine)" "$MADE_HERE" --query 'SecurityGroups[].[GroupName,GroupId,VpcId]')
    gateway=$(group gateway)
    nim=$(group nim)
    places=$(places)
    ami=$(image)
    last=$(instance terminated,shutting-down) # a token is spent with its machine
    [ -n "$places" ] || fail "$EXIT_USAGE" "no subnet lies in a zone that offers ${opt[type]}" "Name one (--subnet), or take another --type."
    root_device=$(ask ec2 describe-images --image-ids "$ami" --query 'Images[0].RootDeviceName')
    [ -n "$root_device" ] || fail "$EXIT_USAGE" "the machine image '$ami' is not to be had here" "Name another one: --ami ami-…"
    launch
fi
wait_online "$id"
if dry; then exit 0; fi
address=$(address_of "$(describe "$id")")
made "it runs and takes commands: $address"
printf '%s\t%s\n' "$id" "$address"
