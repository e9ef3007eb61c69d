{{/*
The example application's own: nothing here is for other charts.
*/}}

{{/* The scrape's job, as the monitors make it. */}}
{{- define "equabot-broker.job" -}}
{{- $name := include "equabot-broker.fullname" . -}}
{{- $metrics := .values.metrics -}}
{{- if and $metrics.podMonitor.enabled $metrics.serviceMonitor.enabled -}}
  {{- fail "metrics.podMonitor and metrics.serviceMonitor are both enabled, and would scrape every pod twice: disable one" -}}
{{- end -}}
{{- if $metrics.prometheusRule.job -}}
{{- $metrics.prometheusRule.job -}}
{{- else if $metrics.podMonitor.enabled -}}
{{- printf "%s/%s" .root.Release.Namespace $name -}}
{{- else if $metrics.serviceMonitor.enabled -}}
{{- $name }}-health
{{- else if $metrics.prometheusRule.enabled -}}
  {{- fail "metrics.prometheusRule needs a scrape to look at: enable metrics.podMonitor or metrics.serviceMonitor, or name the job in metrics.prometheusRule.job" -}}
{{- end -}}
{{- end -}}

{{/* The labels by which the application's pods are found. */}}
{{- define "equabot-broker.podSelector" -}}
{{ include "equabot-broker.selectorLabels" . }}
app.kubernetes.io/component: agent
{{- end -}}

{{/* Metadata of an object: takes the context and, as `suffix`, what stands after the name. */}}
{{- define "equabot-broker.metadata" -}}
name: {{ include "equabot-broker.fullname" . }}{{ .suffix }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "equabot-broker.labels" . | nindent 2 }}
{{- end -}}

{{/* The first selector of the sources, for NOTES.txt. */}}
{{- define "equabot-broker.selector" -}}
{{- $found := "" -}}
{{- range .values.config.sources -}}
  {{- if kindIs "map" . -}}{{- $found = $found | default (dig "kubernetes" "selector" "" .) -}}{{- end -}}
{{- end -}}
{{- $found | default "equabot.dev/credential=true" -}}
{{- end -}}

{{/* The names of the images that are built from a clone and that no values replace, for NOTES.txt; nothing where there are none. */}}
{{- define "equabot-broker.unpublished" -}}
{{- $names := list -}}
{{- range list .values.broker.image .values.application.image -}}
  {{- if has .repository (list "equabot-broker" "equabot-example-agent") -}}{{- $names = append $names (printf "%s:%s" .repository .tag) -}}{{- end -}}
{{- end -}}
{{- if $names -}}{{- join " and " $names }} {{ eq (len $names) 1 | ternary "is" "are" -}}{{- end -}}
{{- end -}}

{{/* For NOTES.txt: what puts a key of each required provider (without any: of Anthropic) into a Secret. An unknown variable is NAME. */}}
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
