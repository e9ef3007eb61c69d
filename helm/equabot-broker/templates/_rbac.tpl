{{/*
The Secrets that the configuration reads from the API server, as JSON: {namespace: {names: […], all:
whether a selector is used, logins: the Secrets that the broker refreshes}}.
*/}}
{{- define "equabot-broker.secrets" -}}
{{- $found := dict -}}
{{- $bound := list -}}
{{- range $id, $profile := .values.config.profiles -}}
  {{- with dig "from" "kubernetes" "secret" "" $profile -}}{{- $bound = append $bound . -}}{{- end -}}
{{- end -}}
{{- range $source := .values.config.sources -}}
  {{- if or (eq (toString $source) "kubernetes") (and (kindIs "map" $source) (hasKey $source "kubernetes")) -}}
    {{- $options := dict -}}
    {{- if kindIs "map" $source -}}{{- $options = $source.kubernetes | default dict -}}{{- end -}}
    {{- if not $options.kubeconfig -}}
      {{- $namespace := $options.namespace | default $.root.Release.Namespace -}}
      {{- $here := get $found $namespace | default (dict "names" list "all" false) -}}
      {{- $names := concat $here.names ($options.names | default list) $bound | uniq | sortAlpha -}}
      {{- $all := or $here.all $options.selector (not $options.names) | empty | not -}}
      {{- $_ := set $found $namespace (dict "names" $names "all" $all "logins" list) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $secret := .values.rbac.logins -}}
  {{- $known := false -}}
  {{- range $namespace, $here := $found -}}
    {{- if or $here.all (has $secret $here.names) -}}
      {{- $known = true -}}
      {{- $_ := set $here "logins" (append $here.logins $secret) -}}
    {{- end -}}
  {{- end -}}
  {{- if not $known -}}
    {{- fail (printf "rbac.logins has the Secret %s, which no source reads: add it to the names of a kubernetes source in config.sources" $secret) -}}
  {{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The name of a Role. In another namespace than the release's, the name has the release's namespace as a
suffix. Takes the context and `namespace`. */}}
{{- define "equabot-broker.roleName" -}}
{{- include "equabot-broker.fullname" . -}}
{{- if ne .namespace .root.Release.Namespace -}}-{{ .root.Release.Namespace }}{{- end -}}
{{- end -}}

{{/* The Roles, one for each namespace that the sources name. */}}
{{- define "equabot-broker.roles" -}}
{{- $context := . -}}
{{- range $namespace, $access := include "equabot-broker.secrets" . | fromJson }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "equabot-broker.roleName" (set $context "namespace" $namespace) }}
  namespace: {{ $namespace }}
  labels:
    {{- include "equabot-broker.labels" $context | nindent 4 }}
rules:
  {{- if $access.all }}
  # The source uses a selector. RBAC cannot select by label, so this allows every Secret.
  - apiGroups: [""]
    resources: [secrets]
    verbs: [get, list, watch]
  {{- else }}
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: {{ toJson $access.names }}
    verbs: [get, list, watch]
  {{- end }}
  {{- with $access.logins }}
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: {{ toJson . }}
    verbs: [update]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: {{ include "equabot-broker.leases" . }}
    verbs: [get, update]
  # RBAC cannot restrict a create request by name.
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  {{- end }}
{{- end }}
{{- end -}}

{{/* The names of the Leases that the broker holds while it refreshes Secrets. They must match the broker's
names. Takes the names of the Secrets. */}}
{{- define "equabot-broker.leases" -}}
{{- $names := list -}}
{{- range . -}}
  {{- $name := printf "equabot-refresh-%s" . -}}
  {{- if gt (len $name) 253 -}}
    {{- $name = printf "%s-%s" (regexReplaceAll "[-.]+$" (trunc 236 $name) "") (sha256sum . | trunc 16) -}}
  {{- end -}}
  {{- $names = append $names $name -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* The RoleBindings, which bind the Roles to the broker's service account. */}}
{{- define "equabot-broker.roleBindings" -}}
{{- $context := . -}}
{{- range $namespace, $_ := include "equabot-broker.secrets" . | fromJson }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "equabot-broker.roleName" (set $context "namespace" $namespace) }}
  namespace: {{ $namespace }}
  labels:
    {{- include "equabot-broker.labels" $context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "equabot-broker.roleName" $context }}
subjects:
  - kind: ServiceAccount
    name: {{ include "equabot-broker.serviceAccountName" $context }}
    namespace: {{ $context.root.Release.Namespace }}
{{- end }}
{{- end -}}

{{/* The ClusterRole that allows token reviews, if the broker needs them to authenticate callers. Unlike
`system:auth-delegator`, it does not allow access reviews. The role and its binding are in separate
files. */}}
{{- define "equabot-broker.clusterRole" -}}
{{- if include "equabot-broker.reviewsTokens" . -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ include "equabot-broker.fullname" . }}-{{ .root.Release.Namespace }}
  labels:
    {{- include "equabot-broker.labels" . | nindent 4 }}
rules:
  - apiGroups: [authentication.k8s.io]
    resources: [tokenreviews]
    verbs: [create]
{{- end }}
{{- end -}}

{{- define "equabot-broker.clusterRoleBinding" -}}
{{- if include "equabot-broker.reviewsTokens" . -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ include "equabot-broker.fullname" . }}-{{ .root.Release.Namespace }}
  labels:
    {{- include "equabot-broker.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ include "equabot-broker.fullname" . }}-{{ .root.Release.Namespace }}
subjects:
  - kind: ServiceAccount
    name: {{ include "equabot-broker.serviceAccountName" . }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
{{- end -}}

{{/* The service account, if the values let the chart create it. */}}
{{- define "equabot-broker.serviceAccount" -}}
{{- if .values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "equabot-broker.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "equabot-broker.labels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
# The broker's container mounts its own token. No other container gets one by default.
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{/* The service account, the Roles and the RoleBindings together, for other charts. */}}
{{- define "equabot-broker.rbac" -}}
{{ include "equabot-broker.serviceAccount" . }}
{{- if .values.rbac.create }}
{{ include "equabot-broker.roles" . }}
{{ include "equabot-broker.roleBindings" . }}
---
{{ include "equabot-broker.clusterRole" . }}
---
{{ include "equabot-broker.clusterRoleBinding" . }}
{{- end }}
{{- end -}}
