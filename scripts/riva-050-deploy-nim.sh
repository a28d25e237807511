#!/usr/bin/env bash
# The recognizer: its image on the machine, as a service of systemd that comes back after every start of the machine.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"
. "$LIB/recognizer.sh"

about 'Puts the recognizer on the machine, or leaves it alone where it runs with the same settings.' \
    'The image is fetched before anything is stopped. The key comes from Secrets Manager (riva-030-secret.sh) and is read' \
    'on the machine. The image and "changed" or "unchanged" are printed to stdout. Profiles:' "$(describe_profiles)"
recognizer_flags
switch fetch-only 'fetch the image, and change nothing that runs'
switch restart 'start it anew though nothing changed'
flag back-to WHICH '' 'good: the one that was last seen working; before: the one before that'
parse "$@"
needs aws jq

far_instance=$(if checking; then echo '<instance>'; else the_instance running; fi)
case ${opt[back_to]} in
'') choose_recognizer ;;
good | before) recognizer=("MODE=${opt[back_to]}" PROFILE=) shown="the former one (${opt[back_to]})" ;;
*) fail "$EXIT_USAGE" "--back-to is good or before, not '${opt[back_to]}'" ;;
esac
checked
step "Recognizer: $shown"
say "fetching the image and starting it takes up to $(minutes "$PULL_LIMIT_S"); this can be run again at any time"
deploy_recognizer "${recognizer[@]}" "ANY_GPU=${opt[allow_unsupported_gpu]}" "RESTART=${opt[restart]}" \
    "FETCH_ONLY=${opt[fetch_only]}"
