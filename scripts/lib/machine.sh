# shellcheck shell=bash disable=SC2154,SC2034 # opt, SCRATCH, waiting_for: deploy.sh; the scripts read what is set here
# The machine with the GPU: which type fits, what it costs, and waiting for it. Sourced by the scripts that need it.

. "$LIB/tables.sh"

LEAST_GPU_MIB=16000 LEAST_CAPABILITY=8.0 # what NVIDIA's support matrix asks of a GPU
GP3_USD_PER_GIB_MONTH=0.08 ADDRESS_USD_PER_HOUR=0.005 SECRETS_USD_PER_MONTH=0.80 HOURS_PER_MONTH=730

# machine_flags: those that say what machine is wanted, the same for every script
machine_flags() {
    flag type TYPE g6.xlarge 'the instance type'
    switch spot 'spot capacity: about a third of the price, may end at any time, cannot be stopped and started'
    flag disk-gb GB 200 'the size of its disk, in GB'
    flag ami ID '' "the machine image; unset: AWS's newest for NVIDIA GPUs"
    flag subnet ID '' 'the subnet; unset: one in every zone that offers the type, in turn'
}

# capability_of GPU: its compute capability by its name, from another type that has it; nothing where it is not known
capability_of() { awk -F '\t' -v gpu="$1" '$2 == gpu { print $4; exit }' "$INSTANCE_TYPES"; }

# less A B: whether A < B, fractions too
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a + 0 < b + 0) }'; }

# look_up_type TYPE: sets $gpu $gpu_mib $capability $vcpus $architecture. AWS is asked first, the table says what AWS
# does not. Returns 1 where neither knows the type.
look_up_type() {
    local answer
    gpu=$(table "$INSTANCE_TYPES" "$1" gpu) gpu_mib=$(table "$INSTANCE_TYPES" "$1" gpu_mib)
    capability=$(table "$INSTANCE_TYPES" "$1" capability) vcpus=$(table "$INSTANCE_TYPES" "$1" vcpu) architecture=''
    if answer=$(aws ec2 describe-instance-types --instance-types "$1" --output json 2>"$SCRATCH/type"); then
        IFS=$'\t' read -r gpu gpu_mib vcpus architecture < <(jq -r '.InstanceTypes[0] | [
            (.GpuInfo.Gpus[0] | if . then "\(.Manufacturer) \(.Name)" | ltrimstr("NVIDIA ") else "none" end),
            (.GpuInfo.Gpus[0].MemoryInfo.SizeInMiB // 0), .VCpuInfo.DefaultVCpus,
            (.ProcessorInfo.SupportedArchitectures | join(","))] | @tsv' <<<"$answer")
        capability=${capability:-$(capability_of "$gpu")}
    fi
    [ -n "$gpu" ]
}

# unfit [LEAST_MIB]: why the type that was looked up does not fit; nothing where it does
unfit() {
    local least=${1:-$LEAST_GPU_MIB}
    if [ "$gpu" = none ]; then
        echo "it has no GPU"
    elif [[ ! ",${architecture:-x86_64}," == *,x86_64,* ]]; then
        echo "its processor is $architecture; the recognizers are built for x86_64"
    elif [ -n "$capability" ] && less "$capability" "$LEAST_CAPABILITY"; then
        echo "its GPU ($gpu) has compute capability $capability; the recognizers want $LEAST_CAPABILITY or more"
    elif ((gpu_mib < least)); then
        echo "its GPU ($gpu) has $gpu_mib MiB of memory; the recognizer wants $least or more"
    elif [ -z "$capability" ] && [[ $gpu == *[Rr]adeon* || $gpu == *AMD* || $gpu == *Habana* ]]; then
        echo "its GPU ($gpu) is not one of NVIDIA's"
    fi
}

# zones_of TYPE: the zones of the region that offer it, a line each
zones_of() {
    ask ec2 describe-instance-type-offerings --location-type availability-zone \
        --filters "Name=instance-type,Values=$1" --query 'sort(InstanceTypeOfferings[].Location)' | tr '\t' '\n'
}

# image: the id of the machine image: --ami, or what AWS names as its newest
IMAGE_PARAMETER=/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id
image() {
    if [ -n "${opt[ami]}" ]; then
        printf '%s' "${opt[ami]}"
    else
        ask ssm get-parameter --name "$IMAGE_PARAMETER" --query Parameter.Value
    fi
}

# describe ID: the instance as JSON;  field JSON NAME: one of its fields, or nothing
describe() {
    aws ec2 describe-instances --instance-ids "$1" --query 'Reservations[0].Instances[0]' --output json
}
field() { jq -r --arg name "$2" 'getpath($name | split(".")) // empty' <<<"$1"; }

# address_of JSON: where clients reach it: its public address, or the private one where it has no other
address_of() { jq -r '.PublicIpAddress // .PrivateIpAddress // empty' <<<"$1"; }

# in_state ID STATE…: for wait_until. Ends the script where it will never be: the machine is on its way out.
in_state() {
    local id=$1 state wanted
    shift
    state=$(ask ec2 describe-instances --instance-ids "$id" --query 'Reservations[0].Instances[0].State.Name' 2>/dev/null) || state='not listed yet'
    waiting_for="it is $state"
    for wanted in "$@"; do if [ "$state" = "$wanted" ]; then return 0; fi; done
    case $state in
    terminated | shutting-down)
        fail "$EXIT_UNAVAILABLE" "the machine $id ended while it was waited for" "AWS's reason: $(why_ended "$id")" \
            "Run this again; for another zone or type see --subnet and --type of riva-040-launch.sh."
        ;;
    esac
    return 1
}
why_ended() { ask ec2 describe-instances --instance-ids "$1" --query 'Reservations[0].Instances[0].StateReason.Message' 2>/dev/null; }

# wait_online ID: it runs and takes commands; the script ends where that takes too long
wait_online() {
    wait_until "${DEPLOY_RUNNING_LIMIT_S:-300}" "the machine $1" in_state "$1" running ||
        fail "$EXIT_UNAVAILABLE" "the machine $1 does not run yet ($waiting_for)" "Run this again to go on waiting."
    wait_until "${DEPLOY_AGENT_LIMIT_S:-600}" "the machine $1" agent_online "$1" ||
        fail "$EXIT_UNAVAILABLE" "the machine $1 runs, but its Systems Manager agent has not come online ($waiting_for)" \
            "It needs a way out to the internet (a public address, or a NAT gateway) or VPC endpoints for ssm, ssmmessages" \
            "and ec2messages. What it printed while booting: riva-110-logs.sh --console. Then run this again: it goes on."
}

# start_again ID: a machine that was stopped, or is about to be, starts
start_again() {
    local err status=0
    wait_until "${DEPLOY_STOPPED_LIMIT_S:-600}" "the machine $1" in_state "$1" stopped ||
        fail "$EXIT_UNAVAILABLE" "the machine $1 has not stopped yet ($waiting_for)" "Run this again."
    err=$(told_or '' ec2 start-instances --instance-ids "$1" 2>&1) || status=$?
    if dry; then printf '%s\n' "$err" >&2; fi
    case $status/$(error_code "$err") in
    0/*) made "machine $1 starts" ;;
    */InsufficientInstanceCapacity)
        fail "$EXIT_UNAVAILABLE" "its zone has no room for the machine $1 now" \
            "That changes by the hour: run this again later. Its disk lies in that zone, so it cannot start in another one;" \
            "riva-190-destroy.sh and riva-000-up.sh make a new one elsewhere."
        ;;
    *)
        printf '%s\n' "$err" >&2
        return "$status"
        ;;
    esac
}
