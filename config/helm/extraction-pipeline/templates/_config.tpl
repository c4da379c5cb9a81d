{{/* Everything but the API keys that `config` sets, as a YAML mapping of sections. */}}
{{- define "extraction-pipeline.servers" -}}
{{- $texts := list "base_url" "model" }}
{{- $found := dict }}
{{- range $name, $value := .Values.config }}
{{- if not (or (eq (toString $value) "") (kindIs "invalid" $value) (hasSuffix "_API_KEY" $name)) }}
{{- $section := regexFind "^[A-Z]+" $name | lower }}
{{- $key := regexReplaceAll "^[A-Z]+_" $name "" | lower }}
{{- if and (eq $key "base_url") (kindIs "string" $value) (contains "," $value) }}
{{- $value = regexSplit "\\s*,\\s*" (trim $value) -1 }}
{{- else if and (kindIs "string" $value) (not (has $key $texts)) (regexMatch "^[0-9.-]+$" $value) }}
{{- $value = get (printf "value: %s" $value | fromYaml) "value" }}
{{- end }}
{{- $_ := set $found $section (set (get $found $section | default dict) $key $value) }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* The pipeline's config file. */}}
{{- define "extraction-pipeline.config" -}}
{{- $servers := include "extraction-pipeline.servers" . | fromYaml }}
{{- $config := dict }}
{{- range $key, $value := .Values.pipelineConfig }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $config $key (deepCopy $value) }}
{{- end }}
{{- end }}
{{- $config = mergeOverwrite $config $servers }}
{{- if and (not $config.provider) (dig "vllm" "base_url" "" $config) }}
{{- $_ := set $config "provider" "vllm" }}
{{- end }}
{{- $name := default "ollama" $config.provider }}
{{- $services := dict "ollama" "http://ollama:11434" "vllm" "http://vllm:8000" }}
{{- if and (hasKey $services $name) (not (dig $name "base_url" "" $config)) }}
{{- $_ := set $config $name (mergeOverwrite (default dict (get $config $name)) (dict "base_url" (get $services $name))) }}
{{- end }}
{{- if and .Values.agents (not $config.agents_dir) }}
{{- $_ := set $config "agents_dir" "/etc/extraction-pipeline/agents" }}
{{- end }}
{{- if include "extraction-pipeline.persistent" . }}
{{- range $section, $folder := dict "input" "inbox" "output" "out" }}
{{- $given := get $config $section | default dict }}
{{- if not $given.uri }}
{{- $_ := set $config $section (set $given "uri" (printf "%s/%s" (trimSuffix "/" $.Values.persistence.mountPath) $folder)) }}
{{- end }}
{{- end }}
{{- end }}
{{- $defaults := dict "runner" (dict "config_grace_s" 300 "lock_wait_s" (include "extraction-pipeline.jobLife" . | int64)) }}
{{- if include "extraction-pipeline.readsOwnVolume" (dict "root" . "uri" (dig "input" "uri" "" $config)) }}
{{- $_ := set $defaults "input" (dict "min_documents" 0) }}
{{- end }}
{{- range $section, $settings := $defaults }}
{{- $given := get $config $section | default dict }}
{{- range $key, $value := $settings }}
{{- if kindIs "invalid" (dig $key nil $given) }}
{{- $_ := set $given $key $value }}
{{- end }}
{{- end }}
{{- $_ := set $config $section $given }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* "true" when the documents come from the chart's own volume, which is empty at first. Takes root and uri. */}}
{{- define "extraction-pipeline.readsOwnVolume" -}}
{{- $folder := printf "%s/" (trimSuffix "/" .root.Values.persistence.mountPath) }}
{{- if and (include "extraction-pipeline.persistent" .root) (not .root.Values.persistence.existingClaim) (kindIs "string" .uri) (hasPrefix $folder (toString .uri)) -}}
true
{{- end }}
{{- end }}

{{/* The seconds that the longest-lived Job of the chart may live; 30 days for one without a deadline. */}}
{{- define "extraction-pipeline.jobLife" -}}
{{- $life := 0 }}
{{- range $job := list .Values.cronjob .Values.backfill }}
{{- if $job.enabled }}
{{- $life = max $life (default 2592000 $job.activeDeadlineSeconds | int64) }}
{{- end }}
{{- end }}
{{- default 2592000 $life }}
{{- end }}

{{/* The names of the API keys that are mounted as files, in a YAML list. */}}
{{- define "extraction-pipeline.keys" -}}
{{- $names := list }}
{{- if .Values.existingSecret }}
{{- $names = .Values.existingSecretKeys }}
{{- else }}
{{- range $name := list "OLLAMA_API_KEY" "VLLM_API_KEY" }}
{{- if get $.Values.config $name }}
{{- $names = append $names $name }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml (dict "names" $names) }}
{{- end }}

{{/* The seconds of a time such as 5h or 1h30m. */}}
{{- define "extraction-pipeline.seconds" -}}
{{- $units := dict "d" 86400 "h" 3600 "m" 60 "s" 1 }}
{{- $sum := 0 }}
{{- range $part := regexFindAll "[0-9]+[dhms]" . -1 }}
{{- $sum = add $sum (mul (trimSuffix (substr (int (sub (len $part) 1)) (len $part) $part) $part | int) (get $units (substr (int (sub (len $part) 1)) (len $part) $part))) }}
{{- end }}
{{- $sum }}
{{- end }}
