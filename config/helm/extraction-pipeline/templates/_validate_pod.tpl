{{/* Nothing; fails on pods that the API server would refuse, or that no kubelet could start. */}}
{{- define "extraction-pipeline.validatePod" -}}
{{- include "extraction-pipeline.validateResources" .Values.resources }}
{{- include "extraction-pipeline.validateVolumes" . }}
{{- include "extraction-pipeline.validateContainers" . }}
{{- include "extraction-pipeline.validateLabels" .Values }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) }}
{{- fail "networkPolicy.egress: got none with networkPolicy.enabled, so that the pods could reach DNS only; need the model servers (and the store), such as [{namespace: models, ports: [8000]}]" }}
{{- end }}
{{- $pod := .Values.podSecurityContext }}
{{- $own := .Values.securityContext }}
{{- $user := hasKey $own "runAsUser" | ternary $own.runAsUser $pod.runAsUser }}
{{- $never_root := hasKey $own "runAsNonRoot" | ternary $own.runAsNonRoot $pod.runAsNonRoot }}
{{- if and $never_root (not (kindIs "invalid" $user)) (eq (toString $user) "0") }}
{{- fail "podSecurityContext.runAsUser: got 0 with runAsNonRoot: true, so that no pod could start; need another user, or runAsNonRoot: false" }}
{{- end }}
{{- if and $own.privileged (eq (toString $own.allowPrivilegeEscalation) "false") }}
{{- fail "securityContext.privileged: got true with allowPrivilegeEscalation: false, which Kubernetes refuses; need one of them" }}
{{- end }}
{{- end }}

{{/* A request must not be above its limit, and of a device it must be the limit. */}}
{{- define "extraction-pipeline.validateResources" -}}
{{- $limits := .limits | default dict }}
{{- range $name, $request := .requests | default dict }}
{{- if hasKey $limits $name }}
{{- $limit := get $limits $name }}
{{- $asked := include "extraction-pipeline.quantity" $request | float64 }}
{{- $most := include "extraction-pipeline.quantity" $limit | float64 }}
{{- if gt $asked $most }}
{{- fail (printf "resources.requests.%s: got %v, need at most resources.limits.%s (%v)" $name $request $name $limit) }}
{{- end }}
{{- if and (contains "/" $name) (lt $asked $most) }}
{{- fail (printf "resources.requests.%s: got %v, need resources.limits.%s (%v): devices cannot be overcommitted" $name $request $name $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The number of a quantity such as 500m or 1.5Gi. */}}
{{- define "extraction-pipeline.quantity" -}}
{{- $units := dict "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 }}
{{- $number := regexFind "^[0-9.]+([eE][0-9+-]+)?" (toString .) }}
{{- $unit := trimPrefix $number (toString .) }}
{{- if or (not $number) (and $unit (not (hasKey $units $unit))) }}
{{- fail (printf "resources: got %v, need a quantity such as 500m, 2 or 1.5Gi" .) }}
{{- end }}
{{- mulf (float64 $number) (get $units $unit | default 1.0) }}
{{- end }}

{{/* Each volume has one name, each mount a volume, each place one mount. */}}
{{- define "extraction-pipeline.validateVolumes" -}}
{{- $mounts := include "extraction-pipeline.mounts" . | fromYamlArray }}
{{- $names := list }}
{{- range $mounts }}
{{- $names = append $names .name }}
{{- end }}
{{- range .Values.extraVolumes }}
{{- if has .name $names }}
{{- fail (printf "extraVolumes: got %q twice or as one of the chart's own (%s); need another name" .name (join ", " $names)) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- $places := list "/etc/extraction-pipeline" }}
{{- range concat $mounts .Values.extraVolumeMounts }}
{{- $place := trimSuffix "/" .mountPath }}
{{- if has $place $places }}
{{- fail (printf "extraVolumeMounts: got the mountPath %q twice or as one of the chart's own (persistence.mountPath among them); need another place" .mountPath) }}
{{- end }}
{{- $places = append $places $place }}
{{- end }}
{{- $all := dict "extraVolumeMounts" (list (dict "volumeMounts" .Values.extraVolumeMounts)) "initContainers" .Values.initContainers "sidecars" .Values.sidecars }}
{{- range $key, $containers := $all }}
{{- range $container := $containers }}
{{- range $container.volumeMounts }}
{{- if not (has .name $names) }}
{{- fail (printf "%s: got a mount of %q, need one of the volumes: %s" $key .name (join ", " $names)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Names that must be there once: of containers, variables, and addresses of hosts. */}}
{{- define "extraction-pipeline.validateContainers" -}}
{{- $names := list "pipeline" }}
{{- range $key := list "sidecars" "initContainers" }}
{{- range get $.Values $key }}
{{- if has .name $names }}
{{- fail (printf "%s: got the name %q twice (the program's own is pipeline); need another" $key .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- $variables := list "JOB_NAME" "POD_NAMESPACE" "PIPELINE_RESUME_COMMAND" "PIPELINE_CONFIG" "PIPELINE_SHARDS" "TMPDIR" "HOME" }}
{{- range .Values.extraEnv }}
{{- if has .name $variables }}
{{- fail (printf "extraEnv: got %q twice or as one that the chart sets; need another" .name) }}
{{- end }}
{{- $variables = append $variables .name }}
{{- end }}
{{- $hosts := list }}
{{- range .Values.hostAliases }}
{{- if has .ip $hosts }}
{{- fail (printf "hostAliases: got %q twice; need its hostnames in one entry" .ip) }}
{{- end }}
{{- $hosts = append $hosts .ip }}
{{- end }}
{{- end }}

{{/* The names of labels and annotations; their values are checked by the schema. Takes the values. */}}
{{- define "extraction-pipeline.validateLabels" -}}
{{- $name := "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$" }}
{{- $selecting := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" }}
{{- $own := concat $selecting (list "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") }}
{{- $rows := list (list "podLabels" .podLabels $selecting) (list "commonLabels" .commonLabels $own) }}
{{- $rows = concat $rows (list (list "cronjob.labels" .cronjob.labels $own) (list "backfill.labels" .backfill.labels $own)) }}
{{- $rows = append $rows (list "metrics.podMonitor.labels" .metrics.podMonitor.labels $own) }}
{{- $rows = concat $rows (list (list "nodeSelector" .nodeSelector list) (list "podAnnotations" .podAnnotations list)) }}
{{- $rows = append $rows (list "cronjob.annotations" .cronjob.annotations list) }}
{{- $rows = append $rows (list "backfill.annotations" .backfill.annotations list) }}
{{- $rows = append $rows (list "serviceAccount.annotations" .serviceAccount.annotations list) }}
{{- $rows = append $rows (list "persistence.annotations" .persistence.annotations list) }}
{{- range $row := $rows }}
{{- range $key, $_ := index $row 1 }}
{{- if not (regexMatch $name $key) }}
{{- fail (printf "%s: got the name %q, need letters, digits, -, _ and ., at most 63, with or without a domain and / before it" (first $row) $key) }}
{{- end }}
{{- if has $key (last $row) }}
{{- fail (printf "%s: got %q, which the chart sets itself; need another name" (first $row) $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
