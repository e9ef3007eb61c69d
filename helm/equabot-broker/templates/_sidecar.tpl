{{/* Entries for `initContainers` if the cluster has native sidecars, else empty. */}}
{{- define "equabot-broker.sidecar" -}}
{{- if include "equabot-broker.isNative" . -}}
{{ include "equabot-broker.containers" . }}
{{- end -}}
{{- end -}}

{{/* Entries for `containers`, ahead of the agents, if the cluster has no native sidecars; else empty. */}}
{{- define "equabot-broker.plainSidecar" -}}
{{- if not (include "equabot-broker.isNative" .) -}}
{{ include "equabot-broker.containers" . }}
{{- end -}}
{{- end -}}

{{- define "equabot-broker.containers" -}}
{{ include "equabot-broker.brokerContainer" . }}
{{- if .values.gateway.enabled }}
{{ include "equabot-broker.gatewayContainer" . }}
{{- end }}
{{- end -}}

{{- define "equabot-broker.brokerContainer" -}}
{{- $context := . -}}
{{- $health := include "equabot-broker.port" (dict "values" .values "key" "health") -}}
- name: equabot-broker
  image: {{ include "equabot-broker.image" .values.broker.image }}
  imagePullPolicy: {{ .values.broker.image.pullPolicy }}
  {{- if include "equabot-broker.isNative" . }}
  restartPolicy: Always
  {{- end }}
  args: {{ concat (list "serve") .values.broker.args | toJson }}
  env:
    - name: EQUABOT_CONFIG
      value: /etc/equabot/equabot.yaml
    {{- with .values.broker.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if not (include "equabot-broker.isNative" .) }}
  # The kubelet starts the containers in order. It waits for this hook before it starts the next one.
  lifecycle:
    postStart:
      exec: {command: [equabot, health, liveness, --wait, "60"]}
  {{- end }}
  ports:
    - {name: equabot-health, containerPort: {{ $health }}}
    - {name: equabot-metrics, containerPort: {{ include "equabot-broker.port" (dict "values" .values "key" "metrics") }}}
    {{- range $name, $port := include "equabot-broker.remotePorts" . | fromJson }}
    - {name: {{ $name }}, containerPort: {{ $port }}}
    {{- end }}
  {{- range $probe, $service := dict "startup" "liveness" "liveness" "liveness" "readiness" "readiness" }}
  {{ $probe }}Probe:
    grpc: {port: {{ $health }}, service: {{ $service }}}
    {{- toYaml (get $context.values.broker.probes $probe) | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml .values.broker.resources | nindent 4 }}
  securityContext:
    {{- include "equabot-broker.securityContext" (dict "user" 65532) | nindent 4 }}
  volumeMounts:
    - {name: equabot-config, mountPath: /etc/equabot, readOnly: true}
    - {name: equabot-run, mountPath: /run/equabot}
    - {name: equabot-home, mountPath: /var/lib/equabot}
    {{- if .values.gateway.enabled }}
    - {name: equabot-gateway, mountPath: /run/equabot/gateway}
    {{- end }}
    {{- range $agent := include "equabot-broker.agents" . | fromJson | keys | sortAlpha }}
    - {name: {{ include "equabot-broker.agentVolume" $agent }}, mountPath: /run/equabot-agents/{{ $agent }}}
    {{- end }}
    {{- if include "equabot-broker.usesApi" . }}
    - {name: equabot-api, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- end }}
    {{- if .values.workloadIdentity }}
    - {name: equabot-workload, mountPath: /run/secrets/workload, readOnly: true}
    {{- end }}
    {{- range .values.mountedSecrets }}
    - {name: equabot-secret-{{ . | replace "." "-" | trunc 47 | trimSuffix "-" }}, mountPath: /run/secrets/equabot/{{ . }}, readOnly: true}
    {{- end }}
    {{- if .values.tlsSecret }}
    - {name: equabot-tls, mountPath: /run/secrets/equabot-tls, readOnly: true}
    {{- end }}
    {{- with .values.broker.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* The Envoy container. The broker writes Envoy's configuration before the broker's startup probe succeeds.
Envoy runs as the broker's user, because only that user can open the control socket. It listens on
loopback, where no probe reaches it. */}}
{{- define "equabot-broker.gatewayContainer" -}}
- name: equabot-gateway
  image: {{ include "equabot-broker.image" .values.gateway.image }}
  imagePullPolicy: {{ .values.gateway.image.pullPolicy }}
  {{- if include "equabot-broker.isNative" . }}
  restartPolicy: Always
  {{- end }}
  command: [/usr/local/bin/envoy]
  # Lines of a lower level contain headers, and headers contain keys.
  args: [-c, /run/equabot/gateway/envoy.yaml, --disable-hot-restart, --concurrency, "2", --log-level, warning, --log-format-escaped]
  resources:
    {{- toYaml .values.gateway.resources | nindent 4 }}
  securityContext:
    {{- include "equabot-broker.securityContext" (dict "user" 65532) | nindent 4 }}
  volumeMounts:
    - {name: equabot-gateway, mountPath: /run/equabot/gateway, readOnly: true}
{{- end -}}

{{/* The security context of the pod. All containers are in the group of the sockets. */}}
{{- define "equabot-broker.podSecurityContext" -}}
runAsNonRoot: true
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The security context of a container. Takes `user`. */}}
{{- define "equabot-broker.securityContext" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}
