# shellcheck shell=bash disable=SC2154 # opt, scaled, endpoint: deploy.sh, sagemaker.sh
# How many instances an endpoint has: by its load, between two bounds. Sourced after sagemaker.sh.

SCALABLE=(--service-namespace sagemaker --scalable-dimension 'sagemaker:variant:DesiredInstanceCount')

# scalable: the bounds that there are, as JSON, or nothing
scalable() {
    aws application-autoscaling describe-scalable-targets --service-namespace sagemaker --resource-ids "$scaled" --output json |
        jq -c '.ScalableTargets[0] // empty'
}

# no_scaling: the number of instances stays what it is
no_scaling() {
    told_or ResourceNotFound cloudwatch delete-alarms --alarm-names "$endpoint-wake"
    if [ -z "$(scalable)" ]; then return 0; fi
    told_or ObjectNotFoundException application-autoscaling deregister-scalable-target "${SCALABLE[@]}" --resource-id "$scaled"
    made 'no more scaling'
}

# tracked: what the number follows, as JSON, or null
tracked() {
    aws application-autoscaling describe-scaling-policies --service-namespace sagemaker --resource-id "$scaled" --output json |
        jq -c '[.ScalingPolicies[].TargetTrackingScalingPolicyConfiguration // empty][0]'
}

# machine_of CONFIG: its machine type
machine_of() {
    ask sagemaker describe-endpoint-config --endpoint-config-name "$1" --query 'ProductionVariants[0].InstanceType'
}

# rest_scaling FROM TO: SageMaker refuses to change the machine type of a variant whose number something else may change
rest_scaling() {
    local bounds
    if dry; then return 0; fi
    bounds=$(scalable)
    if [ -z "$bounds" ] || [ "$(machine_of "$1")" = "$(machine_of "$2")" ]; then return 0; fi
    tracked | jq -c --argjson bounds "$bounds" '{least: $bounds.MinCapacity, most: $bounds.MaxCapacity, tracking: .}' >"$SCRATCH/scaling"
    told_or ObjectNotFoundException application-autoscaling deregister-scalable-target "${SCALABLE[@]}" --resource-id "$scaled"
    made 'scaling rests meanwhile: the machine type changes'
}

# resume_scaling: as it was before rest_scaling
resume_scaling() {
    local least most tracking
    [ -s "$SCRATCH/scaling" ] || return 0
    IFS=$'\t' read -r least most tracking < <(jq -r '[.least, .most, (.tracking | tojson)] | join("\t")' "$SCRATCH/scaling")
    told_or '' application-autoscaling register-scalable-target "${SCALABLE[@]}" --resource-id "$scaled" \
        --min-capacity "$least" --max-capacity "$most"
    if [ "$tracking" != null ]; then put_tracking "$tracking"; fi
    if ((least == 0)); then wake_up; fi
    rm "$SCRATCH/scaling"
    made "$least to $most instances, as before"
}

put_tracking() {
    told_or '' application-autoscaling put-scaling-policy "${SCALABLE[@]}" --resource-id "$scaled" --policy-name "$endpoint" \
        --policy-type TargetTrackingScaling --target-tracking-scaling-policy-configuration "$1"
}

# load_now: how many instances the load has brought; 0 where nothing scales. Asked before rest_scaling.
load_now() {
    if dry || [ -z "$(scalable)" ]; then
        echo 0
    else
        the_endpoint | jq -r '.ProductionVariants[0].DesiredInstanceCount // 0'
    fi
}

