#!/bin/bash
# ExecStartPre of riva-gateway.service: by which names and addresses clients reach this machine just now, for the
# certificate that the gateway makes itself (TLS_NAMES). Asks the instance metadata service (IMDSv2).
#
# address --changed: changes nothing, and tells by its status whether they are others than at the gateway's last start
set -euo pipefail
folder=/run/riva-gateway
token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token) || token=''

ask() {
    if [ -z "$token" ]; then return 0; fi
    # Through stdin: a token on the command line would be there for all to see.
    printf 'header = "X-aws-ec2-metadata-token: %s"' "$token" |
        curl -sf -m 5 -K - "http://169.254.169.254/latest/meta-data/$1" || true
}

names=$(cat /etc/riva-gateway/names 2>/dev/null) || names=''
for what in public-ipv4 local-ipv4 public-hostname; do names+=",$(ask "$what")"; done
# What is no part of a name stays out: systemd reads this file.
line=$(tr -cd 'A-Za-z0-9.,:-' <<<"$names" | tr -s ',' | sed 's/^,/TLS_NAMES=/; t; s/^/TLS_NAMES=/')
line=${line%,}
if [ "${1:-}" = --changed ]; then
    [ "$line" != "$(cat "$folder/address.env" 2>/dev/null)" ]
    exit
fi

# The machine's credentials read NVIDIA's key: they are not for the gateway, unless a setting of it names a secret.
fence=(OUTPUT --destination 169.254.169.254 --match owner --uid-owner riva-gateway --jump REJECT)
if grep -q '=aws-sm:' /etc/riva-gateway/gateway.env; then
    iptables --wait 5 --delete "${fence[@]}" 2>/dev/null || true
elif ! iptables --wait 5 --check "${fence[@]}" 2>/dev/null; then
    iptables --wait 5 --append "${fence[@]}" || echo "the machine's credentials are within the gateway's reach" >&2
fi

install -d -m 755 "$folder"
printf '%s\n' "$line" >"$folder/address.env.new"
mv "$folder/address.env.new" "$folder/address.env"
# far/gateway.sh compares this with the settings, to know whether what runs is what is wanted.
{ readlink /opt/riva-gateway/current && cat /etc/riva-gateway/gateway.env; } | sha256sum >"$folder/running"
