# shellcheck shell=bash disable=SC2154 # the settings stand in front
# What runs now was seen working: it is the one to go back to when a later one fails, and the one that was that is kept
# as the one before. Done twice it changes nothing the second time.
#
# Settings: WHAT nim or gateway
mark_nim() {
    local settings=$NIM_ETC/nim.env
    if [ -e "$settings.good" ] && ! cmp -s "$settings" "$settings.good"; then
        place "$(<"$settings.good")" "$settings.before" || true
    fi
    place "$(<"$settings")" "$settings.good" || true
    answer image "$(sed -n 's/^IMAGE=//p' "$settings")"
    answer profile "$(sed -n 's/^PROFILE=//p' "$settings")"
    if [ -e "$settings.before" ]; then answer before "$(sed -n 's/^IMAGE=//p' "$settings.before")"; fi
}

mark_gateway() {
    local now good=''
    now=$(readlink "$APP/current")
    good=$(readlink "$APP/good") || good=''
    if [ -n "$good" ] && [ "$good" != "$now" ]; then point "$APP/before" "$good"; fi
    point "$APP/good" "$now"
    answer release "${now##*/}"
    if [ -e "$APP/before" ]; then answer before "$(basename "$(readlink "$APP/before")")"; fi
}

alone "$WHAT"
case $WHAT in
nim) mark_nim ;;
gateway) mark_gateway ;;
esac
