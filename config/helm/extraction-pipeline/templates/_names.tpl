{{/* Names end at 38 characters: the backfill's pods add "-backfill-HASH8-99999", and a host name has 63. */}}
{{- define "extraction-pipeline.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 38 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 38 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 38 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* What selects, and what pod templates carry: nothing that a chart's new version changes. */}}
{{- define "extraction-pipeline.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "extraction-pipeline.labels" -}}
{{ include "extraction-pipeline.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
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

{{- define "extraction-pipeline.claimName" -}}
{{- default (printf "%s-data" (include "extraction-pipeline.fullname" .)) .Values.persistence.existingClaim }}
{{- end }}

{{/* The Job's name carries a hash of what cannot be changed in a Job: another spec must be another Job. */}}
{{- define "extraction-pipeline.backfillName" -}}
{{- $kept := printf "%s\nrevision: %v" (include "extraction-pipeline.backfillSpec" .) .Values.backfill.revision }}
{{- printf "%s-backfill-%s" (include "extraction-pipeline.fullname" .) ($kept | sha256sum | trunc 8) }}
{{- end }}
