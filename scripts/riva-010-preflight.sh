#!/usr/bin/env bash
# Whether this can work, before anything is made: programs, account, quota, zones, GPU, image, disk; and what it costs.
. "$(dirname "${BASH_SOURCE[0]}")/lib/deploy.sh"
. "$LIB/machine.sh"

about 'Checks what a deployment needs, and says what it will cost. Changes nothing.' \
    'Everything that is wrong is listed at once; the exit status is 2 then.'
machine_flags
flag profile NAME rnnt 'the recognizer, as in riva-050-deploy-nim.sh; each wants another amount of GPU memory'
switch allow-unsupported-gpu 'go on with a GPU that is known not to fit'
parse "$@"

problems=()
problem() {
    warn "$1"
    problems+=("$@")
}

check_tools() {
    step 'Programs on this machine'
    needs aws jq curl sha256sum
    needs_gnu_tar
    good "$(aws --version 2>&1 | cut -d ' ' -f 1), jq, curl, tar, gzip, sha256sum"
}

check_account() {
    step 'Account'
    local who
    who=$(account)
    region=$(the_region)
    good "account $who, region $region"
}

check_gpu() {
    step "Machine: ${opt[type]}"
    local reason least
    least=$(table "$NIM_PROFILES" "${opt[profile]}" min_gpu_mib)
    if [ -z "$least" ]; then problem "there is no profile '${opt[profile]}'" "There are: $(profiles); and --classic"; fi
    if ! look_up_type "${opt[type]}"; then
        problem "'${opt[type]}' is not an instance type that AWS knows in $region" "$(tail -n 1 "$SCRATCH/type")"
        return
    fi
    reason=$(unfit "$least")
    if [ -n "$reason" ] && [ "${opt[allow_unsupported_gpu]}" = yes ]; then
        warn "${opt[type]} does not fit: $reason. --allow-unsupported-gpu: going on"
    elif [ -n "$reason" ]; then
        problem "${opt[type]} does not fit: $reason" \
            "Take --type g6.xlarge (L4), g5.xlarge (A10G) or g6e.xlarge (L40S), or insist: --allow-unsupported-gpu"
    elif [ -z "$capability" ]; then
        warn "$gpu with $gpu_mib MiB is not in the table; it fits if its compute capability is $LEAST_CAPABILITY or more"
    else
        good "$gpu, $gpu_mib MiB, compute capability $capability, $vcpus vCPUs"
    fi
}

check_zones() {
    zones=$(zones_of "${opt[type]}" | xargs)
    if [ -n "$zones" ]; then
        good "offered in $zones"
    else
        problem "no zone of $region offers ${opt[type]}" "Take another region (--region) or type (--type)."
    fi
}

# quota CODE: its value: the account's, or AWS's own where none was ever set for the account
quota() {
    local which=(--service-code ec2 --quota-code "$1" --query Quota.Value)
    if ask service-quotas get-service-quota "${which[@]}" 2>"$SCRATCH/quota"; then return 0; fi
    grep -q NoSuchResourceException "$SCRATCH/quota" || return 1
    ask service-quotas get-aws-default-service-quota "${which[@]}" 2>/dev/null
}

# used TYPES KIND: the vCPUs of what runs already, of types that match; but for this deployment's machine, which is the
# one that is wanted
used() {
    local rows vcpus
    local -a names
    rows=$(ask ec2 describe-instances --filters Name=instance-state-name,Values=pending,running \
        --query "Reservations[].Instances[].[InstanceType, InstanceLifecycle || 'on-demand', InstanceId]")
    rows=$(awk -F '\t' -v types="$1" -v kind="$2" -v own="$(instance)" '$1 ~ types && $2 == kind && $3 != own' <<<"$rows")
    if [ -z "$rows" ]; then echo 0 && return 0; fi
    mapfile -t names < <(cut -f 1 <<<"$rows" | sort -u)
    vcpus=$(ask ec2 describe-instance-types --instance-types "${names[@]}" --query 'InstanceTypes[].[InstanceType,VCpuInfo.DefaultVCpus]')
    printf '%s\n' "$vcpus" "$rows" | awk -F '\t' '!/\ti-/ { vcpus[$1] = $2; next } { sum += vcpus[$1] } END { print sum + 0 }'
}

