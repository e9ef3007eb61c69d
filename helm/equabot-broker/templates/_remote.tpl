{{/* The API for agents in other pods, which runs only if `config.listen.agents` is set. */}}

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
  {{- fail "tlsSecret is for config.listen.agents, which is not set: set config.listen.agents, or remove tlsSecret" -}}
{{- end -}}
{{- if and (not $.values.tlsSecret) (hasPrefix $at (dig "listen" "agents" "certificate" "" $.values.config)) -}}
  {{- fail (printf "config.listen.agents reads its certificate from %s, where nothing is mounted: set tlsSecret" $at) -}}
{{- end -}}
{{- toJson $ports -}}
{{- end -}}

{{/* `true` if the broker uses the API server to authenticate callers, else empty. */}}
{{- define "equabot-broker.asksAboutCallers" -}}
{{- $asked := dig "listen" "agents" "service_accounts" dict .values.config -}}
{{- if and $asked (not $asked.kubeconfig) (not $asked.keys) -}}true{{- end -}}
{{- end -}}

{{/* `true` if the broker sends every token to the API server, which needs a permission; else empty. */}}
{{- define "equabot-broker.reviewsTokens" -}}
{{- $how := dig "listen" "agents" "service_accounts" "validate" "token_review" .values.config -}}
{{- if and (include "equabot-broker.asksAboutCallers" .) (eq $how "token_review") -}}true{{- end -}}
{{- end -}}
