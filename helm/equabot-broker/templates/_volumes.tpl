{{/* The name of the volume for an agent's socket. Takes the name of the agent. */}}
{{- define "equabot-broker.agentVolume" -}}
{{- if gt (len .) 49 -}}
  {{- fail (printf "config.agents: %s is too long for the name of a volume: use at most 49 characters" .) -}}
{{- end -}}
equabot-agent-{{ . | replace "_" "-" }}
{{- end -}}

{{/* The pod's volumes. */}}
{{- define "equabot-broker.volumes" -}}
- name: equabot-config
  configMap:
    name: {{ include "equabot-broker.fullname" . }}
# The run directory of the broker, with the admin socket and state.db. No agent mounts it.
- name: equabot-run
  emptyDir: {medium: Memory, sizeLimit: {{ .values.broker.runSizeLimit }}}
- name: equabot-home
  {{- if .values.broker.homeClaim }}
  persistentVolumeClaim: {claimName: {{ .values.broker.homeClaim }}}
  {{- else }}
  emptyDir: {medium: Memory, sizeLimit: {{ .values.broker.runSizeLimit }}}
  {{- end }}
{{- if .values.gateway.enabled }}
- name: equabot-gateway
  emptyDir: {medium: Memory, sizeLimit: 8Mi}
{{- end }}
{{- range $agent := include "equabot-broker.agents" . | fromJson | keys | sortAlpha }}
- name: {{ include "equabot-broker.agentVolume" $agent }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}
{{- if include "equabot-broker.usesApi" . }}
# The service account files that Kubernetes mounts by default, here only for the broker's container.
- name: equabot-api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}
{{- with .values.workloadIdentity }}
- name: equabot-workload
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - serviceAccountToken:
          path: {{ .name }}/token
          audience: {{ .audience | quote }}
          expirationSeconds: {{ .expirationSeconds | default 3600 }}
      {{- end }}
{{- end }}
{{- range .values.mountedSecrets }}
- name: equabot-secret-{{ . | replace "." "-" | trunc 47 | trimSuffix "-" }}
  # Without the Secret the pod starts, but is not ready.
  secret: {secretName: {{ . }}, optional: true, defaultMode: 0440}
{{- end }}
{{- with .values.tlsSecret }}
- name: equabot-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .values.broker.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `true` if the broker uses the API server, else empty. */}}
{{- define "equabot-broker.usesApi" -}}
{{- if or (include "equabot-broker.secrets" . | fromJson) (include "equabot-broker.asksAboutCallers" .) -}}true{{- end -}}
{{- end -}}

{{/* The volume mounts of an agent's container. Takes `agent`, the name of the agent (default: `main`). */}}
{{- define "equabot-broker.agentVolumeMounts" -}}
{{- $agent := include "equabot-broker.agentName" . -}}
- name: {{ include "equabot-broker.agentVolume" $agent }}
  mountPath: /run/equabot/{{ $agent }}
  readOnly: true
{{- end -}}

{{/* The environment of an agent's container. Takes `agent`, as above. */}}
{{- define "equabot-broker.agentEnv" -}}
- name: EQUABOT_BROKER_ADDRESS
  value: unix:/run/equabot/{{ include "equabot-broker.agentName" . }}/broker.sock
{{- end -}}

{{- define "equabot-broker.agentName" -}}
{{- $agent := .agent | default "main" -}}
{{- $agents := include "equabot-broker.agents" . | fromJson -}}
{{- if not (hasKey $agents $agent) -}}
  {{- fail (printf "%s is not an agent of config.agents, which has %s: add it there, or use one of those" $agent (keys $agents | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $agent -}}
{{- end -}}