# more_than_first CONFIG N: they are more than a new beginning with that configuration would have
more_than_first() {
    ((10#$2 > 0)) || return 1
    (($2 > $(ask sagemaker describe-endpoint-config --endpoint-config-name "$1" --query 'ProductionVariants[0].InitialInstanceCount')))
}

# bounds INSTANCES: sets $least and $most to what --instances (INSTANCES: what was said of it), --max-instances and
# --auto-stop ask for; what they do not say stays, and where they say nothing $most is empty
bounds() {
    local there
    least='' most=''
    if [ -z "$1${opt[max_instances]}${opt[target]}" ] && [ "${opt[auto_stop]}" = no ]; then return 0; fi
    there=$(scalable)
    if [ -z "$there${opt[max_instances]}" ] && [ "${opt[auto_stop]}" = no ]; then return 0; fi
    most=${opt[max_instances]:-$(jq -r .MaxCapacity <<<"$there")}
    most=$((10#${most:-${opt[instances]}}))
    least=$(jq -r .MinCapacity <<<"$there")
    if [ "${opt[auto_stop]}" = yes ]; then least=0; elif [ -n "$1" ] || [ -z "$least" ]; then least=$((10#${opt[instances]})); fi
    ((least <= most)) || fail "$EXIT_USAGE" "at least $least instances and at most $most cannot be" "Say --max-instances as well."
}

# scale: to $least and $most; unsaid, what there is stays
scale() {
    local there
    if [ -z "$most" ]; then return 0; fi
    step 'Scaling'
    if ((least == most)); then
        no_scaling
        return
    fi
    there=$(scalable)
    if [ -n "$there" ] && [ -z "${opt[target]}" ]; then opt[target]=$(tracked | jq -r '.TargetValue // empty'); fi
    if jq -e --argjson least "$least" --argjson most "$most" '.MinCapacity == $least and .MaxCapacity == $most' >/dev/null <<<"${there:-{\}}"; then
        kept "$least to $most instances"
    else
        told_or '' application-autoscaling register-scalable-target "${SCALABLE[@]}" --resource-id "$scaled" \
            --min-capacity "$least" --max-capacity "$most"
        made "$least to $most instances"
    fi
    put_tracking "$(tracking)"
    if ((least == 0)); then
        wake_up
    elif [ "$(jq -r .MinCapacity <<<"$there")" = 0 ]; then
        told_or ResourceNotFound cloudwatch delete-alarms --alarm-names "$endpoint-wake"
    fi
}

# tracking: by calls for an endpoint that answers, by what waits for one that reads from S3
tracking() {
    if [ "${opt[async]}" = yes ]; then
        jq -cn --argjson target "${opt[target]:-5}" --arg endpoint "$endpoint" '{TargetValue: $target, ScaleInCooldown: 600, ScaleOutCooldown: 120,
            CustomizedMetricSpecification: {MetricName: "ApproximateBacklogSizePerInstance", Namespace: "AWS/SageMaker",
                Dimensions: [{Name: "EndpointName", Value: $endpoint}], Statistic: "Average"}}'
    else
        jq -cn --argjson target "${opt[target]:-30}" '{TargetValue: $target, ScaleInCooldown: 900, ScaleOutCooldown: 60,
            PredefinedMetricSpecification: {PredefinedMetricType: "SageMakerVariantInvocationsPerInstance"}}'
    fi
}

# wake_up: without an instance there is no "for each instance": the first one comes by an alarm
wake_up() {
    local policy
    policy=$(placeholder='{"PolicyARN":"<policy>"}' told application-autoscaling put-scaling-policy "${SCALABLE[@]}" --resource-id "$scaled" \
        --policy-name "$endpoint-wake" --policy-type StepScaling --output json --step-scaling-policy-configuration \
        '{"AdjustmentType":"ChangeInCapacity","MetricAggregationType":"Average","Cooldown":300,"StepAdjustments":[{"MetricIntervalLowerBound":0,"ScalingAdjustment":1}]}' |
        jq -r .PolicyARN)
    # shellcheck disable=SC2046 # words
    told_or '' cloudwatch put-metric-alarm --alarm-name "$endpoint-wake" --namespace AWS/SageMaker \
        --metric-name HasBacklogWithoutCapacity --dimensions "Name=EndpointName,Value=$endpoint" --statistic Average \
        --period 60 --evaluation-periods 1 --threshold 1 --comparison-operator GreaterThanOrEqualToThreshold \
        --treat-missing-data missing --alarm-actions "$policy" --tags $(tags)
}
