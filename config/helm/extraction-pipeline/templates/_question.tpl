{{/* What the backfill's pods ask of which documents, as far as the values show it, in JSON. Its hash is in the Job's
     name: a new question is a new Job, or one archive would hold two. What running pods may take over in mid-run is
     not in it: servers, keys, retries, concurrency, limits. */}}
{{- define "extraction-pipeline.question" -}}
{{- $config := include "extraction-pipeline.config" . | fromYaml }}
{{- $agent := default "extractor" $config.agent }}
{{- $text := get .Values.agents $agent | default "" }}
{{- $files := dict }}
{{- range $name, $body := .Values.agents }}
{{- if or (eq $name $agent) (contains (printf "%s.yaml" $name) $text) }}
{{- $_ := set $files $name $body }}
{{- end }}
{{- end }}
{{- $named := list (default "ollama" $config.provider) }}
{{- $own := $text | fromYaml }}
{{- $variants := kindIs "map" $own.variants | ternary $own.variants dict }}
{{- range concat (list $own) (values $variants) }}
{{- if and (kindIs "map" .) (get . "provider") }}
{{- $named = append $named .provider }}
{{- end }}
{{- end }}
{{- $models := dict }}
{{- range $name := uniq $named }}
{{- $provider := include "extraction-pipeline.provider" (dict "config" $config "name" $name) | fromYaml }}
{{- $model := pick $provider "max_tokens" "temperature" "extra_body" "options" }}
{{- $_ := set $model "model" (default $provider.model $provider.model_id) }}
{{- $_ := set $models $name $model }}
{{- end }}
{{- $input := omit ($config.input | default dict) "min_documents" "max_document_bytes" "limits" "storage" }}
{{- dict "agent" $agent "variant" $config.variant "agents_dir" $config.agents_dir "files" $files "models" (values $models | sortAlpha) "input" $input "output" (dig "output" "uri" "" $config) | toJson }}
{{- end }}

{{/* The settings of a provider by its name, as YAML; takes config and name. */}}
{{- define "extraction-pipeline.provider" -}}
{{- get .config .name | default (get (.config.providers | default dict) .name) | default dict | toYaml }}
{{- end }}
