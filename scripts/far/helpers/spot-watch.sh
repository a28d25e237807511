#!/bin/bash
# ExecStart of riva-spot.service: stops the gateway when AWS takes this machine back, as it may with spot capacity. The
# instance metadata service (IMDSv2) says so two minutes before. Streams get their last words, new ones are refused, and
# nothing starts the gateway again before the machine itself starts.
#
# On a machine that is not spot capacity it ends at once. Every 5 seconds is what AWS recommends.
set -euo pipefail
EVERY_S=5
imds=http://169.254.169.254/latest token='' code='' said=''

# ask PATH: sets $code, HTTP's (000: nobody answered), and $said
ask() {
    local answer
    if [ -z "$token" ]; then
        token=$(curl -sf -m 5 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 21600' "$imds/api/token") || token=''
    fi
    # Through stdin: a token on the command line would be there for all to see.
    answer=$(printf 'header = "X-aws-ec2-metadata-token: %s"' "$token" |
        curl -s -m 5 -K - -w '\n%{http_code}' "$imds/meta-data/$1") || true
    code=${answer##*$'\n'} said=${answer%$'\n'*}
    if [ "$code" = 401 ]; then token=''; fi # its six hours are over
}

until ask instance-life-cycle && [ "$code" = 200 ]; do sleep "$EVERY_S"; done
if [ "$said" != spot ]; then exit 0; fi
until ask spot/instance-action && [ "$code" = 200 ]; do sleep "$EVERY_S"; done

# Into the gateway's log, where people look for why it ended.
printf 'MESSAGE=%s\nPRIORITY=4\nSYSLOG_IDENTIFIER=spot-watch\nOBJECT_SYSTEMD_UNIT=riva-gateway.service\n' \
    "AWS takes this machine back (spot capacity): the gateway ends. $(tr -cd '[:print:]' <<<"$said")" |
    logger --journald || true
# Not waited for: it stops this service, too.
systemctl stop --no-block riva-gateway