# One quota counts the vCPUs of all running G and VT machines, another those of P machines; spot has its own.
check_quota() {
    local code quota used types='^(g|vt)' kind=on-demand
    case ${opt[type]}/${opt[spot]} in
    p[0-9]*/no) code=L-417A185B types='^p[0-9]' ;;
    p5*/yes) code=L-C4BD4855 types='^p5' kind=spot ;;
    p[0-9]*/yes) code=L-7212CCBC types='^p[2-4]' kind=spot ;;
    */yes) code=L-3819A6DF kind=spot ;;
    *) code=L-DB2E81BA ;;
    esac
    if ! quota=$(quota "$code"); then
        warn "the quota for such machines ($code) cannot be read with these credentials; a new account's may be 0"
        return
    fi
    used=$(used "$types" "$kind")
    if less "$quota" "$((used + ${vcpus:-0}))"; then
        problem "the account may run ${quota%.*} vCPUs of such machines at a time ($kind), $used of them run already; ${opt[type]} has $vcpus" \
            "Ask for more, it takes hours to days: aws service-quotas request-service-quota-increase --region $region \\" \
            "    --service-code ec2 --quota-code $code --desired-value $((used + vcpus))"
    else
        good "quota: ${quota%.*} vCPUs ($kind), $used of them run already"
    fi
}

check_image() {
    step 'Image and disk'
    local id about name size
    if ! id=$(image 2>/dev/null) || [ -z "$id" ]; then
        problem "AWS names no machine image in $region under $IMAGE_PARAMETER" "Name one with an NVIDIA driver and docker: --ami ami-…"
    elif ! about=$(ask ec2 describe-images --image-ids "$id" --query 'Images[0].[BlockDeviceMappings[0].Ebs.VolumeSize,Name]' 2>/dev/null) ||
        [ -z "$about" ]; then
        problem "the machine image $id is not to be had in $region" "Name another one: --ami ami-…"
    else
        IFS=$'\t' read -r size name <<<"$about"
        good "$id: $name"
        if [[ $size =~ ^[0-9]+$ ]] && ((disk_gb < size)); then problem "the disk ($disk_gb GB) is smaller than the image's ($size GB)"; fi
    fi
    if ((disk_gb < 100)); then
        problem "a disk of $disk_gb GB is too small" "Image, models and a former version want 100 GB or more: --disk-gb 200"
    fi
}

say_price() {
    step 'Cost, about, all together (US dollars, without tax; list prices of us-east-1)'
    local hour spot disk
    hour=$(price_of "${opt[type]}")
    disk=$(times "$disk_gb" "$GP3_USD_PER_GIB_MONTH")
    if [ "${opt[spot]}" = yes ]; then
        spot=$(ask ec2 describe-spot-price-history --instance-types "${opt[type]}" --product-descriptions Linux/UNIX \
            --start-time "$(date -u +%FT%TZ)" --query 'min(SpotPriceHistory[].to_number(SpotPrice))') || spot=''
        if [ -n "$spot" ]; then say "spot now, in the cheapest zone: \$$(times "$spot" 1) an hour" && hour=$spot; fi
    fi
    if [ -n "$hour" ]; then
        awk -v hour="$hour" -v disk="$disk" -v secrets="$SECRETS_USD_PER_MONTH" -v address="$ADDRESS_USD_PER_HOUR" -v hours="$HOURS_PER_MONTH" '
            function row(what, hours) { total = (hour + address) * hours + disk + secrets; printf "  %-42s $%7.2f a month\n", what, total }
            BEGIN {
                printf "  %-42s $%7.2f an hour\n", "while it runs", hour + address
                row("running all the time", hours); row("ten hours on working days (--stop-at)", 220); row("stopped: its disk and two secrets", 0)
            }' >&2
    else
        say "${opt[type]} is not in the price table: see https://aws.amazon.com/ec2/pricing/on-demand/"
        say "its disk, stopped too: \$$disk a month"
    fi
    step 'Time'
    say '35 to 50 minutes for the first start (20 GB to fetch, the model to prepare); 3 to 5 after a stop'
}

disk_gb=${opt[disk_gb]}
[[ $disk_gb =~ ^[0-9]{1,5}$ ]] || fail "$EXIT_USAGE" "--disk-gb '$disk_gb' is not a whole number of GB"
checked
check_tools
check_account
check_gpu
check_zones
check_quota
check_image
say_price
if ((${#problems[@]} > 0)); then fail "$EXIT_USAGE" 'this cannot work yet' "${problems[@]}"; fi
step 'All is well: nothing stands in the way.'
next_step 'Make all of it:' "$(command_for riva-000-up.sh)" --allow-from me
