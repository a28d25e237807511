{{/* What cannot work is refused here, with what to do about it, and not found out by pods that do not start. */}}
{{- define "gateway.checks" -}}
{{- $v := .Values -}}
{{- $several := include "gateway.several" . -}}
{{- $owned := include "gateway.owned" . | fromYaml -}}
{{- range $key := keys $v.settings | sortAlpha -}}
{{- if hasKey $owned $key -}}
{{- fail (printf "settings.%s: the chart sets it. %s" $key (get $owned $key)) -}}
{{- end -}}
{{- end -}}
{{- $known := .Files.Get "files/settings.json" | fromJson -}}
{{- range $v.extraEnv -}}
{{- if has .name $known.all -}}
{{- fail (printf "extraEnv: %s is a setting of the gateway. Put it into settings, and a secret into secrets." .name) -}}
{{- else if or (hasPrefix "ASR_" .name) (hasPrefix "RIVA_" .name) -}}
{{- fail (printf "extraEnv: %s: there is no such setting, and the gateway refuses unknown names that begin with ASR_ or RIVA_." .name) -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := $v.secrets.keys -}}
{{- if not (has $key $known.secrets) -}}
{{- fail (printf "secrets.keys.%s is no secret of the gateway (docs/secrets.md). Other settings belong into settings." $key) -}}
{{- end -}}
{{- end -}}
{{- $engine := $v.settings.ASR_ENGINE -}}
{{- if not (or (include "gateway.endpoints" .) $engine) -}}
{{- fail "Nobody recognizes speech. Name a server in riva.endpoints, or nim.enabled=true (needs a GPU), or settings.ASR_ENGINE=local with the image `laptop`." -}}
{{- end -}}
{{- if and (eq (default "riva" $engine) "riva") (not (include "gateway.endpoints" .)) -}}
{{- fail "settings.ASR_ENGINE is riva, and riva.endpoints names none. Name one, or nim.enabled=true." -}}
{{- end -}}
{{- $said := or (hasKey $v.settings "AUTH") $v.apiKeys.secret $v.settings.JWT_KEYS $v.settings.TOKEN_SECRET (hasKey $v.secrets.keys "TOKEN_SECRET") -}}
{{- if not (or $said (and $v.tls.clientCA.secret (include "gateway.grpcSecure" .))) -}}
{{- fail "Everybody who reaches the Service could use the gateway. Name who may: apiKeys.secret, settings.JWT_KEYS or secrets.keys.TOKEN_SECRET; or say settings.AUTH=on or off." -}}
{{- end -}}
{{- if and (eq $v.tls.mode "secret") (not $v.tls.secret) -}}
{{- fail "tls.mode is secret: name it in tls.secret (with tls.crt and tls.key)." -}}
{{- end -}}
{{- if and (eq $v.tls.mode "certManager") (not $v.tls.certManager.issuer.name) -}}
{{- fail "tls.mode is certManager: name the issuer in tls.certManager.issuer.name." -}}
{{- end -}}
{{- if and (eq $v.tls.mode "certManager") (not (or $v.tls.certManager.dnsNames $v.tls.certManager.clusterNames)) -}}
{{- fail "tls.mode is certManager: name the addresses in tls.certManager.dnsNames, or set clusterNames (a private issuer)." -}}
{{- end -}}
{{- if and $v.tls.clientCA.secret (not $v.tls.probeCertificate.secret) -}}
{{- fail "tls.clientCA asks everybody for a certificate, the probes too: name a Secret with theirs in tls.probeCertificate.secret." -}}
{{- end -}}
{{- if and $v.tls.clientCA.secret (not (include "gateway.secure" .)) -}}
{{- fail "tls.clientCA without TLS asks nobody. Choose another tls.mode, or leave it out." -}}
{{- end -}}
{{- if and $v.tls.clientCA.secret $v.monitoring.scrape.enabled (not $v.monitoring.scrape.clientCertificate.secret) -}}
{{- fail "tls.clientCA asks everybody for a certificate, Prometheus too: name a Secret with its own in monitoring.scrape.clientCertificate.secret." -}}
{{- end -}}
{{- if and $v.autoscaling.hpa.enabled $v.autoscaling.keda.enabled -}}
{{- fail "autoscaling.hpa and autoscaling.keda would both set the number of gateways. Enable one." -}}
{{- end -}}
{{- if and (include "gateway.autoscaled" .) (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- fail "autoscaling.maxReplicas is below minReplicas." -}}
{{- end -}}
{{- if and (include "gateway.autoscaled" .) (gt (int $v.autoscaling.streamsPerPod) (dig "MAX_STREAMS" 1000 $v.settings | int)) -}}
{{- fail "autoscaling.streamsPerPod is more than settings.MAX_STREAMS lets in: it would never be reached." -}}
{{- end -}}
{{- if and $several $v.persistence.enabled -}}
{{- fail "persistence is one gateway's own folder, and there are several gateways. Leave it out; uploads of jobs belong into jobs.spool." -}}
{{- end -}}
{{- if $v.jobs.enabled -}}
{{- if and $several (not (include "gateway.databaseSecret" .)) -}}
{{- fail "Jobs of several gateways need PostgreSQL: each would have a file of its own, and answer for its own jobs alone. Name its Secret in jobs.database.secret, or jobs.enabled=false." -}}
{{- end -}}
{{- if and $several (not $v.jobs.spool.enabled) -}}
{{- fail "Jobs of several gateways need one spool: uploads would go with their pod. Set jobs.spool.enabled with a class or claim that many can write (ReadWriteMany)." -}}
{{- end -}}
{{- if not (or $several $v.persistence.enabled (and (include "gateway.databaseSecret" .) $v.jobs.spool.enabled)) -}}
{{- fail "Jobs are kept, and this pod's folder is not: set persistence.enabled, or jobs.database.secret and jobs.spool.enabled; or jobs.enabled=false." -}}
{{- end -}}
{{- end -}}
{{- $grace := int64 $v.terminationGracePeriodSeconds -}}
{{- $drain := include "gateway.drainSeconds" . | int64 -}}
{{- if and $grace (le $grace $drain) -}}
{{- fail (printf "terminationGracePeriodSeconds=%d would kill streams: drain.preStopSeconds, DRAIN_DELAY_MS and DRAIN_TIMEOUT_MS take %d s. Make it longer, or 0 to have it computed." $grace $drain) -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- fail "ingress.enabled: name the address that clients use in ingress.host." -}}
{{- end -}}
{{- if and $v.ingress.enabled $v.ingress.grpcHost (eq $v.ingress.grpcHost $v.ingress.host) -}}
{{- fail "ingress.grpcHost is ingress.host. One host has one kind of backend: give gRPC a name of its own." -}}
{{- end -}}
{{- if and (or $v.ingress.grpcHost $v.gatewayApi.grpcHostnames) (not $v.grpc.enabled) -}}
{{- fail "A route for gRPC, and grpc.enabled=false. Leave one out." -}}
{{- end -}}
{{- if and $v.gatewayApi.enabled $v.gatewayApi.routes (not $v.gatewayApi.parentRefs) -}}
{{- fail "gatewayApi.enabled: name your Gateway in gatewayApi.parentRefs." -}}
{{- end -}}
{{- if and $v.gatewayApi.enabled $v.gatewayApi.canary.service (not $v.gatewayApi.routes) -}}
{{- fail "gatewayApi.canary divides this release's routes, and gatewayApi.routes=false. Name it in the release that has them." -}}
{{- end -}}
{{- if and $v.gatewayApi.enabled $v.gatewayApi.backendTLS.enabled (not (include "gateway.ownCertificate" .)) -}}
{{- fail (printf "gatewayApi.backendTLS: with tls.mode %s the pods have no certificate that a Gateway could verify. Choose secret or certManager, or leave it out." $v.tls.mode) -}}
{{- end -}}
{{- range $grpc := ternary $v.gatewayApi.grpcHostnames list $v.gatewayApi.enabled -}}
{{- range $http := default (list "") $v.gatewayApi.hostnames -}}
{{- if or (not $http) (eq $http $grpc) (and (hasPrefix "*." $http) (hasSuffix (trimPrefix "*" $http) $grpc)) (and (hasPrefix "*." $grpc) (hasSuffix (trimPrefix "*" $grpc) $http)) -}}
{{- fail (printf "gatewayApi.grpcHostnames: %s is among gatewayApi.hostnames, too (or those are empty, which means all). A Gateway accepts one of the two routes: give each its own names." $grpc) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Settings that other values decide. */}}
{{- define "gateway.owned" -}}
LISTEN_HOST: Use listenHost; networkPolicy says who reaches it.
PORT: It is 8443 in the pod; service.port is the Service's.
GRPC_PORT: It is 50052 in the pod; service.grpcPort is the Service's, grpc.enabled switches it off.
TLS: Use tls.mode.
TLS_CERT: Use tls.secret.
TLS_KEY: Use tls.secret.
TLS_CLIENT_CA: Use tls.clientCA.
STATE_DIR: It is /var/lib/riva-gateway; persistence puts it on a volume.
SPOOL_DIR: Use jobs.spool.
ASR_SECRETS_DIR: Use secrets.
API_KEYS_FILE: Use apiKeys.
RIVA_ENDPOINTS: Use riva.endpoints.
RIVA_HOST: Use riva.endpoints.
RIVA_PORT: Use riva.endpoints.
NIM_HOST: Use riva.endpoints or nim.enabled.
RIVA_GRPC_PORT: Use riva.endpoints or nim.grpcPort.
RIVA_FORMER_ENDPOINTS: Use riva.formerEndpoints.
RIVA_CANARY_ENDPOINTS: Use riva.canaryEndpoints.
RIVA_SSL_ROOT_CERT: Use riva.tls.rootCertificate.
RIVA_SSL_CLIENT_CERT: Use riva.tls.clientCertificate.
RIVA_SSL_CLIENT_KEY: Use riva.tls.clientCertificate.
JOBS: Use jobs.enabled.
SAGEMAKER_BIND_TO_PORT: It is for SageMaker's containers alone.
NGC_API_KEY: Use nim.ngcAPISecret.
NIM_TAGS_SELECTOR: Use nim.tagsSelector.
NIM_COMMAND: The NIM has a pod of its own; use nim.enabled.
NIM_START_TIMEOUT_MS: Use nim.startupSeconds.
{{- end -}}
