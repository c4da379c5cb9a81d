{{/* Nothing; fails on values that would install something that cannot work, in the words of the program: what, the value
     seen, what is accepted. */}}
{{- define "extraction-pipeline.validate" -}}
{{- include "extraction-pipeline.validateConfig" . }}
{{- include "extraction-pipeline.validateJobs" . }}
{{- include "extraction-pipeline.validatePod" . }}
{{- end }}

{{/* The config file: where documents come from and go, who answers, and no secret in it. */}}
{{- define "extraction-pipeline.validateConfig" -}}
{{- $config := include "extraction-pipeline.config" . | fromYaml }}
{{- if .Values.existingConfigMap }}
{{- if or (include "extraction-pipeline.servers" . | fromYaml) .Values.pipelineConfig }}
{{- fail "existingConfigMap: got config or pipelineConfig as well, which would do nothing; need one of them" }}
{{- end }}
{{- else }}
{{- include "extraction-pipeline.validatePlaces" (dict "root" . "config" $config) }}
{{- include "extraction-pipeline.validateProviders" $config }}
{{- include "extraction-pipeline.validateAgent" (dict "root" . "config" $config) }}
{{- end }}
{{- if gt (.Values.agents | toJson | len) 1000000 }}
{{- fail (printf "agents: got texts of %d bytes, need at most 1,000,000, which is what a ConfigMap holds" (.Values.agents | toJson | len)) }}
{{- end }}
{{- range $name, $text := .Values.agents }}
{{- with ($text | fromYaml).Error }}
{{- fail (printf "agents.%s: got a text that is not YAML (%s)" $name .) }}
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
{{- end }}

{{/* Input and output; takes root and config. */}}
{{- define "extraction-pipeline.validatePlaces" -}}
{{- $stores := "^(s3|gs|az)://[^/]" }}
{{- $inputs := dig "input" "uri" "" .config }}
{{- if not $inputs }}
{{- fail "pipelineConfig.input.uri: got nothing, need s3://bucket/prefix or the like, a path in a mounted volume, or persistence.enabled" }}
{{- end }}
{{- range kindIs "slice" $inputs | ternary $inputs (list $inputs) }}
{{- $uri := kindIs "map" . | ternary (dig "uri" "" (kindIs "map" . | ternary . dict)) . }}
{{- if and (contains "://" $uri) (not (regexMatch $stores $uri)) (not (hasPrefix "file:///" $uri)) }}
{{- fail (printf "pipelineConfig.input.uri: got %q, need s3://bucket/prefix, gs://…, az://… or a path" (regexReplaceAll "//[^/]*@" $uri "//")) }}
{{- end }}
{{- end }}
{{- $output := dig "output" "uri" "" .config }}
{{- if not $output }}
{{- fail "pipelineConfig.output.uri: got nothing, need s3://bucket/prefix or the like, or persistence.enabled" }}
{{- end }}
{{- $path := trimPrefix "file://" $output }}
{{- if contains "://" $path }}
{{- if not (regexMatch $stores $path) }}
{{- fail (printf "pipelineConfig.output.uri: got %q, need s3://bucket/prefix, gs://…, az://… or a path" (regexReplaceAll "//[^/]*@" $path "//")) }}
{{- end }}
{{- else }}
{{- $folders := list }}
{{- range concat (include "extraction-pipeline.mounts" .root | fromYamlArray) .root.Values.extraVolumeMounts }}
{{- if and (not .readOnly) (ne .mountPath "/tmp") }}
{{- $folders = append $folders (trimSuffix "/" .mountPath) }}
{{- end }}
{{- end }}
{{- $kept := false }}
{{- range $folders }}
{{- $kept = or $kept (eq . (trimSuffix "/" $path)) (hasPrefix (printf "%s/" .) $path) }}
{{- end }}
{{- if not $kept }}
{{- fail (printf "pipelineConfig.output.uri: got %q, which would be lost with the pod; need an object store, or a path in %s" $path (empty $folders | ternary "a volume (persistence.enabled)" (join " or " $folders))) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The providers by name, and their addresses; takes the config. */}}
{{- define "extraction-pipeline.validateProviders" -}}
{{- $config := . }}
{{- $known := concat (list "ollama" "vllm") (keys ($config.providers | default dict)) | uniq | sortAlpha }}
{{- $fallback := kindIs "string" $config.fallback | ternary (splitList "," (toString $config.fallback)) (default list $config.fallback) }}
{{- range $key, $names := dict "provider" (list ($config.provider | default "ollama")) "fallback" $fallback }}
{{- range $names }}
{{- if not (has (trim .) $known) }}
{{- fail (printf "pipelineConfig.%s: got %q, need one of %s, or an entry of that name in pipelineConfig.providers" $key (trim .) (join ", " $known)) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name := $known }}
{{- $provider := include "extraction-pipeline.provider" (dict "config" $config "name" $name) | fromYaml }}
{{- $place := hasKey $config $name | ternary $name (printf "providers.%s" $name) }}
{{- if $provider.api_key }}
{{- if has $name (list "ollama" "vllm") }}
{{- fail (printf "pipelineConfig.%s.api_key: got a key, which a ConfigMap would not hide; need config.%s_API_KEY or existingSecret" $place (upper $name)) }}
{{- end }}
{{- fail (printf "pipelineConfig.%s.api_key: got a key, which a ConfigMap would not hide; need api_key_file, and extraVolumes with a Secret" $place) }}
{{- end }}
{{- $urls := $provider.base_url | default list }}
{{- range kindIs "slice" $urls | ternary $urls (splitList "," (toString $urls)) }}
{{- if not (regexMatch "^https?://[^/]" (trim .)) }}
{{- fail (printf "pipelineConfig.%s.base_url: got %q, need http://host:port or https://host" $place (regexReplaceAll "^.*@" (trim .) "")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The agent and its variant; takes root and config. The files of another agents_dir cannot be seen from here. */}}
{{- define "extraction-pipeline.validateAgent" -}}
{{- $agents := .root.Values.agents }}
{{- $agent := default "extractor" .config.agent }}
{{- $known := concat (list "event_classifier" "extractor") (keys $agents) | uniq | sortAlpha }}
{{- if and (not (has $agent $known)) (eq (default "/etc/extraction-pipeline/agents" .config.agents_dir) "/etc/extraction-pipeline/agents") }}
{{- fail (printf "pipelineConfig.agent: got %q, need one of %s, or an entry of that name in agents" $agent (join ", " $known)) }}
{{- end }}
{{- if and .config.variant (hasKey $agents $agent) }}
{{- $variants := (get $agents $agent | fromYaml).variants | default (dict "default" dict) }}
{{- if not (hasKey $variants .config.variant) }}
{{- fail (printf "pipelineConfig.variant: got %q, need one of the variants of agents.%s: %s" .config.variant $agent (keys $variants | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}
