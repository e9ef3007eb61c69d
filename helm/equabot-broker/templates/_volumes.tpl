{{/* The volume of an agent's socket: takes the agent's name. */}}
{{- define "equabot-broker.agentVolume" -}}
{{- if gt (len .) 49 -}}
  {{- fail (printf "config.agents: %s is too long for a volume's name: use at most 49 characters" .) -}}
{{- end -}}
equabot-agent-{{ . | replace "_" "-" }}
{{- end -}}

{{/* The pod's volumes. */}}
{{- define "equabot-broker.volumes" -}}
- name: equabot-config
  configMap:
    name: {{ include "equabot-broker.fullname" . }}
# The broker's own: the operators' socket, state.db. No agent mounts it.
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
# What a pod gets by itself, in the broker's container alone.
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
  # Without it the pod starts, and is not ready.
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

{{/* `true` where the broker speaks to the API server, else nothing. */}}
{{- define "equabot-broker.usesApi" -}}
{{- if or (include "equabot-broker.secrets" . | fromJson) (include "equabot-broker.asksAboutCallers" .) -}}true{{- end -}}
{{- end -}}

{{/* The mounts of an agent's container. `agent` in the argument says whose; without, it is `main`. */}}
{{- define "equabot-broker.agentVolumeMounts" -}}
{{- $agent := include "equabot-broker.agentName" . -}}
- name: {{ include "equabot-broker.agentVolume" $agent }}
  mountPath: /run/equabot/{{ $agent }}
  readOnly: true
{{- end -}}

{{/* The environment of an agent's container; `agent` as above. */}}
{{- define "equabot-broker.agentEnv" -}}
- name: EQUABOT_BROKER_ADDRESS
  value: unix:/run/equabot/{{ include "equabot-broker.agentName" . }}/broker.sock
{{- end -}}

{{- define "equabot-broker.agentName" -}}
{{- $agent := .agent | default "main" -}}
{{- $agents := include "equabot-broker.agents" . | fromJson -}}
{{- if not (hasKey $agents $agent) -}}
  {{- fail (printf "%s is no agent of config.agents, which has %s: add it there, or name one of those" $agent (keys $agents | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $agent -}}
{{- end -}}
