# shellcheck shell=bash disable=SC2154 # opt: deploy.sh and the scripts
# What there is of a deployment, asked from AWS: by tag where things have tags, by name where they do not. The same list
# says what will be destroyed, and proves afterwards that it is. Sourced after role.sh and machine.sh.

# inventory: "KIND ID DETAIL", a line each, tabs between. Kinds: schedule, instance, elastic-ip, volume, interface, group,
# profile, role, secret, parameter, bucket; other: what carries the tag and is another script's.
inventory() {
    local d=${opt[deployment]} rows
    rows=$(schedules "$d" &&
        listed instance ec2 describe-instances --filters "$(mine)" \
            Name=instance-state-name,Values=pending,running,stopping,stopped,shutting-down \
            --query 'Reservations[].Instances[].[InstanceId,InstanceType,State.Name]' &&
        listed elastic-ip ec2 describe-addresses --filters "$(mine)" --query 'Addresses[].[AllocationId,PublicIp]' &&
        listed volume ec2 describe-volumes --filters "$(mine)" --query 'Volumes[].[VolumeId,Size]' &&
        listed interface ec2 describe-network-interfaces --filters "$(mine)" --query 'NetworkInterfaces[].[NetworkInterfaceId,Status]' &&
        listed group ec2 describe-security-groups --filters "$(mine)" --query 'reverse(sort_by(SecurityGroups,&GroupName))[].[GroupId,GroupName]' &&
        roles "$d" &&
        listed secret secretsmanager list-secrets --filters "Key=name,Values=riva-$d/" --query 'SecretList[].[Name]' &&
        listed parameter ssm describe-parameters --parameter-filters "Key=Name,Option=BeginsWith,Values=/riva/$d/" --query 'Parameters[].[Name]' &&
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
        if [ -z "$there" ]; then continue; fi
        jq -r --arg d "$1" --arg region "$region" --arg name "$name" '.Role.Tags // [] | from_entries |
            select(.["riva:deployment"] == $d and (.["riva:region"] // $region) == $region) | "role\t\($name)"' <<<"$there"
    done
    there=$(look NoSuchEntity iam get-instance-profile --instance-profile-name "riva-$1") || return
    jq -r --arg d "$1" --arg name "riva-$1" --arg region "$region" '.InstanceProfile.Tags // [] | from_entries |
        select(.["riva:deployment"] == $d and (.["riva:region"] // $region) == $region) | "profile\t\($name)"' <<<"${there:-{\}}"
}

buckets() {
    local name=riva-$1-$account-$region there
    there=$(look NoSuchBucket s3api get-bucket-location --bucket "$name" --expected-bucket-owner "$account") || return
    if [ -n "$there" ]; then printf 'bucket\t%s\n' "$name"; fi
}

# Deleted things stay in this index for minutes; kinds that were asked for by themselves above are left out.
others() {
    local arns
    arns=$(ask resourcegroupstaggingapi get-resources --tag-filters "Key=riva:deployment,Values=${opt[deployment]}" \
        --query 'ResourceTagMappingList[].ResourceARN') || return
    tr '\t' '\n' <<<"$arns" | sed -E '/^$/d; /:ec2:[^:]*:[^:]*:(instance|volume|security-group|security-group-rule|network-interface|elastic-ip|spot-instances-request)\//d
        /:(secretsmanager|s3|ssm|scheduler|iam):/d; s/^/other\t/'
}

# of_kind KIND LIST: the ids of that kind, a line each
of_kind() { awk -F '\t' -v kind="$1" '$1 == kind { print $2 }' <<<"$2"; }

# in_words LIST: for people
in_words() { awk -F '\t' '{ printf "%-10s %s%s%s\n", $1, $2, (NF > 2 ? "  " $3 : ""), (NF > 3 ? " " $4 : "") }' <<<"$1"; }
