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
    aws application-autoscaling describe-scaling-policies --service-namespace sagemaker --resource-id "$scaled" --output json |
        jq -c --argjson bounds "$bounds" '{least: $bounds.MinCapacity, most: $bounds.MaxCapacity,
            tracking: ([.ScalingPolicies[].TargetTrackingScalingPolicyConfiguration // empty][0])}' >"$SCRATCH/scaling"
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

# is_scaled_out CONFIG: there are more instances than a new beginning with that configuration would have
is_scaled_out() {
    local now least
    if dry || [ -z "$(scalable)" ]; then return 1; fi
    now=$(the_endpoint | jq -r '.ProductionVariants[0].DesiredInstanceCount // 0')
    least=$(ask sagemaker describe-endpoint-config --endpoint-config-name "$1" --query 'ProductionVariants[0].InitialInstanceCount')
    ((now > least))
}

# scale: what --max-instances and --auto-stop ask for; unsaid, what there is stays
scale() {
    local least=$((10#${opt[instances]})) most=$((10#${opt[max_instances]:-0})) there
    if [ "${opt[auto_stop]}" = yes ]; then
        least=0
        if ((most == 0)); then most=$((10#${opt[instances]})); fi
    fi
    if ((most == 0)); then return 0; fi
    step 'Scaling'
    if ((least == most)); then
        no_scaling
        return
    fi
    there=$(if dry; then true; else scalable; fi)
    if jq -e --argjson least "$least" --argjson most "$most" '.MinCapacity == $least and .MaxCapacity == $most' >/dev/null <<<"${there:-{\}}"; then
        kept "$least to $most instances"
    else
        told_or '' application-autoscaling register-scalable-target "${SCALABLE[@]}" --resource-id "$scaled" \
            --min-capacity "$least" --max-capacity "$most"
        made "$least to $most instances"
    fi
    put_tracking "$(tracking)"
    if ((least == 0)); then wake_up; fi
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
