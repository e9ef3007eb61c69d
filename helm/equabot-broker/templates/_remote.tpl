{{/* What serves agents of other pods: only where `config.listen.agents` says so. */}}

{{/* The ports, as JSON: {name: number}. */}}
{{- define "equabot-broker.remotePorts" -}}
{{- $ports := dict -}}
{{- range $name, $key := dict "tokens" "service_accounts" "certificates" "client_certificates" -}}
  {{- with dig "listen" "agents" $key "address" "" $.values.config -}}
    {{- $_ := set $ports $name (regexFind "[0-9]+$" . | int) -}}
  {{- end -}}
{{- end -}}
{{- $at := "/run/secrets/equabot-tls/" -}}
{{- if and $.values.tlsSecret (not $ports) -}}
  {{- fail "tlsSecret is for config.listen.agents, which is not there: add it, or remove tlsSecret" -}}
{{- end -}}
{{- if and (not $.values.tlsSecret) (hasPrefix $at (dig "listen" "agents" "certificate" "" $.values.config)) -}}
  {{- fail (printf "config.listen.agents takes its certificate from %s, where nothing is mounted: set tlsSecret" $at) -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}

{{/* `true` where the API server is asked about callers, else nothing. */}}
{{- define "equabot-broker.asksAboutCallers" -}}
{{- $asked := dig "listen" "agents" "service_accounts" dict .values.config -}}
{{- if and $asked (not $asked.kubeconfig) (not $asked.keys) -}}true{{- end -}}
{{- end -}}

{{/* `true` where it is asked about every token, which takes a right. */}}
{{- define "equabot-broker.reviewsTokens" -}}
{{- $how := dig "listen" "agents" "service_accounts" "validate" "token_review" .values.config -}}
{{- if and (include "equabot-broker.asksAboutCallers" .) (eq $how "token_review") -}}true{{- end -}}
{{- end -}}
