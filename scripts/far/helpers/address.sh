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
line=$(tr -s ',' <<<"TLS_NAMES=$names" | sed 's/=,/=/; s/,$//')
if [ "${1:-}" = --changed ]; then
    [ "$line" != "$(cat "$folder/address.env" 2>/dev/null)" ]
    exit
fi

install -d -m 755 "$folder"
printf '%s\n' "$line" >"$folder/address.env.new"
mv "$folder/address.env.new" "$folder/address.env"
# far/gateway.sh compares this with the settings, to know whether what runs is what is wanted.
{ readlink /opt/riva-gateway/current && cat /etc/riva-gateway/gateway.env; } | sha256sum >"$folder/running"
