#!/bin/bash
# ngc-key FILE: NVIDIA's key from Secrets Manager into FILE, which docker reads (--env-file). FILE lies in memory and is
# for root alone; the key is on no command line and in no log. Whoever is root may see it with `docker inspect` while the
# container runs: docker writes its settings below /var/lib/docker, on the encrypted disk, until it removes it (--rm).
set -euo pipefail
umask 077
PATH=$PATH:/snap/bin # systemd's own leaves it out
# shellcheck disable=SC1091
. /etc/riva/nim.env

install -d -m 700 "${1%/*}"
new=$(mktemp "${1%/*}/.key.XXXXXX")
trap 'rm -f "$new" "$new.plain"' EXIT
if ! error=$(aws secretsmanager get-secret-value --region "$REGION" --secret-id "$SECRET" \
    --query SecretString --output text 2>&1 >"$new.plain"); then
    printf 'the secret %s cannot be read: %s\n' "$SECRET" "$(tail -n 1 <<<"$error")" >&2
    exit 1
fi
key=$(tr -d '[:space:]' <"$new.plain")
if [ -z "$key" ] || [ "$key" = None ]; then
    printf 'the secret %s is empty\n' "$SECRET" >&2
    exit 1
fi
# The second and third are what Riva's own download asks for.
printf 'NGC_API_KEY=%s\nNGC_CLI_API_KEY=%s\nNGC_CLI_ORG=nvidia\n' "$key" "$key" >"$new"
mv "$new" "$1"
