#!/usr/bin/env bash
# How a deployment is, in one table.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"
. "$LIB/role.sh"
. "$LIB/guard.sh"
. "$LIB/inventory.sh"

about 'Shows the machine, its address, recognizer and gateway, what it has cost, and what exists. Changes nothing.'
switch json 'as JSON, for programs'
switch quick 'without asking the machine itself'
parse "$@"
within='' # what to do next is said whoever asks
needs aws jq

account=$(account)
region=$(the_region)

# agent ID STATE: Online, or what AWS says instead
agent() {
    if [ "$2" != running ]; then return 0; fi
    if agent_online "$1"; then echo Online; else echo "${waiting_for#its agent is }"; fi
}

# asked: what the machine says of itself, as JSON
asked() {
    if [ "${opt[quick]}" = yes ] || [ "$1" != Online ]; then
        echo '{}'
        return
    fi
    far_instance=$id
    { far status.sh 60 DEPLOYMENT="${opt[deployment]}" REGION="$region" || warn 'the machine did not answer'; } |
        jq -Rn '[inputs | capture("^(?<key>[a-z_]+)=(?<value>.*)$")] | from_entries'
}

# cost JSON: dollars since the last start, about; nothing where it does not run or the price is not known
cost() {
    local price
    price=$(price_of "$(field "$1" InstanceType)")
    if [ -z "$price" ] || [ "$(field "$1" State.Name)" != running ] || [ "$(field "$1" InstanceLifecycle)" = spot ]; then return 0; fi
    times "$price" "$(jq -r '((now - (.LaunchTime | sub("\\.[0-9]+"; "") | sub("\\+00:00$"; "Z") | fromdateiso8601)) / 3600)' <<<"$1")"
}

gather() {
    local there='{}' agent='' schedule='' stops='' inventory
    id=$(instance)
    if [ -n "$id" ]; then
        there=$(describe "$id")
        agent=$(agent "$id" "$(field "$there" State.Name)")
        schedule=$(nightly_stop)
        if [ -n "$schedule" ]; then stops=$(if stops "$schedule" "$id"; then echo this; else echo another; fi); fi
    fi
    inventory=$(inventory)
    jq -n --arg deployment "${opt[deployment]}" --arg region "$region" --argjson there "$there" --arg agent "$agent" \
        --argjson asked "$(asked "$agent")" --arg cost "$(cost "$there")" --arg inventory "$inventory" \
        --arg stops "$stops" --arg schedule "$(if [ -n "$schedule" ]; then scheduled "$schedule"; fi)" '
        ($there.Tags // [] | from_entries) as $tags |
        {deployment: $deployment, region: $region, instance: $there.InstanceId, type: $there.InstanceType,
         zone: $there.Placement.AvailabilityZone, state: $there.State.Name, spot: ($there.InstanceLifecycle == "spot"),
         address: ($there.PublicIpAddress // $there.PrivateIpAddress), private_address: $there.PrivateIpAddress,
         started: $there.LaunchTime, agent: $agent, gpu: $asked.gpu,
         nim: {state: $asked.nim, profile: ($asked.profile // $tags["riva:profile"]), image: ($asked.image // $tags["riva:nim-image"])},
         gateway: {state: $asked.gateway, version: $asked.version, release: ($asked.release // $tags["riva:gateway-release"])},
         usd_since_start: ($cost | if . == "" then null else tonumber end),
         nightly_stop: (if $stops == "this" then $schedule else null end),
         nightly_stop_of_another: (if $stops == "another" then $schedule else null end), max_hours: $tags["riva:max-hours"],
         exists: ($inventory | split("\n") | map(select(. != "") | split("\t") | {kind: .[0], id: .[1]}))} |
        walk(if . == "" then null else . end)'
}

table_of() {
    jq -r --arg nightly "$(nightly_words "$(jq -r '.nightly_stop // empty' <<<"$facts")")" '
        def row(name; value): (value | if . == null or . == "" then empty else "\(name)\t\(.)" end);
        row("deployment"; "\(.deployment) (\(.region))"),
        row("instance"; if .instance then "\(.instance)  \(.type)\(if .spot then " (spot)" else "" end)  \(.zone)" else "none" end),
        row("state"; .state), row("address"; if .state == "running" then .address else null end), row("agent"; .agent), row("GPU"; .gpu),
        row("recognizer"; [.nim.state, .nim.profile, .nim.image] | map(select(.)) | join("  ")),
        row("gateway"; [.gateway.state, .gateway.version, (.gateway.release // empty)[:12]] | map(select(.)) | join("  ")),
        row("serves at"; if .gateway.state == "ready" then "https://\(.address):8443" else null end),
        row("cost"; if .usd_since_start then "about $\(.usd_since_start) since \(.started[:16] | sub("T"; " ")) UTC" else null end),
        row("stops"; [($nightly | select(. != "")), (.max_hours // empty | "\(.) hours after each start")] | join("; ")),
        row("exists"; .exists | group_by(.kind) | map("\(length) \(.[0].kind)\(if length > 1 then "s" else "" end)") | join(", ") | if . == "" then "nothing" else . end)'
}

# what_next: the commands that go with how it is
what_next() {
    local state
    state=$(jq -r '"\(.state)/\(.gateway.state)"' <<<"$facts")
    if jq -e .nightly_stop_of_another <<<"$facts" >/dev/null; then
        printf '\n' >&2
        warn 'the nightly stop is for another machine than this one, and nothing stops this one at night'
        next_step 'Let it stop this one; without --stop-at: what it is now:' "$(command_for riva-150-cost-guard.sh)" --stop-at 20:00
    fi
    if [ "$state" != running/null ]; then printf '\n' >&2; fi # with --quick it was not asked
    case $state in
    running/ready)
        say "Open $(jq -r '"https://\(.address):8443"' <<<"$facts") in a browser. It warns, because the certificate is the machine's own:"
        say 'go on (Advanced). The page then asks for a key.'
        next_step 'The key:' aws secretsmanager get-secret-value --region "$region" --secret-id "riva-${opt[deployment]}/gateway-key" \
            --query SecretString --output text
        next_step 'Stop it; then only its disk costs:' "$(command_for riva-120-stop.sh)"
        next_step 'Take all of it away:' "$(command_for riva-190-destroy.sh)"
        ;;
    running/null) ;;
    running/*) next_step 'What the gateway says; --unit nim: what the recognizer says:' "$(command_for riva-110-logs.sh)" ;;
    stopped/*) next_step 'Start it again:' "$(command_for riva-130-start.sh)" ;;
    null/*)
        next_step 'Make one, or go on with what exists:' "$(command_for riva-000-up.sh)" --allow-from me
        if jq -e '.exists != []' <<<"$facts" >/dev/null; then next_step 'Take it away:' "$(command_for riva-190-destroy.sh)"; fi
        ;;
    esac
}

facts=$(gather)
if [ "${opt[json]}" = yes ]; then
    jq . <<<"$facts"
    exit 0
fi
table_of <<<"$facts" | awk -F '\t' '{ printf "%-12s %s\n", $1, $2 }'
what_next
