# shellcheck shell=bash disable=SC2154 # opt, SCRATCH, region, account, partition, bucket: deploy.sh and the scripts
# What AWS has (look), and what the machine may do: its role and its instance profile.

# look CODES ARGUMENTS…: what AWS has, as JSON; nothing where it answers with one of CODES, "there is none"
look() {
    local codes=$1 out status=0
    shift
    out=$(aws "$@" --output json 2>"$SCRATCH/look") || status=$?
    if ((status == 0)); then
        printf '%s' "$out"
    elif [[ ! $(<"$SCRATCH/look") =~ \(($codes)\) ]]; then
        cat "$SCRATCH/look" >&2
        return "$status"
    fi
}

# same JSON JSON: whether two documents say the same
same() { [ -n "$1" ] && [ "$(jq -cS . <<<"$1")" = "$(jq -cS . <<<"$2")" ]; }

# partition: aws, aws-cn or aws-us-gov, from these credentials' own name
partition() { ask sts get-caller-identity --query Arn | cut -d : -f 2; }

# once_gone COMMAND…: makes what was destroyed a moment ago under that name, and is on its way out in AWS for a while
once_gone() {
    local err status began=$SECONDS
    while :; do
        status=0
        err=$("$@" 2>&1) || status=$?
        if ((status == 0)) || [[ $err != *'scheduled for deletion'* ]] || ((SECONDS - began > 90)); then break; fi
        sleep "${DEPLOY_POLL_S:-10}"
    done
    if [ -n "$err" ]; then printf '%s\n' "$err" >&2; fi
    return "$status"
}

# trust SERVICE: it may take a role. Of EC2 alone the name differs in China.
trust() {
    local service=$1.amazonaws.com
    if [ "$1/${partition:-}" = ec2/aws-cn ]; then service+=.cn; fi
    jq -cn --arg service "$service" '{Version: "2012-10-17",
        Statement: [{Effect: "Allow", Principal: {Service: $service}, Action: "sts:AssumeRole"}]}'
}

# role_policy PARTITION REGION ACCOUNT BUCKET [MORE_SECRET_ARN]: all that the machine may do
role_policy() {
    jq -cn --arg d "${opt[deployment]}" --arg at "arn:$1" --arg place "$2:$3" --arg bucket "$4" --arg more "${5:-}" '
        def secret(name): "\($at):secretsmanager:\($place):secret:riva-\($d)/\(name)-??????";
        def certificate: "\($at):ssm:\($place):parameter/riva/\($d)/gateway-certificate";
        def may(what; whereon): {Effect: "Allow", Action: what, Resource: whereon};
        {Version: "2012-10-17", Statement: [
            may("secretsmanager:GetSecretValue"; [secret("ngc"), secret("gateway-key")] + if $more == "" then [] else [$more] end),
            may("secretsmanager:PutSecretValue"; secret("gateway-key")),
            may("s3:GetObject"; "\($at):s3:::\($bucket)/releases/*"),
            may(["ssm:GetParameter", "ssm:PutParameter"]; certificate),
            # What AWS has its agents use lets them read every parameter of the account, secrets among them.
            {Effect: "Deny", Action: ["ssm:GetParameter", "ssm:GetParameters", "ssm:GetParametersByPath", "ssm:GetParameterHistory"],
             NotResource: certificate}]}'
}

