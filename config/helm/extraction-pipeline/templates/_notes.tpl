{{/* A word of a shell's command line, in quotes where it needs them. */}}
{{- define "extraction-pipeline.word" -}}
{{- regexMatch "^[A-Za-z0-9_./:@%+=,-]+$" . | ternary . (printf "'%s'" (. | replace "'" "'\\''")) }}
{{- end }}

{{/* `kubectl run` for a pod that has the chart's volume, with the security of the other pods; takes root, name, command,
     and readOnly. */}}
{{- define "extraction-pipeline.runPod" -}}
{{- $values := .root.Values }}
{{- $image := include "extraction-pipeline.image" .root }}
{{- $claim := dict "claimName" (include "extraction-pipeline.claimName" .root) }}
{{- $mount := dict "name" "data" "mountPath" $values.persistence.mountPath "readOnly" .readOnly }}
{{- $container := dict "name" .name "image" $image "command" .command "volumeMounts" (list $mount) }}
{{- $_ := set $container "securityContext" $values.securityContext }}
{{- $_ := set $container "resources" $values.resources }}
{{- $spec := dict "containers" (list $container) "securityContext" $values.podSecurityContext }}
{{- $_ := set $spec "volumes" (list (dict "name" "data" "persistentVolumeClaim" $claim)) }}
{{- range $key := list "imagePullSecrets" "nodeSelector" "tolerations" }}
{{- with get $values $key }}{{ $_ := set $spec $key . }}{{ end }}
{{- end -}}
kubectl --namespace {{ .root.Release.Namespace }} run {{ .name }} --restart=Never --image={{ $image }} \
    --overrides='{{ dict "spec" $spec | toRawJson | replace "'" "'\\''" }}'
{{- end }}

{{/* What is known of the backfill: before this upgrade, when a cluster could be asked. */}}
{{- define "extraction-pipeline.backfillNotes" -}}
{{- $kubectl := printf "kubectl --namespace %s" .Release.Namespace }}
{{- $upgrade := printf "helm upgrade %s CHART --namespace %s --reuse-values" .Release.Name .Release.Namespace }}
{{- $job := include "extraction-pipeline.backfillName" . }}
{{- $found := include "extraction-pipeline.backfillFound" . | fromJson }}
{{- $end := include "extraction-pipeline.jobEnd" $found | fromJson }}
{{- with .Values.backfill -}}
Backfill: Job {{ $job }}, {{ with .chunks }}chunks {{ . }} of the plan{{ else }}{{ .shards }} shards{{ end }}{{ if not (kindIs "invalid" .parallelism) }}, {{ .parallelism }} at a time{{ end }}{{ if .suspend }}, suspended{{ end }}
{{- if eq (toString $end.type) "Failed" }}
The Job {{ $found.metadata.name }} had FAILED ({{ $end.reason }}{{ with $end.message }}: {{ . }}{{ end }}).
{{ $job }} takes its place and does what remains.
If the cause is not fixed, it fails again.
{{- else if eq (toString $end.type) "Complete" }}
It is COMPLETE: nothing runs until the question, the input, the output, the shards or backfill.revision change.
{{- else if $found }}
It exists already and is left as it is: {{ dig "status" "succeeded" 0 $found }} of {{ .shards }} {{ ternary "chunks" "shards" (not (not .chunks)) }} are done.
{{- end }}
{{- if and (include "extraction-pipeline.persistent" $) (gt (min (int .shards) (int (default .shards .parallelism))) 1) (not (has "ReadWriteMany" (include "extraction-pipeline.accessModes" $ | fromYamlArray))) }}
The volume is not ReadWriteMany: pods on other nodes than its own stay Pending. Set backfill.parallelism=1, or another claim.
{{- end }}

  {{ $kubectl }} get job {{ $job }} --watch
  {{ $kubectl }} get job {{ $job }} --output jsonpath='{.status.completedIndexes} done, {.status.failedIndexes} failed{"\n"}'
  {{ $kubectl }} logs --selector batch.kubernetes.io/job-name={{ $job }} --prefix --tail=3

When it has failed, this shows why, and {{ if ne (toString .restartFailed) "false" }}an upgrade starts it again{{ else }}another revision starts it again (backfill.restartFailed is off){{ end }} once the cause is fixed:

  {{ $kubectl }} get job {{ $job }} --output jsonpath='{.status.conditions[*].message}{"\n"}'
  {{ $kubectl }} logs --selector batch.kubernetes.io/job-name={{ $job }} --prefix --tail=20
  {{ $upgrade }}{{ if eq (toString .restartFailed) "false" }} --set-string backfill.revision=NEW{{ end }}

Where helm only renders (helm template, Argo CD) it cannot see that: set another backfill.revision instead.
{{- if $.Values.existingConfigMap }}
The question is in a ConfigMap that the chart cannot read: set another backfill.revision when it changes.
{{- end }}
Change it by values, not by kubectl patch or scale:

  {{ $upgrade }} --set backfill.parallelism=2
  {{ $upgrade }} --set backfill.suspend=true

After a patch, helm 4 refuses the next upgrade ("conflict with kubectl-patch"): add --force-conflicts once.
{{- end }}
{{- end }}

{{/* How the report is fetched; takes root and output. */}}
{{- define "extraction-pipeline.reportNotes" -}}
{{- $kubectl := printf "kubectl --namespace %s" .root.Release.Namespace }}
{{- $reader := printf "%s-report" (include "extraction-pipeline.fullname" .root) }}
{{- $place := trimSuffix "/" .root.Values.persistence.mountPath }}
{{- if and (include "extraction-pipeline.persistent" .root) (or (not .output) (hasPrefix $place .output)) }}
  {{ include "extraction-pipeline.runPod" (dict "root" .root "name" $reader "readOnly" true "command" (list "cat" (printf "%s/report.html" (default "OUTPUT" .output)))) }}
  {{ $kubectl }} wait pod/{{ $reader }} --for=jsonpath='{.status.phase}'=Succeeded --timeout=5m
  {{ $kubectl }} logs {{ $reader }} >report.html
  {{ $kubectl }} delete pod {{ $reader }}
{{- else if hasPrefix "s3://" .output }}
  aws s3 cp {{ trimSuffix "/" .output }}/report.html .
{{- else if hasPrefix "gs://" .output }}
  gcloud storage cp {{ trimSuffix "/" .output }}/report.html .
{{- else if hasPrefix "az://" .output }}
{{- $parts := regexFindAll "[^/]+" (trimPrefix "az://" .output) -1 }}
  az storage blob download --container-name {{ first $parts }} --name {{ append (rest $parts) "report.html" | join "/" }} --file report.html
{{- else }}
  it is report.html in the output{{ with .output }} ({{ . }}){{ end }}
{{- end }}
{{- end }}
