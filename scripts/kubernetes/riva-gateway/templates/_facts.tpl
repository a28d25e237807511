{{/* What follows from the values. A define gives text: "true", or nothing for no. */}}

{{- define "gateway.autoscaled" -}}
{{- if or .Values.autoscaling.hpa.enabled .Values.autoscaling.keda.enabled -}}true{{- end -}}
{{- end -}}

{{- define "gateway.several" -}}
{{- if or (include "gateway.autoscaled" .) (gt (int .Values.replicas) 1) -}}true{{- end -}}
{{- end -}}

{{/* Whether the HTTPS port speaks TLS, and the gRPC port. */}}
{{- define "gateway.secure" -}}
{{- if ne .Values.tls.mode "none" -}}true{{- end -}}
{{- end -}}

{{- define "gateway.ownCertificate" -}}
{{- if has .Values.tls.mode (list "secret" "certManager") -}}true{{- end -}}
{{- end -}}

{{- define "gateway.grpcSecure" -}}
{{- $said := include "gateway.value" (dict "value" .Values.settings.GRPC_TLS) -}}
{{- if $said -}}
{{- if eq $said "on" -}}true{{- end -}}
{{- else if and (include "gateway.secure" .) (or (include "gateway.ownCertificate" .) .Values.tls.clientCA.secret) -}}
true
{{- end -}}
{{- end -}}

{{/* What the Service says of its ports: names of Kubernetes (KEP-3726) and IANA, or those that GKE's load balancers read. */}}
{{- define "gateway.gke" -}}
{{- if and .Values.gatewayApi.enabled (eq .Values.gatewayApi.controller "gke") -}}true{{- end -}}
{{- end -}}

{{- define "gateway.httpProtocol" -}}
{{- $name := ternary "https" "http" (eq (include "gateway.secure" .) "true") -}}
{{- if include "gateway.gke" . -}}{{- upper $name -}}{{- else -}}{{- $name -}}{{- end -}}
{{- end -}}

{{- define "gateway.grpcProtocol" -}}
{{- if not (include "gateway.grpcSecure" .) -}}
kubernetes.io/h2c
{{- else if include "gateway.gke" . -}}
HTTP2
{{- else -}}
https
{{- end -}}
{{- end -}}

{{- define "gateway.tlsSecret" -}}
{{- .Values.tls.secret | default (printf "%s-tls" (include "gateway.fullname" .)) -}}
{{- end -}}

{{/* A setting's value as the gateway reads it: YAML takes on and off for true and false, and JSON every number for a
fraction. */}}
{{- define "gateway.value" -}}
{{- if kindIs "invalid" .value -}}
{{- else if kindIs "bool" .value -}}
{{- ternary "on" "off" .value -}}
{{- else if kindIs "float64" .value -}}
{{- if eq (floor .value) .value -}}{{- int64 .value -}}{{- else -}}{{- .value -}}{{- end -}}
{{- else -}}
{{- .value -}}
{{- end -}}
{{- end -}}

{{/* What a recognizer's pods in this chart are called, for RIVA_ENDPOINTS: each by itself, so that the gateway and not
the network chooses among them. */}}
{{- define "gateway.endpoints" -}}
{{- $endpoints := .Values.riva.endpoints -}}
{{- if .Values.nim.enabled -}}
{{- range $number := until (int .Values.nim.replicas) -}}
{{- $name := include "gateway.nimName" $ -}}
{{- $endpoints = append $endpoints (printf "%s-%d.%s:%d" $name $number $name (int $.Values.nim.grpcPort)) -}}
{{- end -}}
{{- end -}}
{{- join "," $endpoints -}}
{{- end -}}

{{- define "gateway.databaseSecret" -}}
{{- if .Values.jobs.database.secret -}}
{{- .Values.jobs.database.secret -}}
{{- else if hasKey .Values.secrets.keys "JOBS_DATABASE_URL" -}}
{{- (get .Values.secrets.keys "JOBS_DATABASE_URL").secret -}}
{{- else -}}
{{- default "" .Values.settings.JOBS_DATABASE_URL -}}
{{- end -}}
{{- end -}}

{{/* preStop, DRAIN_DELAY_MS and DRAIN_TIMEOUT_MS together, in whole seconds. */}}
{{- define "gateway.drainSeconds" -}}
{{- $delay := dig "DRAIN_DELAY_MS" 0 .Values.settings | int64 -}}
{{- $streams := dig "DRAIN_TIMEOUT_MS" 25000 .Values.settings | int64 -}}
{{- $drain := div (add $delay $streams 999) 1000 -}}
{{- add $drain (.Values.drain.preStopSeconds | int64) -}}
{{- end -}}

{{/* Beyond it up to 10 s for the recognizer's last connections, and 5 s to be sure. */}}
{{- define "gateway.graceSeconds" -}}
{{- $given := int64 .Values.terminationGracePeriodSeconds -}}
{{- if $given -}}{{- $given -}}{{- else -}}{{- add (include "gateway.drainSeconds" . | int64) 15 -}}{{- end -}}
{{- end -}}

{{- define "gateway.uploadBytes" -}}
{{- $upload := dig "MAX_UPLOAD_BYTES" 67108864 .Values.settings | int64 -}}
{{- if .Values.jobs.enabled -}}
{{- $upload = max $upload (dig "JOBS_MAX_UPLOAD_BYTES" 2147483648 .Values.settings | int64) -}}
{{- end -}}
{{/* A form has boundaries and fields around the file. */}}
{{- add $upload 1048576 -}}
{{- end -}}
