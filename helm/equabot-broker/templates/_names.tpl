{{/*
Every template takes one argument, a dict:

  root    the caller's `$`
  values  values in the form of this chart's values.yaml: `.Values` in this chart, and
          `index .Values "equabot-broker"` in a chart that depends on this one

A chart defines the dict once:  {{ $equabot := dict "root" $ "values" (index .Values "equabot-broker") }}
Then it uses the templates:     {{ include "equabot-broker.sidecar" $equabot }}
README.md has a complete example.
*/}}

{{/* The name of the objects. It has at most 52 characters, to leave room for a suffix. */}}
{{- define "equabot-broker.fullname" -}}
{{- $name := .values.nameOverride | default "equabot-broker" -}}
{{- if .values.fullnameOverride -}}
{{- .values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .root.Release.Name -}}
{{- .root.Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .root.Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "equabot-broker.selectorLabels" -}}
app.kubernetes.io/name: {{ .values.nameOverride | default "equabot-broker" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{- define "equabot-broker.labels" -}}
{{ include "equabot-broker.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .values.broker.image.tag | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The reference of an image. Takes an `image` of the values. */}}
{{- define "equabot-broker.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "equabot-broker.serviceAccountName" -}}
{{- if .values.serviceAccount.name -}}
{{- .values.serviceAccount.name -}}
{{- else if .values.serviceAccount.create -}}
{{- include "equabot-broker.fullname" . -}}
{{- else -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: name the account whose permissions the broker uses" -}}
{{- end -}}
{{- end -}}

{{/* `true` if the broker runs as a native sidecar, else empty. */}}
{{- define "equabot-broker.isNative" -}}
{{- $asked := toString .values.nativeSidecar -}}
{{- if or (eq $asked "true") (and (eq $asked "auto") (semverCompare ">=1.29.0-0" .root.Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end -}}
