# shellcheck shell=bash disable=SC2154 # the settings stand in front
# The machine shuts itself down HOURS hours after each start, whoever has forgotten it. HOURS=0: no longer.
timer=riva-max-hours.timer

alone max-hours
if [ "$HOURS" = 0 ]; then
    if [ -e "$UNITS/$timer" ]; then systemctl disable --now "$timer" 2>/dev/null; fi
    rm -f "$UNITS/$timer" "$UNITS/riva-max-hours.service"
    systemctl daemon-reload
    exit 0
fi
up_s=$(cut -d . -f 1 /proc/uptime)
if ((up_s >= HOURS * 3600)); then
    die "$EXIT_USAGE" "this machine has been up for $((up_s / 3600)) hours already, so it would shut down at once" \
        'Say more hours; or stop and start it first: riva-120-stop.sh, riva-130-start.sh.'
fi
changed=no
place "[Unit]
Description=Shut down: this machine has run for its $HOURS hours

[Service]
Type=oneshot
ExecStart=/usr/sbin/shutdown -h +1 $HOURS hours are over" "$UNITS/riva-max-hours.service" && changed=yes
place "[Unit]
Description=Shut down $HOURS hours after the start

[Timer]
OnBootSec=${HOURS}h
AccuracySec=1min

[Install]
WantedBy=timers.target" "$UNITS/$timer" && changed=yes
if [ "$changed" = yes ]; then systemctl daemon-reload; fi
systemctl enable --now "$timer" 2>/dev/null
answer left_s "$((HOURS * 3600 - up_s))"
