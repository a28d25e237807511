# shellcheck shell=bash disable=SC2154 # opt, SCRATCH: deploy.sh and the scripts
# Who may reach the machine: rules of its security groups. Sourced by riva-020-network.sh.

# canonical ADDRESS: an address or network as AWS writes it (10.1.2.3/24 is 10.1.2.0/24); returns 1 where it is none
canonical() {
    local address=${1%/*} bits=32 a b c d value
    if [[ $1 == *:* ]]; then
        [[ $1 =~ ^[0-9a-fA-F:]{2,39}(/[0-9]{1,3})?$ ]] || return 1
        bits=128
        if [[ $1 == */* ]]; then bits=${1#*/}; fi
        ((10#$bits <= 128)) && printf '%s/%s' "${address,,}" "$((10#$bits))"
        return
    fi
    [[ $1 =~ ^([0-9]{1,3}\.){3}[0-9]{1,3}(/[0-9]{1,2})?$ ]] || return 1
    if [[ $1 == */* ]]; then bits=$((10#${1#*/})); fi
    IFS=. read -r a b c d <<<"$address"
    a=$((10#$a)) b=$((10#$b)) c=$((10#$c)) d=$((10#$d))
    ((a <= 255 && b <= 255 && c <= 255 && d <= 255 && bits <= 32)) || return 1
    value=$((((a << 24) | (b << 16) | (c << 8) | d) & (0xffffffff << (32 - bits))))
    printf '%d.%d.%d.%d/%d' $((value >> 24 & 255)) $((value >> 16 & 255)) $((value >> 8 & 255)) $((value & 255)) "$bits"
}

# anybody NETWORK: whether it is so wide that it lets strangers in
anybody() {
    local bits=${1#*/}
    if [[ $1 == *:* ]]; then ((bits < 16)); else ((bits < 8)); fi
}

# ingress GROUP: what it lets in: "ID PROTOCOL FROM TO SOURCE", a line each
ingress() {
    if is_new "$1"; then return 0; fi
    ask ec2 describe-security-group-rules --filters "Name=group-id,Values=$1" --query \
        'SecurityGroupRules[?!IsEgress].[SecurityGroupRuleId,IpProtocol,FromPort,ToPort,CidrIpv4||CidrIpv6||ReferencedGroupInfo.GroupId||PrefixListId]'
}

# permission PROTOCOL PORT SOURCE WHY: one rule, as JSON
permission() {
    jq -cn --arg protocol "$1" --argjson port "$2" --arg source "$3" --arg why "$4" '
        {IpProtocol: $protocol, FromPort: $port, ToPort: $port} +
        if $source | test("^(sg-|<)") then {UserIdGroupPairs: [{GroupId: $source, Description: $why}]}
        elif $source | test(":") then {Ipv6Ranges: [{CidrIpv6: $source, Description: $why}]}
        else {IpRanges: [{CidrIp: $source, Description: $why}]} end | [.]'
}

# reconcile GROUP WHY "PORT SOURCE"…: it lets in these and nothing else
reconcile() {
    local group=$1 why=$2 have id protocol from to source rule
    shift 2
    local -A wanted=() there=()
    for rule in "$@"; do wanted["$rule"]=yes; done
    have=$(ingress "$group")
    while IFS=$'\t' read -r id protocol from to source; do
        if [ -z "$id" ]; then continue; fi
        if [ "$protocol $from" = "tcp $to" ] && [ "${wanted["$from $source"]:-}" = yes ]; then
            there["$from $source"]=yes
        else
            told_or InvalidSecurityGroupRuleId.NotFound ec2 revoke-security-group-ingress --group-id "$group" --security-group-rule-ids "$id"
            made "no longer open: $protocol $from from $source"
        fi
    done <<<"$have"
    for rule in "$@"; do
        if [ "${there["$rule"]:-}" = yes ]; then
            kept "open: ${rule/ / from }"
        else
            told_or InvalidPermission.Duplicate ec2 authorize-security-group-ingress --group-id "$group" \
                --ip-permissions "$(permission tcp "${rule% *}" "${rule#* }" "$why")"
            made "open: ${rule/ / from }"
        fi
    done
}
