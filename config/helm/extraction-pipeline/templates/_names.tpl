{{/* Names end at 38 characters: the backfill's pods add "-backfill-HASH8-99999", and a host name has 63. It has no
     dots either, which the name of a release may have. A longer release is told from its like by a hash. */}}
{{- define "extraction-pipeline.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $found := .Values.fullnameOverride }}
{{- if not $found }}
{{- $found = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- if gt (len .Release.Name) 38 }}
{{- $found = printf "%s-%s" (trunc 29 .Release.Name) (.Release.Name | sha256sum | trunc 8) }}
{{- end }}
{{- end }}
{{- $found | replace "." "-" | trunc 38 | trimAll "-" }}
{{- end }}

{{/* What selects, and what pod templates carry: nothing that a chart's new version changes. */}}
{{- define "extraction-pipeline.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "extraction-pipeline.labels" -}}
{{ include "extraction-pipeline.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "extraction-pipeline.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "extraction-pipeline.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "extraction-pipeline.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "extraction-pipeline.configMapName" -}}
{{- default (printf "%s-config" (include "extraction-pipeline.fullname" .)) .Values.existingConfigMap }}
{{- end }}

{{/* "true" when the pods have a volume for the output: as persistence.enabled says, else when no other output is named. */}}
{{- define "extraction-pipeline.persistent" -}}
{{- $enabled := .Values.persistence.enabled }}
{{- if kindIs "invalid" $enabled }}
{{- $enabled = not (or .Values.existingConfigMap (get (.Values.pipelineConfig.output | default dict) "uri")) }}
{{- end }}
{{- $enabled | ternary "true" "" }}
{{- end }}

{{- define "extraction-pipeline.claimName" -}}
{{- default (printf "%s-data" (include "extraction-pipeline.fullname" .)) .Values.persistence.existingClaim }}
{{- end }}

{{/* What the claim of the chart can be mounted as, in a YAML list. A claim that is there keeps its own: they cannot change. */}}
{{- define "extraction-pipeline.accessModes" -}}
{{- $modes := .Values.persistence.accessModes }}
{{- if not $modes }}
{{- $modes = dig "spec" "accessModes" list (lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "extraction-pipeline.claimName" .)) }}
{{- end }}
{{- if not $modes }}
{{- $backfill := .Values.backfill }}
{{- $several := and $backfill.enabled (gt (min (int $backfill.shards) (int (default $backfill.shards $backfill.parallelism))) 1) }}
{{- $modes = list (ternary "ReadWriteMany" "ReadWriteOnce" (not (not $several))) }}
{{- end }}
{{- toYaml $modes }}
{{- end }}
