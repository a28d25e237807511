#!/usr/bin/env bash
# The gateway: this tree's release on the machine, with a key for clients and a certificate for its address.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/role.sh"
. "$LIB/release.sh"

about 'Installs the gateway of this folder on the machine, and waits until it takes streams.' \
    'The key for clients is made on the machine and lies in the secret riva-<deployment>/gateway-key. The certificate for' \
    'clients to trust is the parameter /riva/<deployment>/gateway-certificate; it is made anew when the address changes.' \
    'Settings of yours in /etc/riva-gateway/gateway.env stay. The address is printed to stdout.'
flag tls-secret ID '' 'a secret with a certificate, its chain and its key (PEM); self-made: go back to one of its own'
flag name NAMES '' 'further names for the self-made certificate, as gateway.example.com, with commas; none: no further ones'
flag back-to WHICH '' 'good: the release that was last seen working; before: the one before that'
switch install-only 'install it beside the one that runs, and change nothing else'
switch trial 'do not make it the one to go back to'
parse "$@"
needs aws jq tar sha256sum gzip
[[ ${opt[name]} =~ ^[A-Za-z0-9.,:-]*$ ]] || fail "$EXIT_USAGE" "--name '${opt[name]}' cannot be names" "They read gateway.example.com,asr.example.com"
case ${opt[back_to]} in '' | good | before) ;; *) fail "$EXIT_USAGE" "--back-to is good or before, not '${opt[back_to]}'" ;; esac
checked

READY_LIMIT_S=${DEPLOY_GATEWAY_READY_S:-60}
KEY_SECRET=riva-${opt[deployment]}/gateway-key CERTIFICATE=/riva/${opt[deployment]}/gateway-certificate

# The secret is made here, with its tags and without a value: the machine may only put one in.
make_secret() {
    local there
    there=$(look ResourceNotFoundException secretsmanager describe-secret --secret-id "$KEY_SECRET")
    if [ -z "$there" ]; then
        # shellcheck disable=SC2046 # words
        once_gone told_or ResourceExistsException secretsmanager create-secret --name "$KEY_SECRET" \
            --description 'riva-gateway: the API key for clients' --tags $(tags)
        made "secret $KEY_SECRET"
    elif [ -n "$(jq -r '.DeletedDate // empty' <<<"$there")" ]; then
        told_or '' secretsmanager restore-secret --secret-id "$KEY_SECRET"
        made "secret $KEY_SECRET, restored"
    fi
}

deploy() {
    local mode=deploy
    if [ -n "${opt[back_to]}" ]; then mode=${opt[back_to]}; fi
    far_answers gateway.sh "$((READY_LIMIT_S + 240))" "DEPLOYMENT=${opt[deployment]}" "REGION=$(the_region)" \
        "MODE=$mode" "RELEASE=$release" "KEY_SECRET=$KEY_SECRET" "CERT_PARAMETER=$CERTIFICATE" \
        "TLS_SECRET=${opt[tls_secret]}" "NAMES=${opt[name]}" "WAIT_S=$READY_LIMIT_S" "POLL_S=${DEPLOY_POLL_S:-1}" "UNIT@=units/riva-gateway.service" \
        "SPOT_UNIT@=units/riva-spot.service" "ADDRESS_HELPER@=helpers/address.sh" \
        "PUBLISH_HELPER@=helpers/publish-certificate.sh" "SPOT_HELPER@=helpers/spot-watch.sh" || exit
}

far_instance=$(the_instance running)
step 'Gateway'
release=''
if [ -z "${opt[back_to]}" ]; then install_release; fi
if [ "${opt[install_only]}" = yes ]; then exit 0; fi
make_secret
deploy
if dry; then exit 0; fi
if [ "${answer[changed]}" = yes ]; then made "it takes streams: release ${answer[release]:0:12}"; else kept "it takes streams: release ${answer[release]:0:12}"; fi
say "its certificate is for ${answer[names]//,/, }"
tag_instance "$far_instance" riva:gateway-release "${answer[release]}"
tagged=$(look InvalidResourceId ssm list-tags-for-resource --resource-type Parameter --resource-id "$CERTIFICATE")
if [ -z "$tagged" ]; then
    warn "its certificate was not published to $CERTIFICATE: may the machine's role write it (riva-020-network.sh)? Then run this again"
elif [[ $tagged != *riva:deployment* ]]; then
    # shellcheck disable=SC2046 # words
    told_or '' ssm add-tags-to-resource --resource-type Parameter --resource-id "$CERTIFICATE" --tags $(tags)
fi
if [ "${opt[trial]}" = no ]; then mark gateway; fi
address=$(gateway_address "$far_instance")
say "clients: https://$address:8443 (page, HTTP, WebSocket), grpcs://$address:50052"
printf '%s\n' "$address"
