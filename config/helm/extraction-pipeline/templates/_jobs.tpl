{{/* What a Job keeps for its life: its hash is in the Job's name. What Kubernetes lets change is in backfill.yaml. */}}
{{- define "extraction-pipeline.backfillSpec" -}}
{{- $backfill := .Values.backfill }}
{{- $resume := printf "helm upgrade %s CHART --namespace %s --reuse-values" .Release.Name .Release.Namespace }}
completionMode: Indexed
completions: {{ int $backfill.shards }}
backoffLimitPerIndex: {{ int $backfill.backoffLimitPerIndex }}
{{- with $backfill.managedBy }}
managedBy: {{ . | quote }}
{{- end }}
podFailurePolicy:
  {{- include "extraction-pipeline.podFailurePolicy" "FailIndex" | nindent 2 }}
template:
  {{- include "extraction-pipeline.podTemplate" (dict "root" . "component" "backfill" "args" $backfill.extraArgs "resume" $resume "shards" $backfill.shards "chunks" $backfill.chunks) | trim | nindent 2 }}
{{- end }}

{{/* The nightly Job. */}}
{{- define "extraction-pipeline.nightlySpec" -}}
{{- $cron := .Values.cronjob }}
{{- $name := include "extraction-pipeline.fullname" . }}
{{- $resume := printf "kubectl --namespace %s create job %s-again --from=cronjob/%s-nightly" .Release.Namespace $name $name }}
{{- $args := list }}
{{- with $cron.maxDuration }}
{{- $args = append $args (printf "--max-duration=%s" .) }}
{{- /* the Job's name holds its scheduled minute: every try of one night ends at the same moment, before the Job's deadline */}}
{{- $args = append $args "--started-at=$(JOB_NAME)" }}
{{- end }}
{{- if not (kindIs "invalid" $cron.maxRedo) }}
{{- $args = append $args (printf "--set=runner.max_redo=%v" $cron.maxRedo) }}
{{- end }}
{{- $args = concat $args $cron.extraArgs }}
backoffLimit: {{ int $cron.backoffLimit }}
{{- with $cron.managedBy }}
managedBy: {{ . | quote }}
{{- end }}
{{- with $cron.activeDeadlineSeconds }}
activeDeadlineSeconds: {{ int . }}
{{- end }}
{{- if not (kindIs "invalid" $cron.ttlSecondsAfterFinished) }}
ttlSecondsAfterFinished: {{ int $cron.ttlSecondsAfterFinished }}
{{- end }}
podFailurePolicy:
  {{- include "extraction-pipeline.podFailurePolicy" "FailJob" | nindent 2 }}
template:
  {{- include "extraction-pipeline.podTemplate" (dict "root" . "component" "nightly" "args" $args "resume" $resume) | trim | nindent 2 }}
{{- end }}

{{/* The labels and annotations of a Job or CronJob, as YAML; takes root, component, and job: its section of the values. */}}
{{- define "extraction-pipeline.jobMetadata" -}}
{{- $own := include "extraction-pipeline.labels" .root | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/component" .component }}
labels:
  {{- mergeOverwrite $own .job.labels | toYaml | nindent 2 }}
{{- with .job.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
