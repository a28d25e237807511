# shellcheck shell=bash disable=SC2154 # the settings stand in front
# Makes a release the gateway of this machine: user, settings, key, certificate, unit; switches, and waits until it takes
# streams. Unchanged, it leaves one that runs alone.
#
# /opt/riva-gateway/current is what runs; good and before point to what was seen working (mark.sh).
#
# Settings: MODE deploy (RELEASE) or good, before; KEY_SECRET CERT_PARAMETER TLS_SECRET NAMES WAIT_S POLL_S and the
# texts UNIT SPOT_UNIT ADDRESS_HELPER PUBLISH_HELPER SPOT_HELPER
KEEP=3 # releases

alone gateway
settings=$ETC/gateway.env
trap 'rm -f "$RUN"/tls.* "$RUN/gateway-key" "$RUN/said"' EXIT # secrets, in memory

as_gateway() { (cd "$STATE" && runuser -u riva-gateway -- env STATE_DIR="$STATE" "$release/.venv/bin/riva-gateway" "$@"); }

choose_release() {
    release=$APP/releases/${RELEASE:-}
    if [ "$MODE" != deploy ]; then
        release=$(readlink "$APP/$MODE") ||
            die "$EXIT_USAGE" 'there is no former release of the gateway to go back to on this machine' 'Deploy one: riva-070-deploy-gateway.sh'
    fi
    [ -e "$release/complete" ] || die "$EXIT_FAILED" "the release ${release##*/} is not installed on this machine" 'Run riva-070-deploy-gateway.sh.'
}

make_user() {
    id -u riva-gateway >/dev/null 2>&1 ||
        useradd --system --user-group --home-dir "$STATE" --shell /usr/sbin/nologin riva-gateway
    install -d -m 750 -o riva-gateway -g riva-gateway "$STATE"
    install -d -m 755 "$ETC"
}

# fits CERTIFICATE KEY: the key is that of the certificate
fits() {
    local public
    public=$(openssl x509 -in "$1" -noout -pubkey 2>/dev/null) && [ "$public" = "$(openssl pkey -in "$2" -pubout 2>/dev/null)" ]
}

# The certificate (with its chain) and its key, both PEM, from the one secret that holds them.
fetch_certificate() {
    local error pem=$RUN/tls.pem
    private_folder
    error=$(umask 077 && aws secretsmanager get-secret-value --secret-id "$TLS_SECRET" --query SecretString --output text 2>&1 >"$pem") ||
        die "$EXIT_USAGE" "the secret $TLS_SECRET cannot be read here" "$(tail -n 1 <<<"$error")" \
            'The machine'\''s role must be allowed to: riva-020-network.sh --tls-secret …'
    sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' "$pem" >"$RUN/tls.crt"
    (umask 077 && sed -n '/BEGIN .*PRIVATE KEY/,/END .*PRIVATE KEY/p' "$pem" >"$RUN/tls.key")
    if ! fits "$RUN/tls.crt" "$RUN/tls.key"; then
        die "$EXIT_USAGE" "the secret $TLS_SECRET holds no certificate with its key" \
            'It has to hold the PEM of the certificate, of those between it and the authority, and of its private key without a passphrase.'
    fi
    install -m 644 "$RUN/tls.crt" "$ETC/tls.crt"
    install -m 640 -g riva-gateway "$RUN/tls.key" "$ETC/tls.key"
}

# What people have put into gateway.env stays; what is missing is added. Only the certificate follows --tls-secret.
write_settings() {
    local text='' pair
    if [ -e "$settings" ]; then text=$(<"$settings"); fi
    case ${TLS_SECRET:-} in
    '') ;;
    self-made) text=$(sed '/^TLS_CERT=/d; /^TLS_KEY=/d' <<<"$text") ;;
    *)
        fetch_certificate
        text=$(sed '/^TLS_CERT=/d; /^TLS_KEY=/d' <<<"$text")$'\n'"TLS_CERT=$ETC/tls.crt"$'\n'"TLS_KEY=$ETC/tls.key"
        ;;
    esac
    for pair in LISTEN_HOST=0.0.0.0 RIVA_ENDPOINTS=localhost:50051 GRPC_TLS=on AUTH=on "STATE_DIR=$STATE"; do
        grep -q "^${pair%%=*}=" <<<"$text" || text+=$'\n'$pair
    done
    place "$(sed '/^$/d' <<<"$text")" "$settings" 640 root:riva-gateway || true
    if [ "${NAMES:-}" = none ]; then rm -f "$ETC/names"; elif [ -n "${NAMES:-}" ]; then place "$NAMES" "$ETC/names" || true; fi
    place "$REGION"$'\n'"$CERT_PARAMETER" "$ETC/certificate-parameter" || true
}

