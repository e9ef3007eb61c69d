{{/*
Templates of the example application. Other charts do not use them.
*/}}

{{/* The name of the scrape job that the monitors create. */}}
{{- define "equabot-broker.job" -}}
{{- $name := include "equabot-broker.fullname" . -}}
{{- $metrics := .values.metrics -}}
{{- if and $metrics.podMonitor.enabled $metrics.serviceMonitor.enabled -}}
  {{- fail "metrics.podMonitor and metrics.serviceMonitor are both enabled and would scrape every pod twice: disable one" -}}
{{- end -}}
{{- if $metrics.prometheusRule.job -}}
{{- $metrics.prometheusRule.job -}}
{{- else if $metrics.podMonitor.enabled -}}
{{- printf "%s/%s" .root.Release.Namespace $name -}}
{{- else if $metrics.serviceMonitor.enabled -}}
{{- $name }}-health
{{- else if $metrics.prometheusRule.enabled -}}
  {{- fail "metrics.prometheusRule needs a scrape job to query: enable metrics.podMonitor or metrics.serviceMonitor, or set metrics.prometheusRule.job" -}}
{{- end -}}
{{- end -}}

{{/* The labels that select the pods of the application. */}}
{{- define "equabot-broker.podSelector" -}}
{{ include "equabot-broker.selectorLabels" . }}
app.kubernetes.io/component: agent
{{- end -}}

{{/* The metadata of an object. Takes the context and, as `suffix`, the text after the name. */}}
{{- define "equabot-broker.metadata" -}}
name: {{ include "equabot-broker.fullname" . }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "equabot-broker.labels" . | nindent 2 }}
{{- end -}}

{{/* The first label selector of the sources, for NOTES.txt. */}}
{{- define "equabot-broker.selector" -}}
{{- $found := "" -}}
{{- range .values.config.sources -}}
  {{- if kindIs "map" . -}}{{- $found = $found | default (dig "kubernetes" "selector" "" .) -}}{{- end -}}
{{- end -}}
{{- $found | default "equabot.dev/credential=true" -}}
{{- end -}}

{{/* The images whose names are still the default ones, which no registry has; for NOTES.txt. */}}
{{- define "equabot-broker.unpublished" -}}
{{- $names := list -}}
{{- range list .values.broker.image .values.application.image -}}
  {{- if has .repository (list "equabot-broker" "equabot-example-agent") -}}{{- $names = append $names (printf "%s:%s" .repository .tag) -}}{{- end -}}
{{- end -}}
{{- join " or " $names -}}
{{- end -}}

{{/* The `kubectl create secret` options that store a key of each required provider, for NOTES.txt. Without
a required provider, it is Anthropic's. An unknown variable is NAME. */}}
{{- define "equabot-broker.keyFiles" -}}
{{- $known := .root.Files.Get "files/variables.yaml" | fromYaml -}}
{{- $own := .values.config.providers | default dict -}}
{{- $options := list -}}
{{- range .values.config.required | default (list "anthropic") -}}
  {{- $declared := keys (dig . "env" dict $own) | sortAlpha -}}
  {{- $variable := concat $declared (list (get $known . | default "NAME")) | first -}}
  {{- $options = append $options (printf "--from-file=%s=%s.key" $variable .) -}}
{{- end -}}
{{- join " " $options -}}
{{- end -}}
