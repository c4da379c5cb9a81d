{{/* Nothing; puts empty mappings and lists where the values have none: set to null, or kept from an older chart by
     `helm upgrade --reuse-values`. Each file of objects begins with it. */}}
{{- define "extraction-pipeline.fill" -}}
{{- $maps := list "commonLabels" "pipelineConfig" "agents" "nodeSelector" "affinity" "dnsConfig" "podLabels" "podAnnotations" }}
{{- $lists := list "imagePullSecrets" "tolerations" "topologySpreadConstraints" "hostAliases" "initContainers" "sidecars" }}
{{- $lists = concat $lists (list "extraEnv" "extraEnvFrom" "extraVolumes" "extraVolumeMounts" "extraObjects") }}
{{- $rows := list (list .Values (concat $maps (list "config" "resources" "podSecurityContext" "securityContext")) $lists) }}
{{- range $job := list .Values.cronjob .Values.backfill }}
{{- $rows = append $rows (list $job (list "labels" "annotations") (list "extraArgs")) }}
{{- end }}
{{- $rows = append $rows (list .Values.persistence (list "annotations") list) }}
{{- $rows = append $rows (list .Values.serviceAccount (list "annotations") list) }}
{{- $rows = append $rows (list .Values.metrics (list "pushgatewaySecret") list) }}
{{- $rows = append $rows (list .Values.metrics.podMonitor (list "labels") list) }}
{{- $rows = append $rows (list .Values.networkPolicy list (list "egress")) }}
{{- range $row := $rows }}
{{- range $name := index $row 1 }}
{{- $_ := set (first $row) $name (default dict (get (first $row) $name)) }}
{{- end }}
{{- range $name := index $row 2 }}
{{- $_ := set (first $row) $name (default list (get (first $row) $name)) }}
{{- end }}
{{- end }}
{{- /* chunks take the place of shards: as many indexes as there are chunks */}}
{{- with .Values.backfill.chunks }}
{{- $ends := splitList "-" (toString .) }}
{{- $count := len $ends | eq 1 | ternary (first $ends | int) (sub (last $ends | int) (first $ends | int) | add1 | int) }}
{{- $_ := set $.Values.backfill "shards" $count }}
{{- end }}
{{- end }}
