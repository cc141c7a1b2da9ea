{{- define "snapsync.selector" -}}
app.kubernetes.io/name: snapsync
app.kubernetes.io/component: daemon
{{- end }}

{{- define "snapsync.labels" -}}
{{ include "snapsync.selector" . }}
{{- if .Values.helmMetadata }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
{{- end }}

{{- define "snapsync.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What the pod is made for; `config` of the values is laid over it. */}}
{{- define "snapsync.ownConfig" -}}
daemon:
  socket: {{ .Values.paths.socketDirectory }}/snapd.sock
  socket_mode: "0660"
  listen: "0.0.0.0:{{ .Values.listen.port }}"
  listen_token_file: /run/snapsync-token/token
cache:
  directory: {{ .Values.paths.state }}
  {{- if .Values.leases.pods }}
  kubelet_directory: {{ .Values.paths.kubelet }}
  {{- end }}
log:
  format: json
{{- end }}

{{/* One table as TOML, its keys in the order of the alphabet. */}}
{{- define "snapsync.table" -}}
{{- range $key, $value := . }}
{{- if kindIs "float64" $value }}
{{ $key }} = {{ if eq (floor $value) $value }}{{ int64 $value }}{{ else }}{{ $value }}{{ end }}
{{- else }}
{{ $key }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}
{{- end }}

{{- define "snapsync.config" -}}
# Configuration of snapd in a pod; config.example.toml names every key.
{{- $own := include "snapsync.ownConfig" . | fromYaml }}
{{- $config := mergeOverwrite $own (deepCopy .Values.config) }}
{{- range $section, $table := $config }}
{{- if eq $section "store" }}
{{- range $table }}

[[store]]
{{- include "snapsync.table" . }}
{{- end }}
{{- else if $table }}

[{{ $section }}]
{{- include "snapsync.table" $table }}
{{- end }}
{{- end }}
{{- range .Values.follow }}
{{- if not (hasPrefix (printf "%s/" $.Values.paths.follow) .dest) }}
{{- fail (printf "follow: %s does not lie below paths.follow (%s)" .dest $.Values.paths.follow) }}
{{- end }}

[[follow]]
{{- include "snapsync.table" . }}
{{- end }}
{{- end }}
