{{/* The name of the backfill's Job before anything is known of the cluster. Its hash covers what cannot change in a Job,
     the question and the revision; the rest is cut so that a suffix and the pods' indexes still fit. */}}
{{- define "extraction-pipeline.backfillBase" -}}
{{- $spec := include "extraction-pipeline.backfillSpec" . | fromYaml | toJson }}
{{- $kept := printf "%s %s %v" $spec (include "extraction-pipeline.question" .) .Values.backfill.revision }}
{{- $short := include "extraction-pipeline.fullname" . | trunc 32 | trimSuffix "-" }}
{{- printf "%s-backfill-%s" $short ($kept | sha256sum | trunc 8) }}
{{- end }}

{{/* The newest Job that did or does this backfill, in JSON; {} when there is none, or nobody to ask (helm template). */}}
{{- define "extraction-pipeline.backfillFound" -}}
{{- $found := dict }}
{{- if ne (toString .Values.backfill.restartFailed) "false" }}
{{- $mine := printf "^%s(-[0-9a-f]{5})?$" (include "extraction-pipeline.backfillBase" .) }}
{{- range (lookup "batch/v1" "Job" .Release.Namespace "").items }}
{{- if and (regexMatch $mine .metadata.name) (not .metadata.deletionTimestamp) }}
{{- if ge (toString .metadata.creationTimestamp) (dig "metadata" "creationTimestamp" "" $found) }}
{{- $found = . }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $found | toJson }}
{{- end }}

{{/* The condition (Failed, Complete) that ended a Job, in JSON; {} while it is at work. Takes the Job. A Job whose pods are
     still ending after a failure (FailureTarget) has failed. */}}
{{- define "extraction-pipeline.jobEnd" -}}
{{- $end := dict }}
{{- range dig "status" "conditions" list . }}
{{- if and (has .type (list "FailureTarget" "Failed" "Complete")) (eq .status "True") }}
{{- $end = set . "type" (.type | replace "FailureTarget" "Failed") }}
{{- end }}
{{- end }}
{{- $end | toJson }}
{{- end }}

{{/* The name of the Job. One that has failed is never run again by Kubernetes: a suffix from its uid makes another. */}}
{{- define "extraction-pipeline.backfillName" -}}
{{- $base := include "extraction-pipeline.backfillBase" . }}
{{- $found := include "extraction-pipeline.backfillFound" . | fromJson }}
{{- if not $found }}
{{- $base }}
{{- else if eq (include "extraction-pipeline.jobEnd" $found | fromJson).type "Failed" }}
{{- printf "%s-%s" $base (trunc 5 $found.metadata.uid) }}
{{- else }}
{{- $found.metadata.name }}
{{- end }}
{{- end }}
