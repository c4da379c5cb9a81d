{{/* What a Job keeps for its life; its hash names the Job. parallelism and suspend may change, and stand elsewhere. */}}
{{- define "extraction-pipeline.backfillSpec" -}}
{{- $backfill := .Values.backfill }}
{{- $args := list }}
{{- with $backfill.maxDuration }}
{{- $args = append $args (printf "--max-duration=%s" .) }}
{{- end }}
{{- $args = concat $args $backfill.extraArgs }}
completionMode: Indexed
completions: {{ int $backfill.shards }}
backoffLimitPerIndex: {{ int $backfill.backoffLimitPerIndex }}
{{- if kindIs "invalid" $backfill.maxFailedIndexes }}
maxFailedIndexes: {{ div (add (int $backfill.shards) 3) 4 }}
{{- else }}
maxFailedIndexes: {{ int $backfill.maxFailedIndexes }}
{{- end }}
{{- with $backfill.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- if not (kindIs "invalid" $backfill.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int $backfill.ttlSecondsAfterFinished }}
{{- end }}
podFailurePolicy:
  {{- include "extraction-pipeline.podFailurePolicy" "FailIndex" | nindent 2 }}
template:
  {{- include "extraction-pipeline.podTemplate" (dict "root" . "component" "backfill" "args" $args "shards" $backfill.shards) | trim | nindent 2 }}
{{- end }}

{{/* The nightly Job. */}}
{{- define "extraction-pipeline.nightlySpec" -}}
{{- $cron := .Values.cronjob }}
{{- $args := list }}
{{- with $cron.maxDuration }}
{{- $args = append $args (printf "--max-duration=%s" .) }}
{{- end }}
{{- if not (kindIs "invalid" $cron.maxRedo) }}
{{- $args = append $args (printf "--set=runner.max_redo=%v" $cron.maxRedo) }}
{{- end }}
{{- $args = concat $args $cron.extraArgs }}
backoffLimit: {{ int $cron.backoffLimit }}
{{- with $cron.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- if not (kindIs "invalid" $cron.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int $cron.ttlSecondsAfterFinished }}
{{- end }}
podFailurePolicy:
  {{- include "extraction-pipeline.podFailurePolicy" "FailJob" | nindent 2 }}
template:
  {{- include "extraction-pipeline.podTemplate" (dict "root" . "component" "nightly" "args" $args) | trim | nindent 2 }}
{{- end }}
