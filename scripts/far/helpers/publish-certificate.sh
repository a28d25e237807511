#!/bin/bash
# ExecStartPost of riva-gateway.service: the certificate that the gateway shows now goes to where clients fetch it, the
# parameter that /etc/riva-gateway/certificate-parameter names (REGION and NAME, a line each). It is public.
set -euo pipefail
{ read -r region && read -r name; } </etc/riva-gateway/certificate-parameter
shown=''
while ((SECONDS < 40)); do
    # Of a gateway that has ended nothing will come, and systemd starts no other until this is over.
    if [ -n "${MAINPID:-}" ] && ! kill -0 "$MAINPID" 2>/dev/null; then break; fi
    shown=$(timeout 5 openssl s_client -connect 127.0.0.1:8443 -showcerts </dev/null 2>/dev/null |
        sed -n '/^-----BEGIN CERTIFICATE-----$/,/^-----END CERTIFICATE-----$/p') || true
    if [ -n "$shown" ]; then break; fi
    sleep 1
done
[ -n "$shown" ] || {
    echo 'the gateway shows no certificate' >&2
    exit 1
}
# All of it fits into TimeoutStartSec: systemd would end the gateway itself for a publication that hangs.
export AWS_PAGER='' PATH=$PATH:/snap/bin
published=$(timeout 20 aws ssm get-parameter --region "$region" --name "$name" --query Parameter.Value --output text 2>/dev/null) || published=''
if [ "$published" != "$shown" ]; then
    # A chain may be longer than the 4096 characters of a standard parameter.
    timeout 20 aws ssm put-parameter --region "$region" --name "$name" --type String --tier Intelligent-Tiering --overwrite \
        --value "$shown" >/dev/null
fi
