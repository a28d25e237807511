# shellcheck shell=bash disable=SC2154 # opt, SCRATCH: deploy.sh and the scripts
# Who may reach the machine: rules of its security groups. Sourced by riva-020-network.sh.

# canonical ADDRESS: an address or network as AWS writes it (10.1.2.3/24 is 10.1.2.0/24); returns 1 where it is none
canonical() {
    local address=${1%/*} bits=32 a b c d value
    if [[ $1 == *:* ]]; then
        canonical_6 "$1"
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

# canonical_6 ADDRESS: the same of IPv6 (2001:DB8::1/64 is 2001:db8::/64)
canonical_6() {
    local address=${1%/*} bits=128 group i kept from=8 zeros=1 out=''
    local -a parts=()
    [[ $1 =~ ^[0-9a-fA-F:]{2,39}(/[0-9]{1,3})?$ ]] || return 1
    if [[ $1 == */* ]]; then bits=$((10#${1#*/})); fi
    ((bits <= 128)) || return 1
    mapfile -t parts < <(groups_6 "$address")
    ((${#parts[@]} == 8)) || return 1
    for i in "${!parts[@]}"; do
        [[ ${parts[i]} =~ ^[0-9a-fA-F]{1,4}$ ]] || return 1
        kept=$((bits - 16 * i))
        kept=$((kept < 0 ? 0 : kept > 16 ? 16 : kept))
        parts[i]=$((16#${parts[i]} & 0xffff << (16 - kept) & 0xffff))
    done
    # The longest row of two zeros or more, the first of equals, is written as ::.
    for ((i = 0; i < 8; i++)); do
        for ((group = i; group < 8 && parts[group] == 0; group++)); do :; done
        if ((group - i > zeros)); then from=$i zeros=$((group - i)); fi
    done
    for ((i = 0; i < 8; i++)); do
        if ((i == from)); then
            out+=:: i=$((i + zeros - 1))
        else
            if [[ $out == *[!:] ]]; then out+=:; fi
            out+=$(printf '%x' "${parts[i]}")
        fi
    done
    printf '%s/%d' "$out" "$bits"
}

# groups_6 ADDRESS: its groups, a line each, with the zeros that :: stands for, which are one at least
groups_6() {
    local left=$1 right colons
    if [[ $1 == *::* ]]; then
        left=${1%%::*} right=${1#*::}
        colons=$(tr -cd : <<<"${left:+$left:}${right:+$right:}") # one for each group that is written
        if ((${#colons} > 7)); then return 0; fi
        while ((${#colons} < 8)); do left+=${left:+:}0 colons+=:; done
        left+=${right:+:$right}
    fi
    tr ':' '\n' <<<"$left"
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
