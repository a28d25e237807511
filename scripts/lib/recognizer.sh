# shellcheck shell=bash disable=SC2154,SC2034 # opt, answer, far_instance, recognizer, shown: deploy.sh, the scripts
# Which recognizer is meant, from nim-profiles.tsv and the flags, and putting it on the machine. Sourced after machine.sh
# by the scripts that do so.

PULL_LIMIT_S=${DEPLOY_PULL_LIMIT_S:-3600} # an image has 10 GB and more

# recognizer_flags: those that say which recognizer is wanted
recognizer_flags() {
    flag profile NAME '' "$(profiles); unset: the one that is there, at first rnnt"
    flag tag TAG '' "another version of the recognizer's image; unset: the pinned one, or the one that is there"
    flag image IMAGE '' 'another image of a recognizer, as nvcr.io/nim/nvidia/NAME'
    flag selector TEXT '' 'another NIM_TAGS_SELECTOR, as name=…,mode=str'
    switch classic "NVIDIA's Riva quickstart instead of a NIM"
    switch allow-unsupported-gpu 'go on with a GPU that is known not to fit'
}

# describe_profiles: a line each, for --help
describe_profiles() {
    awk -F '\t' 'NR > 1 { printf "  %-9s %s: %s%s; %s\n", $1, $5, $7, ($6 == "yes" ? "" : "; FILES ONLY: words come at the end of a stream"), $9 }' "$NIM_PROFILES"
}

# choose_recognizer: sets $recognizer, what far/nim.sh is to be told, and $shown, how people call it
choose_recognizer() {
    local profile=${opt[profile]} image tag selector kind=nim there
    if [ "${opt[classic]}" = yes ]; then
        [ -z "$profile" ] || fail "$EXIT_USAGE" '--classic is a recognizer of its own; it goes with no --profile'
        profile=classic
    fi
    [[ ${opt[tag]} =~ ^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$ ]] || fail "$EXIT_USAGE" "'${opt[tag]}' cannot be a tag" "It reads 1.5.0."
    [ "${opt[tag]}" != latest ] ||
        fail "$EXIT_USAGE" "'latest' is another image every month, and none to go back to" "Name a version: --tag 1.5.0"
    there=$(if is_new "$far_instance"; then :; else instance_tag "$far_instance" riva:profile; fi)
    if [ -z "$profile${opt[image]}${opt[selector]}" ] && [ -n "$there" ]; then
        shown="$there${opt[tag]:+, version ${opt[tag]}}"
        recognizer=(MODE=same "TAG=${opt[tag]}" "PROFILE=$there")
        return 0
    fi
    profile=${profile:-${there:-rnnt}}
    image=$(table "$NIM_PROFILES" "$profile" image)
    [ -n "$image" ] || fail "$EXIT_USAGE" "there is no profile '$profile'" "There are: $(profiles); and --classic"
    if [ "$profile" = classic ]; then kind=classic; fi
    tag=${opt[tag]:-$(table "$NIM_PROFILES" "$profile" tag)} selector=${opt[selector]:-$(table "$NIM_PROFILES" "$profile" selector)}
    image=${opt[image]:-$image}
    if [[ ${image##*/} == *:* ]]; then
        [ -z "${opt[tag]}" ] || fail "$EXIT_USAGE" '--image names a tag already; leave --tag out'
    else
        image+=:$tag
    fi
    [[ $image =~ ^[a-zA-Z0-9][a-zA-Z0-9._:/-]*:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$ ]] ||
        fail "$EXIT_USAGE" "'$image' cannot be the name of an image" "It reads nvcr.io/nim/nvidia/NAME:TAG."
    [[ $image != *:latest ]] || fail "$EXIT_USAGE" "'latest' is another image every month, and none to go back to" "Name a version: --tag 1.5.0"
    [[ $selector =~ ^[A-Za-z0-9._=,:/-]*$ ]] || fail "$EXIT_USAGE" "'$selector' cannot be a selector" "It reads name=…,mode=str,vad=silero."
    shown="$(table "$NIM_PROFILES" "$profile" model) ($profile)"
    recognizer=(MODE=deploy "PROFILE=$profile" "KIND=$kind" "IMAGE=$image" "SELECTOR=$selector"
        "MIN_GPU_MIB=$(table "$NIM_PROFILES" "$profile" min_gpu_mib)")
    if [ "$(table "$NIM_PROFILES" "$profile" streams)" = no ]; then
        warn "'$profile' hears whole recordings only: a live stream gets its words at its end"
    fi
}

# deploy_recognizer SETTING…: far/nim.sh does it; the machine's tags say what it has now. Prints the image, and whether
# anything changed.
deploy_recognizer() {
    far_answers nim.sh "$PULL_LIMIT_S" "DEPLOYMENT=${opt[deployment]}" "REGION=$(the_region)" "SECRET=riva-${opt[deployment]}/ngc" \
        "UNIT@=units/riva-nim.service" "RUN_HELPER@=helpers/nim-run.sh" "KEY_HELPER@=helpers/ngc-key.sh" "$@" || exit
    if dry; then return 0; fi
    if [ "${answer[changed]}" = fetched ]; then
        made "${answer[image]} is on the machine"
        return 0
    fi
    tag_instance "$far_instance" riva:profile "${answer[profile]}"
    tag_instance "$far_instance" riva:nim-image "${answer[image]}"
    if [ "${answer[changed]}" = yes ]; then
        made "${answer[image]} starts"
        say 'it may take half an hour the first time, minutes later; riva-060-readiness.sh waits for it'
    else
        kept "${answer[image]} runs with these settings already"
    fi
    printf '%s\t%s\n' "${answer[image]}" "$(if [ "${answer[changed]}" = yes ]; then echo changed; else echo unchanged; fi)"
}
