{{/* Command line of the operator: one flag per field of its settings, a repeated flag per item of a list, JSON for data. */}}
{{- define "empg.args" -}}
- --sampler-image={{ include "empg.image" (dict "image" .Values.runs.samplerImage "chart" .Chart) }}
- --learner-image={{ include "empg.image" (dict "image" .Values.runs.trainerImage "chart" .Chart) }}
- --image-pull-policy={{ .Values.runs.imagePullPolicy }}
{{- range .Values.runs.imagePullSecrets }}
- --image-pull-secrets={{ . }}
{{- end }}
{{- range .Values.watchNamespaces }}
- --namespaces={{ . }}
{{- end }}
- --workers={{ .Values.workers }}
- --resync-seconds={{ .Values.resyncSeconds }}
- --metrics-port={{ .Values.metrics.port }}
- --{{ ternary "" "no-" .Values.runs.networkPolicies.enabled }}network-policies
{{- range .Values.runs.networkPolicies.extraEgress }}
- {{ printf "--extra-egress=%s" (toJson .) | squote }}
{{- end }}
{{- range .Values.runs.networkPolicies.apiServerCIDRs }}
- --api-server-cidrs={{ . }}
{{- end }}
- --{{ ternary "" "no-" .Values.runs.podMonitors.enabled }}pod-monitors
{{- with .Values.runs.podMonitors.labels }}
- {{ printf "--pod-monitor-labels=%s" (toJson .) | squote }}
{{- end }}
- --{{ ternary "" "no-" .Values.leaderElection }}leader-election
{{- if .Values.leaderElection }}
- --lease-namespace={{ .Release.Namespace }}
- --lease-name={{ include "empg.fullname" . }}
{{- end }}
- --log-format={{ .Values.logFormat }}
- --log-level={{ .Values.logLevel }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}
