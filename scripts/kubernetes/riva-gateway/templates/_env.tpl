{{/* The gateway's environment: the settings, and what follows from other values. In the pod template itself and not in
a ConfigMap, so that going back to a former revision brings its settings back too. */}}
{{- define "gateway.env" -}}
{{- $v := .Values -}}
{{- $env := dict -}}
{{- range $key, $value := $v.settings -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $env $key (include "gateway.value" (dict "value" $value)) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $env "LISTEN_HOST" $v.listenHost -}}
{{- $_ := set $env "PORT" "8443" -}}
{{- $_ := set $env "GRPC_PORT" (ternary "50052" "off" $v.grpc.enabled) -}}
{{- $_ := set $env "TLS" (ternary "on" "off" (eq (include "gateway.secure" .) "true")) -}}
{{- $_ := set $env "STATE_DIR" "/var/lib/riva-gateway" -}}
{{- $_ := set $env "JOBS" (ternary "on" "off" $v.jobs.enabled) -}}
{{- if and $v.jobs.enabled $v.jobs.spool.enabled -}}
{{- $_ := set $env "SPOOL_DIR" "/var/spool/riva-gateway" -}}
{{- end -}}
{{- if include "gateway.ownCertificate" . -}}
{{- $_ := set $env "TLS_CERT" "/etc/riva-gateway/tls/tls.crt" -}}
{{- $_ := set $env "TLS_KEY" "/etc/riva-gateway/tls/tls.key" -}}
{{- end -}}
{{- if $v.tls.clientCA.secret -}}
{{- $_ := set $env "TLS_CLIENT_CA" (printf "/etc/riva-gateway/client-ca/%s" $v.tls.clientCA.key) -}}
{{- end -}}
{{- if include "gateway.endpoints" . -}}
{{- $_ := set $env "RIVA_ENDPOINTS" (include "gateway.endpoints" .) -}}
{{- end -}}
{{- if $v.riva.formerEndpoints -}}
{{- $_ := set $env "RIVA_FORMER_ENDPOINTS" (join "," $v.riva.formerEndpoints) -}}
{{- end -}}
{{- if $v.riva.canaryEndpoints -}}
{{- $_ := set $env "RIVA_CANARY_ENDPOINTS" (join "," $v.riva.canaryEndpoints) -}}
{{- end -}}
{{- if $v.riva.tls.rootCertificate.secret -}}
{{- $_ := set $env "RIVA_SSL_ROOT_CERT" (printf "/etc/riva-gateway/riva-ca/%s" $v.riva.tls.rootCertificate.key) -}}
{{- end -}}
{{- if $v.riva.tls.clientCertificate.secret -}}
{{- $_ := set $env "RIVA_SSL_CLIENT_CERT" "/etc/riva-gateway/riva-client/tls.crt" -}}
{{- $_ := set $env "RIVA_SSL_CLIENT_KEY" "/etc/riva-gateway/riva-client/tls.key" -}}
{{- end -}}
{{- if $v.apiKeys.secret -}}
{{- $_ := set $env "API_KEYS_FILE" (printf "/etc/riva-gateway/api-keys/%s" $v.apiKeys.key) -}}
{{- end -}}
{{- if include "gateway.secretSources" . -}}
{{- $_ := set $env "ASR_SECRETS_DIR" "/run/secrets/riva-gateway" -}}
{{- end -}}
{{- range $key := keys $env | sortAlpha }}
- name: {{ $key }}
  value: {{ get $env $key | quote }}
{{- end }}
{{- with $v.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where the files of ASR_SECRETS_DIR come from. */}}
{{- define "gateway.secretSources" -}}
{{- $keys := deepCopy .Values.secrets.keys -}}
{{- if and .Values.jobs.enabled .Values.jobs.database.secret -}}
{{- $_ := set $keys "JOBS_DATABASE_URL" .Values.jobs.database -}}
{{- end -}}
{{- with .Values.secrets.name }}
- secret:
    name: {{ . }}
{{- end }}
{{- range $key := keys $keys | sortAlpha }}
{{- $from := get $keys $key }}
- secret:
    name: {{ $from.secret }}
    items:
      - key: {{ $from.key }}
        path: {{ $key }}
{{- end }}
{{- end -}}

{{/* The Secrets that are read at the start alone, with their versions: an upgrade after a change renews the pods. (What
is in them is not hashed: whoever may read pods could guess at it.) */}}
{{- define "gateway.secretVersions" -}}
{{- $names := compact (list .Values.secrets.name .Values.jobs.database.secret) -}}
{{- range $_, $from := .Values.secrets.keys -}}
{{- $names = append $names $from.secret -}}
{{- end -}}
{{- range $name := uniq $names | sortAlpha -}}
{{- $found := lookup "v1" "Secret" $.Release.Namespace $name -}}
{{ $name }}={{ dig "metadata" "resourceVersion" "" $found }},
{{- end -}}
{{- end -}}

{{/* A look at a path of the gateway. Kubernetes shows no certificate; where one is asked for, the container looks itself
(the certificate of localhost need not be its own). */}}
{{- define "gateway.probe" -}}
{{- if .root.Values.tls.clientCA.secret -}}
exec:
  command:
    - python3
    - -I
    - -c
    - |
      import http.client, ssl, sys
      context = ssl._create_unverified_context()
      context.load_cert_chain("/etc/riva-gateway/probe/tls.crt", "/etc/riva-gateway/probe/tls.key")
      gateway = http.client.HTTPSConnection("localhost", 8443, timeout=3, context=context)
      gateway.request("GET", sys.argv[1])
      sys.exit(gateway.getresponse().status != 200)
    - {{ .path }}
{{- else -}}
httpGet:
  path: {{ .path }}
  port: https
  scheme: {{ ternary "HTTPS" "HTTP" (eq (include "gateway.secure" .root) "true") }}
{{- end -}}
{{- end -}}