place_files() {
    place "$ADDRESS_HELPER" "$LIBEXEC/address" 755 || true
    place "$PUBLISH_HELPER" "$LIBEXEC/publish-certificate" 755 || true
    place "$SPOT_HELPER" "$LIBEXEC/spot-watch" 755 || true
    place "$SPOT_UNIT" "$UNITS/riva-spot.service" || true
    place "$UNIT" "$UNITS/riva-gateway.service" || true
    # Asked, not remembered: this may have been cut off after a file was placed.
    if [[ $(systemctl show --property=NeedDaemonReload --value riva-gateway riva-spot) == *yes* ]]; then systemctl daemon-reload; fi
    systemctl enable --quiet riva-gateway
}

# The key for clients lies in Secrets Manager; the gateway keeps its hash. A key that the gateway does not know (a new
# machine) and one that never got there (cut off) are replaced.
ensure_key() {
    local error id file=$RUN/gateway-key
    private_folder
    if error=$(umask 077 && aws secretsmanager get-secret-value --secret-id "$KEY_SECRET" --query SecretString --output text 2>&1 >"$file"); then
        id=$(sed -nE 's/^rgw_([0-9a-f]{12})_[0-9a-f]{48}$/\1/p' "$file")
        if [ -n "$id" ] && as_gateway key list | grep -q "^$id"$'\t'"[^"$'\t'"]*"$'\t'good; then return 0; fi
    elif [[ $error != *ResourceNotFoundException* ]]; then
        die "$EXIT_UNAVAILABLE" "the secret $KEY_SECRET cannot be read here" "$(tail -n 1 <<<"$error")" 'Is the role allowed to? riva-020-network.sh'
    fi
    as_gateway key revoke deployment >/dev/null 2>&1 || true
    (umask 077 && as_gateway key create deployment --scope transcribe --scope jobs --scope metrics 2>"$RUN/said" | tr -d '\n' >"$file") ||
        die "$EXIT_FAILED" 'the gateway makes no key' "$(tail -n 1 "$RUN/said")"
    error=$(aws secretsmanager put-secret-value --secret-id "$KEY_SECRET" --secret-string "file://$file" 2>&1 >/dev/null) ||
        die "$EXIT_UNAVAILABLE" "the key for clients cannot be put into the secret $KEY_SECRET" "$(tail -n 1 <<<"$error")" 'Run this again.'
    say "made a key for clients: it is in the secret $KEY_SECRET"
}

runs_as_wanted() {
    systemctl is-active --quiet riva-gateway &&
        [ "$(cat /run/riva-gateway/running 2>/dev/null)" = "$({ readlink "$APP/current" && cat "$settings"; } | sha256sum)" ] &&
        ! "$LIBEXEC/address" --changed
}

switch() {
    changed=no
    if [ "$(readlink "$APP/current")" != "$release" ]; then point "$APP/current" "$release"; fi
    if runs_as_wanted; then return 0; fi
    changed=yes
    systemctl reset-failed riva-gateway 2>/dev/null || true
    systemctl restart riva-gateway || true
}

# Streams are taken, or the script ends with what the gateway says.
wait_ready() {
    local said='' began=$SECONDS
    trust_gateway
    until said=$(curl -s "${trust[@]}" -m 5 --fail-with-body https://localhost:8443/readyz); do
        if (($(systemctl show --property=NRestarts --value riva-gateway) >= 3)); then not_running; fi
        if ((SECONDS - began >= WAIT_S)); then
            if [ -z "$said" ] || ! systemctl is-active --quiet riva-gateway; then not_running; fi
            die "$EXIT_UNAVAILABLE" "the gateway runs and takes no streams: ${said:0:300}" 'Is the recognizer ready? riva-060-readiness.sh'
        fi
        sleep "${POLL_S:-1}"
    done
}
not_running() {
    say 'the end of its log:'
    last_lines riva-gateway 15
    die "$EXIT_FAILED" "the gateway (release ${release##*/}) does not run" \
        'Its log: riva-110-logs.sh. Back to the one that worked: riva-070-deploy-gateway.sh --back-to good'
}

# Those in use stay, and the newest of the others while there are fewer than KEEP.
prune() {
    local folder used kept
    used=$(for folder in current good before; do readlink "$APP/$folder" || true; done | sort -u)
    kept=$(wc -l <<<"$used")
    for folder in $(cd "$APP/releases" && ls -dt -- */); do
        folder=$APP/releases/${folder%/}
        if grep -qxF "$folder" <<<"$used"; then
            continue
        elif ((kept < KEEP)); then
            kept=$((kept + 1))
        else
            rm -rf "$folder"
        fi
    done
}

choose_release
make_user
write_settings
place_files
ensure_key
switch
wait_ready
# A gateway that ran before has not brought it along.
systemctl start --no-block riva-spot
"$LIBEXEC/publish-certificate" || say "the certificate could not be published to $CERT_PARAMETER" # at the start it may not have been, either
prune
answer release "${release##*/}"
answer changed "$changed"
answer names "$(sed -n 's/^TLS_NAMES=//p' /run/riva-gateway/address.env)"
