{{/*
The broker's configuration: the values, and the settings that depend on the pod. The chart passes the
values on as they are. If the values set what the chart sets itself, the chart refuses them with the
reason.
*/}}
{{- define "equabot-broker.config" -}}
{{- $config := deepCopy .values.config -}}
{{- $listen := $config.listen | default dict -}}
{{- if hasKey $config "run_dir" -}}
  {{- fail "config.run_dir depends on the volumes of the pod, and the chart sets it: remove it from the values" -}}
{{- end -}}
{{- range $key := list "admin" "control" -}}
  {{- if hasKey $listen $key -}}
    {{- fail (printf "config.listen.%s must be on a volume that no agent mounts, and the chart sets it: remove it from the values" $key) -}}
  {{- end -}}
{{- end -}}
{{- range $key, $port := dict "health" 8686 "metrics" 9464 -}}
  {{- $address := get $listen $key | default (printf "0.0.0.0:%d" $port) -}}
  {{- if regexMatch "^(127[.]|localhost:|\\[::1\\])" $address -}}
    {{- fail (printf "config.listen.%s is %s, which is not reachable from outside the pod: set it to 0.0.0.0:%d, or remove it" $key $address $port) -}}
  {{- end -}}
  {{- $_ := set $listen $key $address -}}
{{- end -}}
{{- $_ := set $config "run_dir" "/run/equabot" -}}
{{- $_ := set $config "listen" $listen -}}
{{- $_ := set $config "gateway" (include "equabot-broker.gatewayConfig" . | fromJson) -}}
{{- if not $config.gateway -}}{{- $_ := unset $config "gateway" -}}{{- end -}}
{{- $_ := set $config "agents" (include "equabot-broker.agents" . | fromJson) -}}
{{- include "equabot-broker.checkMounted" . -}}
{{- if include "equabot-broker.keepsAudit" . -}}
  {{- /* The log outlives the pod, and so must its anchor. */ -}}
  {{- $_ := set $config "audit" (merge (dict) $config.audit (dict "anchor" "/var/lib/equabot/audit.head")) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* `true` if the audit log is a file on the claim, which only one pod at a time may write; else empty. */}}
{{- define "equabot-broker.keepsAudit" -}}
{{- $path := dig "audit" "path" "" .values.config | toString -}}
{{- if and .values.broker.homeClaim (hasPrefix "/var/lib/equabot/" $path) -}}
  {{- if gt (int .values.application.replicas) 1 -}}
    {{- fail (printf "config.audit.path %s is a file of one pod, but application.replicas is greater than 1: set it to 1, or write the records to standard output" $path) -}}
  {{- end -}}
true
{{- end -}}
{{- end -}}

{{/* The agents with their socket paths, as JSON. */}}
{{- define "equabot-broker.agents" -}}
{{- $agents := deepCopy (.values.config.agents | default (dict "main" dict)) -}}
{{- $gateway := .values.gateway.enabled -}}
{{- $volumes := dict -}}
{{- range $name := keys $agents | sortAlpha -}}
  {{- $agent := get $agents $name | default dict -}}
  {{- if hasKey $agent "socket" -}}
    {{- fail (printf "config.agents.%s.socket must be on a volume that only this agent mounts, and the chart sets it: remove it from the values" $name) -}}
  {{- end -}}
  {{- $volume := include "equabot-broker.agentVolume" $name -}}
  {{- if hasKey $volumes $volume -}}
    {{- fail (printf "config.agents: %s and %s would share a volume and a socket: rename one of them" $name (get $volumes $volume)) -}}
  {{- end -}}
  {{- $_ := set $volumes $volume $name -}}
  {{- if and $gateway (not (hasKey $agent "deliveries")) -}}
    {{- $_ := set $agent "deliveries" (list "brokered") -}}
  {{- end -}}
  {{- if and (not $gateway) (eq (toJson $agent.deliveries) "[\"brokered\"]") -}}
    {{- fail (printf "config.agents.%s.deliveries is [brokered], which needs the gateway: set gateway.enabled=true, or add raw" $name) -}}
  {{- end -}}
  {{- $_ := set $agent "socket" (printf "/run/equabot-agents/%s/broker.sock" $name) -}}
  {{- $_ := set $agents $name $agent -}}
{{- end -}}
{{- toJson $agents -}}
{{- end -}}

{{/* The `gateway` section of the configuration, as JSON. */}}
{{- define "equabot-broker.gatewayConfig" -}}
{{- $section := deepCopy (.values.config.gateway | default dict) -}}
{{- $mode := toString ($section.mode | default "") -}}
{{- if and .values.gateway.enabled (not (has $mode (list "" "sidecar"))) -}}
  {{- fail (printf "config.gateway.mode is %s, but gateway.enabled is true: remove the mode, or set gateway.enabled=false" $mode) -}}
{{- end -}}
{{- if and (not .values.gateway.enabled) (eq $mode "sidecar") -}}
  {{- fail "config.gateway.mode is sidecar, but no Envoy runs in the pod: set gateway.enabled=true, which sets the mode" -}}
{{- end -}}
{{- if .values.gateway.enabled -}}
  {{- $_ := set $section "mode" "sidecar" -}}
  {{/* The memory limit of Envoy is the container's. */}}
  {{- $limit := dig "limits" "memory" "" (.values.gateway.resources | default dict) -}}
  {{- if and $limit (not (hasKey $section "memory")) -}}{{- $_ := set $section "memory" (toString $limit) -}}{{- end -}}
{{- end -}}
{{- toJson $section -}}
{{- end -}}

{{- define "equabot-broker.checkMounted" -}}
{{- if .values.mountedSecrets -}}
  {{- $found := not (hasKey .values.config "sources") -}}
  {{- range .values.config.sources -}}
    {{- if or (eq (toString .) "mounted") (and (kindIs "map" .) (hasKey . "mounted")) -}}{{- $found = true -}}{{- end -}}
  {{- end -}}
  {{- if not $found -}}
    {{- fail "mountedSecrets is set, but no source reads the files: add `- mounted` to config.sources" -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* A port of `listen`. Takes the context and, as `key`, the name of the port. */}}
{{- define "equabot-broker.port" -}}
{{- $usual := dict "health" "8686" "metrics" "9464" -}}
{{- $address := get (.values.config.listen | default dict) .key | default (get $usual .key) -}}
{{- regexFind "[0-9]+$" (toString $address) -}}
{{- end -}}

{{/* The whole ConfigMap. */}}
{{- define "equabot-broker.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "equabot-broker.fullname" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "equabot-broker.labels" . | nindent 4 }}
data:
  equabot.yaml: |
    {{- include "equabot-broker.config" . | nindent 4 }}
{{- end -}}

{{/* Annotations of the pod. They change with the configuration, so that the pods restart. */}}
{{- define "equabot-broker.podAnnotations" -}}
equabot.dev/config-checksum: {{ include "equabot-broker.config" . | sha256sum }}
{{- end -}}
