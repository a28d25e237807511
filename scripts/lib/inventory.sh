# shellcheck shell=bash disable=SC2154 # opt: deploy.sh and the scripts
# What there is of a deployment, asked from AWS: by tag where things have tags, by name where they do not. The same list
# says what will be destroyed, and proves afterwards that it is. Sourced after role.sh and machine.sh.

# inventory: "KIND ID DETAIL", a line each, tabs between. Kinds: schedule, instance, elastic-ip, volume, interface, group,
# profile, role, secret, parameter, bucket; other: what carries the tag and is another script's.
inventory() {
    local d=${opt[deployment]} rows
    rows=$(schedules "$d" &&
        listed instance ec2 describe-instances --filters "$(mine)" "$MADE_HERE" \
            Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down \
            --query 'Reservations[].Instances[].[InstanceId,InstanceType,State.Name]' &&
        listed elastic-ip ec2 describe-addresses --filters "$(mine)" "$MADE_HERE" --query 'Addresses[].[AllocationId,PublicIp]' &&
        listed volume ec2 describe-volumes --filters "$(mine)" "$MADE_HERE" --query 'Volumes[].[VolumeId,Size]' &&
        listed interface ec2 describe-network-interfaces --filters "$(mine)" "$MADE_HERE" --query 'NetworkInterfaces[].[NetworkInterfaceId,Status]' &&
        listed group ec2 describe-security-groups --filters "$(mine)" "$MADE_HERE" --query 'reverse(sort_by(SecurityGroups,&GroupName))[].[GroupId,GroupName]' &&
        roles "$d" &&
        secrets "$d" &&
        listed parameter ssm describe-parameters --parameter-filters "Key=Name,Option=Equals,Values=/riva/$d/gateway-certificate" \
            --query 'Parameters[].[Name]' &&
        buckets "$d" && others) || return
    if [ -n "$rows" ]; then printf '%s\n' "$rows"; fi
}

# listed KIND ARGUMENTS…: a line for each thing that AWS answers with
listed() {
    local kind=$1 rows
    shift
    rows=$(ask "$@") || return
    if [ -n "$rows" ]; then awk -v kind="$kind" '{ print kind "\t" $0 }' <<<"$rows"; fi
}

schedules() {
    local there
    there=$(look ResourceNotFoundException scheduler get-schedule-group --name "riva-$1") || return
    if [ -n "$there" ] && [ "$(jq -r .State <<<"$there")" != DELETING ]; then printf 'schedule\triva-%s\n' "$1"; fi
}

# Roles are the account's: one of another region's deployment of this name is not ours.
roles() {
    local name there
    for name in "riva-$1" "riva-$1-scheduler"; do
        there=$(look NoSuchEntity iam get-role --role-name "$name") || return
        if [ -n "$there" ] && is_ours "$(jq -c '.Role.Tags // []' <<<"$there")"; then printf 'role\t%s\n' "$name"; fi
    done
    there=$(look NoSuchEntity iam get-instance-profile --instance-profile-name "riva-$1") || return
    if [ -n "$there" ] && is_ours "$(jq -c '.InstanceProfile.Tags // []' <<<"$there")"; then printf 'profile\triva-%s\n' "$1"; fi
}

# Those with the tag; one that somebody else keeps under such a name is theirs. The NGC key stays while SageMaker's
# endpoint of this deployment reads it, too: as long as there is its role, in this region.
secrets() {
    local role needed='' name there
    role=$(look NoSuchEntity iam get-role --role-name "riva-$1-sagemaker") || return
    if [ -n "$role" ] && is_ours "$(jq -c '.Role.Tags // []' <<<"$role")"; then needed=riva-$1/ngc; fi
    for name in ngc gateway-key; do # by name: AWS's list of secrets is minutes behind
        there=$(look ResourceNotFoundException secretsmanager describe-secret --secret-id "riva-$1/$name") || return
        jq -r --arg d "$1" --arg needed "$needed" 'select((.Tags // [] | from_entries)["riva:deployment"] == $d and .DeletedDate == null) |
            .Name | select(. != $needed) | "secret\t\(.)"' <<<"${there:-{\}}"
    done
}

buckets() {
    local name=riva-$1-$account-$region there
    there=$(look NoSuchBucket s3api get-bucket-location --bucket "$name" --expected-bucket-owner "$account") || return
    if [ -n "$there" ] && bucket_is_ours "$name"; then printf 'bucket\t%s\n' "$name"; fi
}

# Deleted things stay in this index for minutes; kinds that were asked for by themselves above are left out.
others() {
    local arns
    arns=$(ask resourcegroupstaggingapi get-resources --tag-filters "Key=riva:deployment,Values=${opt[deployment]}" \
        --query 'ResourceTagMappingList[].ResourceARN') || return
    tr '\t' '\n' <<<"$arns" | sed -E '/^$/d; /:ec2:[^:]*:[^:]*:(instance|volume|security-group|security-group-rule|network-interface|elastic-ip|spot-instances-request)\//d
        /:(secretsmanager|s3|ssm|scheduler|iam):/d; s/^/other'$'\t''/'
}

# nothing_here ROLE WHERE [BUT [FILTERS…]]: says that there is nothing of this deployment, and where it may be instead: roles
# are the account's, and this deployment's names its region, where the script ends with 2. Else which others are there.
nothing_here() {
    local none="there is nothing of '${opt[deployment]}' $2" role elsewhere others
    role=$(look NoSuchEntity iam get-role --role-name "$1")
    elsewhere=$(jq -r --arg d "${opt[deployment]}" --arg here "$region" '.Role.Tags // [] | from_entries |
        select(.["riva:by"] == "riva-gateway" and .["riva:deployment"] == $d) | .["riva:region"] // empty | select(. != $here)' <<<"$role")
    if [ -n "$elsewhere" ]; then fail "$EXIT_USAGE" "$none; it is in $elsewhere" "Say --region $elsewhere."; fi
    kept "$none${3:-}"
    others=$(ask resourcegroupstaggingapi get-resources "${@:4}" --tag-filters Key=riva:by,Values=riva-gateway \
        --query "ResourceTagMappingList[].Tags[?Key=='riva:deployment'].Value[]") || return 0
    others=$(tr '\t' '\n' <<<"$others" | sort -u | grep -vx -e '' -e "${opt[deployment]}" | xargs) || return 0
    say "other deployments there: $others"
}

# of_kind KIND LIST: the ids of that kind, a line each
of_kind() { awk -F '\t' -v kind="$1" '$1 == kind { print $2 }' <<<"$2"; }

# in_words LIST: for people
in_words() { awk -F '\t' '{ printf "%-10s %s%s%s\n", $1, $2, (NF > 2 ? "  " $3 : ""), (NF > 3 ? " " $4 : "") }' <<<"$1"; }
