{{/*
Every template here takes one argument, a dict:

  root    the caller's `$`
  values  values in the form of this chart's values.yaml: `.Values` here, and in a chart that depends on this one
          `index .Values "equabot-broker"`

so a chart writes once  {{ $equabot := dict "root" $ "values" (index .Values "equabot-broker") }}  and then
{{ include "equabot-broker.sidecar" $equabot }}. README.md has a whole one.
*/}}

{{/* The name of the objects, at most 52 characters, so that a suffix fits. */}}
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

{{/* Takes an `image` of the values. */}}
{{- define "equabot-broker.image" -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "equabot-broker.serviceAccountName" -}}
{{- if .values.serviceAccount.name -}}
{{- .values.serviceAccount.name -}}
{{- else if .values.serviceAccount.create -}}
{{- include "equabot-broker.fullname" . -}}
{{- else -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty: name the account whose rights the broker is to have" -}}
{{- end -}}
{{- end -}}

{{/* `true` where the broker is an init container that stays, else nothing. */}}
{{- define "equabot-broker.isNative" -}}
{{- $asked := toString .values.nativeSidecar -}}
{{- if or (eq $asked "true") (and (eq $asked "auto") (semverCompare ">=1.29.0-0" .root.Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end -}}
