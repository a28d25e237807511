#!/usr/bin/env bash
# What surrounds the machine: two security groups, a role with an instance profile, a private bucket for releases.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/access.sh"
. "$LIB/role.sh"
. "$LIB/bucket.sh"

about 'Makes the security groups, the role and the bucket, or puts right what differs.' \
    'The gateway (8443, 50052) is open to --allow-from alone; without it, to whom it was open before, at first to nobody.' \
    'The recognizer (9000, 50051) is open to the gateway alone. There is no SSH.'
flag allow-from CIDR '' 'who may reach the gateway: 203.0.113.7 or 10.0.0.0/8, with commas; me: this address; none: nobody'
switch public 'anybody may reach the gateway: needed for 0.0.0.0/0'
flag vpc ID '' 'the network; unset: the default VPC'
flag subnet ID '' 'the subnet; its network is used'
flag tls-secret ID '' 'a secret with a certificate and its key that the machine may read, as in riva-070-deploy-gateway.sh'
parse "$@"
needs aws jq

# clients: the networks of --allow-from, a line each
clients() {
    local word network asked=${opt[allow_from]}
    if [ -z "$asked" ] && [ "${opt[public]}" = yes ]; then asked=0.0.0.0/0; fi
    if [ "$asked" = none ]; then return 0; fi
    if [ "$asked" = me ]; then
        asked=$(curl -fsS -m 10 "${DEPLOY_WHOAMI_URL:-https://checkip.amazonaws.com}" | tr -d '[:space:]') ||
            fail "$EXIT_FAILED" "this machine's own address could not be found out" "Name it: --allow-from 203.0.113.7"
    fi
    for word in ${asked//,/ }; do
        network=$(canonical "$word") ||
            fail "$EXIT_USAGE" "--allow-from '$word' is not an address or a network" "Write 203.0.113.7 or 10.0.0.0/8."
        if anybody "$network" && [ "${opt[public]}" = no ]; then
            fail "$EXIT_USAGE" "--allow-from $word would let anybody in" "If that is meant, say --public. Clients still need an API key."
        fi
        printf '%s\n' "$network"
    done
}

# network: the VPC of --subnet, of --vpc, that of the groups that are there, or the default one
network() {
    local found there
    there=$(cut -f 3 <<<"$groups" | head -n 1)
    if [ -n "${opt[subnet]}" ]; then
        found=$(ask ec2 describe-subnets --subnet-ids "${opt[subnet]}" --query 'Subnets[0].VpcId') ||
            fail "$EXIT_USAGE" "there is no subnet ${opt[subnet]} in $region"
        [ "${opt[vpc]:-$found}" = "$found" ] || fail "$EXIT_USAGE" "the subnet ${opt[subnet]} is in $found, not in ${opt[vpc]}"
    elif [ -n "${opt[vpc]}" ]; then
        found=$(ask ec2 describe-vpcs --vpc-ids "${opt[vpc]}" --query 'Vpcs[0].VpcId') ||
            fail "$EXIT_USAGE" "there is no VPC ${opt[vpc]} in $region"
    else
        found=${there:-$(ask ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId')}
        [ -n "$found" ] || fail "$EXIT_USAGE" "$region has no default VPC" "Name one: --vpc vpc-… (or --subnet subnet-…)"
    fi
    [ "${there:-$found}" = "$found" ] ||
        fail "$EXIT_USAGE" "the deployment '${opt[deployment]}' is in $there already, not in $found" \
            "Destroy it first (riva-190-destroy.sh), or name another one: --deployment"
    printf '%s' "$found"
}

# group PART DESCRIPTION: the id of riva-<deployment>-PART, made if need be
group() {
    local name=riva-${opt[deployment]}-$1 id
    id=$(awk -F '\t' -v name="$name" '$1 == name { print $2 }' <<<"$groups")
    if [ -n "$id" ]; then
        kept "security group $name ($id)"
    else
        id=$(placeholder="<$name>" told ec2 create-security-group --group-name "$name" --description "$2" --vpc-id "$vpc" \
            --tag-specifications "$(ec2_tags security-group "$name")" --query GroupId --output text)
        if ! dry; then aws ec2 wait security-group-exists --group-ids "$id"; fi
        made "security group $name ($id)"
    fi
    printf '%s' "$id"
}

open_ports() {
    local gateway nim source before
    local -a rules=()
    gateway=$(group gateway 'riva-gateway: clients')
    nim=$(group nim 'riva-gateway: the recognizer, for the gateway alone')
    if [ -z "${opt[allow_from]}" ] && [ "${opt[public]}" = no ]; then
        before=$(ingress "$gateway")
        allowed=$(awk -F '\t' '$3 == $4 && ($3 == 8443 || $3 == 50052) && $5 ~ /\// { print $5 }' <<<"$before" | sort -u)
    fi
    for source in $allowed; do rules+=("8443 $source" "50052 $source"); done
    reconcile "$gateway" 'clients of the gateway' "${rules[@]}"
    reconcile "$nim" 'the gateway' "9000 $gateway" "50051 $gateway"
    if [ -z "$allowed" ]; then warn 'nobody can reach the gateway from outside: --allow-from ADDRESS opens it (me: this address)'; fi
}

allowed=$(clients)
checked
region=$(the_region)
account=$(account)
partition=$(partition)
bucket=riva-${opt[deployment]}-$account-$region
groups=$(ask ec2 describe-security-groups --filters "$(mine)" "$MADE_HERE" --query 'SecurityGroups[].[GroupName,GroupId,VpcId]')
vpc=$(network)

step "Network ($vpc)"
open_ports
step 'Role'
ensure_role
step 'Bucket for releases'
ensure_bucket "$bucket" "$account" "$partition"