# ensure_role: riva-<deployment>, as role and as instance profile, is there and may do what it should and no more
ensure_role() {
    local name=riva-${opt[deployment]} there policy wanted attached profile ssm more=''
    ssm=arn:$partition:iam::aws:policy/AmazonSSMManagedInstanceCore
    if [ -n "${opt[tls_secret]}" ]; then
        more=$(ask secretsmanager describe-secret --secret-id "${opt[tls_secret]}" --query ARN) ||
            fail "$EXIT_USAGE" "there is no secret '${opt[tls_secret]}' (--tls-secret) in $region"
    fi
    wanted=$(role_policy "$partition" "$region" "$account" "$bucket" "$more")
    there=$(look NoSuchEntity iam get-role --role-name "$name")
    if [ -z "$there" ]; then
        # shellcheck disable=SC2046 # words
        told_or '' iam create-role --role-name "$name" --assume-role-policy-document "$(trust ec2)" \
            --description "riva-gateway: what the machine of '${opt[deployment]}' may do" --tags $(tags) "Key=riva:region,Value=$region"
        if ! dry; then aws iam wait role-exists --role-name "$name"; fi
        made "role $name"
    else
        check_role "$name" "$there"
        kept "role $name"
    fi
    attached=$(look NoSuchEntity iam list-attached-role-policies --role-name "$name")
    if ! jq -e --arg arn "$ssm" '.AttachedPolicies // [] | any(.PolicyArn == $arn)' >/dev/null <<<"${attached:-{\}}"; then
        told_or '' iam attach-role-policy --role-name "$name" --policy-arn "$ssm"
    fi
    policy=$(look NoSuchEntity iam get-role-policy --role-name "$name" --policy-name deployment)
    if ! same "$(jq -c '.PolicyDocument // empty' <<<"$policy")" "$wanted"; then
        told_or '' iam put-role-policy --role-name "$name" --policy-name deployment --policy-document "$wanted"
        made "it may read its secrets and its releases, and write its key and its certificate"
    fi
    profile=$(look NoSuchEntity iam get-instance-profile --instance-profile-name "$name")
    if [ -z "$profile" ]; then
        # shellcheck disable=SC2046 # words
        told_or EntityAlreadyExists iam create-instance-profile --instance-profile-name "$name" \
            --tags $(tags) "Key=riva:region,Value=$region"
        if ! dry; then aws iam wait instance-profile-exists --instance-profile-name "$name"; fi
        made "instance profile $name"
    fi
    if jq -e --arg name "$name" '.InstanceProfile.Roles // [] | any(.RoleName != $name)' >/dev/null <<<"${profile:-{\}}"; then
        fail "$EXIT_USAGE" "the instance profile $name gives a role that these scripts did not make" "Name the deployment differently: --deployment"
    fi
    if ! jq -e --arg name "$name" '.InstanceProfile.Roles // [] | any(.RoleName == $name)' >/dev/null <<<"${profile:-{\}}"; then
        told_or LimitExceeded iam add-role-to-instance-profile --instance-profile-name "$name" --role-name "$name"
    fi
}

# is_ours JSON_TAGS: this deployment's, in this region where that is told apart
is_ours() {
    jq -e --arg d "${opt[deployment]}" --arg region "$region" 'from_entries |
        .["riva:deployment"] == $d and (.["riva:region"] // $region) == $region' >/dev/null <<<"$1"
}

# bucket_is_ours NAME: it has this deployment's tag, or none yet: then it was broken off when it was made
bucket_is_ours() {
    local there
    there=$(look NoSuchTagSet s3api get-bucket-tagging --bucket "$1" --expected-bucket-owner "$account") || return
    jq -e --arg d "${opt[deployment]}" '.TagSet // [] | from_entries | (.["riva:deployment"] // $d) == $d' >/dev/null <<<"${there:-{\}}"
}

# check_role NAME JSON: roles are the account's, not a region's: two deployments of one name would share it
check_role() {
    local owner where
    owner=$(jq -r '.Role.Tags // [] | map(select(.Key == "riva:deployment"))[0].Value // empty' <<<"$2")
    where=$(jq -r '.Role.Tags // [] | map(select(.Key == "riva:region"))[0].Value // empty' <<<"$2")
    [ "$owner" = "${opt[deployment]}" ] ||
        fail "$EXIT_USAGE" "there is a role $1 that these scripts did not make" "Name the deployment differently: --deployment"
    [ "${where:-$region}" = "$region" ] ||
        fail "$EXIT_USAGE" "the deployment '${opt[deployment]}' has its role in use in $where" "Name this one differently: --deployment"
}
