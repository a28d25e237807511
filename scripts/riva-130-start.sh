#!/usr/bin/env bash
# Starts a stopped machine, and waits until it serves again: at another address, usually.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"

about 'Starts the stopped machine, waits until recognizer and gateway serve, prints its address.' \
    'A stopped machine loses its public address and gets another one; its certificate is remade to name it.'
parse "$@"
needs aws jq

# gateway_ready: for wait_until
gateway_ready() {
    local said
    said=$(far status.sh 60 DEPLOYMENT="${opt[deployment]}" REGION="$(the_region)" 2>/dev/null) || said=''
    waiting_for=$(sed -n 's/^gateway=/it is /p' <<<"$said")
    grep -qx 'gateway=ready' <<<"$said"
}

step 'Start'
account >/dev/null
id=$(the_instance)
if is_new "$id"; then exit 0; fi
case $(field "$(describe "$id")" State.Name) in
running | pending) kept "the machine $id runs" ;;
*) start_again "$id" ;;
esac
wait_online "$id"
if dry; then exit 0; fi
there=$(describe "$id")
address=$(address_of "$there")
made "it runs and takes commands: $address"
same=(--deployment "${opt[deployment]}" --region "$(the_region)" --yes)
if [ -n "$(instance_tag "$id" riva:nim-image)" ]; then "$LIB/../riva-060-readiness.sh" "${same[@]}" >&2; fi
if [ -n "$(instance_tag "$id" riva:gateway-release)" ]; then
    step 'Gateway'
    far_instance=$id
    wait_until "${DEPLOY_GATEWAY_LIMIT_S:-180}" 'the gateway' gateway_ready ||
        fail "$EXIT_UNAVAILABLE" "the gateway on $id is not ready yet ($waiting_for)" "Its log: riva-110-logs.sh. Then run this again."
    made "ready: https://$address:8443"
fi
printf '%s\t%s\n' "$id" "$address"
