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
{{- toYaml $config }}
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

{{/* Nothing; fails on values that would install something that cannot work. */}}
{{- define "extraction-pipeline.validate" -}}
{{- $servers := include "extraction-pipeline.servers" . | fromYaml }}
{{- $config := include "extraction-pipeline.config" . | fromYaml }}
{{- if .Values.existingConfigMap }}
{{- if or $servers .Values.pipelineConfig }}
{{- fail "existingConfigMap: got config or pipelineConfig as well, which would do nothing; need one of them" }}
{{- end }}
{{- else }}
{{- if not (dig "input" "uri" "" $config) }}
{{- fail "pipelineConfig.input.uri: got nothing, need s3://bucket/prefix or the like, a path in a mounted volume, or persistence.enabled" }}
{{- end }}
{{- if not (dig "output" "uri" "" $config) }}
{{- fail "pipelineConfig.output.uri: got nothing, need s3://bucket/prefix or the like, or persistence.enabled" }}
{{- end }}
{{- range $name := list "ollama" "vllm" }}
{{- if dig $name "api_key" "" $config }}
{{- fail (printf "pipelineConfig.%s.api_key: got a key, which a ConfigMap would not hide; need config.%s_API_KEY or existingSecret" $name (upper $name)) }}
{{- end }}
{{- end }}
{{- range $name, $provider := $config.providers | default dict }}
{{- if get $provider "api_key" }}
{{- fail (printf "pipelineConfig.providers.%s.api_key: got a key, which a ConfigMap would not hide; need api_key_file, and extraVolumes with a Secret" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.existingSecret }}
{{- range $name := list "OLLAMA_API_KEY" "VLLM_API_KEY" }}
{{- if get $.Values.config $name }}
{{- fail (printf "existingSecret: got config.%s as well, need one of them" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.podMonitor.enabled (not .Values.metrics.port) }}
{{- fail "metrics.podMonitor.enabled: got true without metrics.port, need a port to be scraped, such as 9464" }}
{{- end }}
{{- $grace := dig "runner" "grace_s" 25 $config }}
{{- if le (float64 .Values.terminationGracePeriodSeconds) (float64 $grace) }}
{{- fail (printf "terminationGracePeriodSeconds: got %v, need more than runner.grace_s (%v)" .Values.terminationGracePeriodSeconds $grace) }}
{{- end }}
{{- range $name := list "cronjob" "backfill" }}
{{- $job := get $.Values $name }}
{{- if and $job.enabled $job.maxDuration $job.activeDeadlineSeconds }}
{{- $seconds := include "extraction-pipeline.seconds" $job.maxDuration }}
{{- if ge (float64 $seconds) (float64 $job.activeDeadlineSeconds) }}
{{- fail (printf "%s.maxDuration: got %s, need less than %s.activeDeadlineSeconds (%v)" $name $job.maxDuration $name $job.activeDeadlineSeconds) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.backfill }}
{{- if and .enabled .maxFailedIndexes (gt (float64 .maxFailedIndexes) (float64 .shards)) }}
{{- fail (printf "backfill.maxFailedIndexes: got %v, need at most backfill.shards (%v)" .maxFailedIndexes .shards) }}
{{- end }}
{{- end }}
{{- end }}
