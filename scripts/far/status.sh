# shellcheck shell=bash disable=SC2154 # the settings stand in front
# How this machine is: GPU, recognizer, gateway. Changes nothing.
#
# Answers: gpu; nim (ready, starting, stopped, absent), profile, image; gateway (ready, not ready, stopped, absent),
# release, version; uptime_s.

# unit NAME: absent, stopped or running
unit() {
    if [ ! -e "$UNITS/$1.service" ]; then
        echo absent
    elif systemctl is-active --quiet "$1"; then
        echo running
    else
        echo stopped
    fi
}

nim=$(unit riva-nim) gateway=$(unit riva-gateway)
if [ "$nim" = running ]; then
    nim=starting
    said=$(curl -sf -m 5 http://127.0.0.1:9000/v1/health/ready) || said=''
    # Versions differ: {"ready":true} and {"status":"ready"}; classic Riva has no such page, only its port.
    if [[ ${said//[[:space:]]/} =~ \"ready\":true|\"status\":\"ready\" ]]; then nim=ready; fi
    if grep -qx 'KIND=classic' "$NIM_ETC/nim.env" && (exec 3<>/dev/tcp/127.0.0.1/50051) 2>/dev/null; then nim=ready; fi
fi
if [ "$gateway" = running ]; then
    gateway='not ready'
    trust_gateway
    if curl -sf "${trust[@]}" -m 5 -o /dev/null https://localhost:8443/readyz; then gateway=ready; fi
fi
answer gpu "$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null | head -n 1)"
answer nim "$nim"
answer profile "$(sed -n 's/^PROFILE=//p' "$NIM_ETC/nim.env" 2>/dev/null)"
answer image "$(sed -n 's/^IMAGE=//p' "$NIM_ETC/nim.env" 2>/dev/null)"
answer gateway "$gateway"
answer release "$(basename "$(readlink "$APP/current" 2>/dev/null || true)")"
answer version "$("$APP/current/.venv/bin/riva-gateway" --version 2>/dev/null | awk '{ print $NF }')"
answer uptime_s "$(cut -d . -f 1 /proc/uptime)"
