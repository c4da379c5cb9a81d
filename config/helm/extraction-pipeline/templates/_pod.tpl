{{/* What a pod failure means (the exit codes of the pipeline): an eviction is nothing, 1 and 2 are not tried again.
     Takes the action for exit code 1. */}}
{{- define "extraction-pipeline.podFailurePolicy" -}}
rules:
  - action: Ignore
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
  - action: {{ . }}
    onExitCodes:
      containerName: pipeline
      operator: In
      values: [1]
  - action: FailJob
    onExitCodes:
      containerName: pipeline
      operator: In
      values: [2]
{{- end }}

{{/* The labels of pods, as YAML; takes root and component. */}}
{{- define "extraction-pipeline.podLabels" -}}
{{- $own := include "extraction-pipeline.selectorLabels" .root | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/component" .component }}
{{- merge $own .root.Values.podLabels .root.Values.commonLabels | toYaml }}
{{- end }}

{{/* Where the chart's own volumes are mounted, in a YAML list: whole folders, never a subPath, for only so does a changed
     ConfigMap or Secret reach a running pod. */}}
{{- define "extraction-pipeline.mounts" -}}
{{- $mounts := list (dict "name" "config" "mountPath" "/etc/extraction-pipeline/config" "readOnly" true) }}
{{- if .Values.agents }}
{{- $mounts = append $mounts (dict "name" "agents" "mountPath" "/etc/extraction-pipeline/agents" "readOnly" true) }}
{{- end }}
{{- if (include "extraction-pipeline.keys" . | fromYaml).names }}
{{- $mounts = append $mounts (dict "name" "keys" "mountPath" "/etc/extraction-pipeline/keys" "readOnly" true) }}
{{- end }}
{{- $mounts = append $mounts (dict "name" "tmp" "mountPath" "/tmp") }}
{{- if include "extraction-pipeline.persistent" . }}
{{- $mounts = append $mounts (dict "name" "data" "mountPath" .Values.persistence.mountPath) }}
{{- end }}
{{- toYaml $mounts }}
{{- end }}

{{/* The arguments of `pipeline run` that both Jobs have, in a YAML list. */}}
{{- define "extraction-pipeline.runArgs" -}}
- run
- --run-id=$(JOB_NAME)
- --log-format={{ .Values.logFormat }}
- --log-level={{ .Values.logLevel }}
{{- with .Values.metrics.port }}
- --metrics-port={{ int . }}
- --metrics-host=0.0.0.0
{{- end }}
{{- with .Values.metrics.pushgateway }}
- {{ printf "--pushgateway=%s" . | quote }}
{{- end }}
{{- end }}

{{/* The pod template of a Job; takes root, component, args (of `pipeline run`), resume, and shards and chunks for an Indexed Job. */}}
{{- define "extraction-pipeline.podTemplate" -}}
{{- $args := concat (include "extraction-pipeline.runArgs" .root | fromYamlArray) .args }}
metadata:
  labels:
    {{- include "extraction-pipeline.podLabels" . | nindent 4 }}
  {{- with .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "extraction-pipeline.podSpec" (merge (dict "args" $args) .) | trim | nindent 2 }}
{{- end }}

{{/* The pod; takes root, args, and for a Job: component, resume (the command that lets it go on), shards, chunks. */}}
{{- define "extraction-pipeline.podSpec" -}}
{{- $values := .root.Values }}
{{- $keys := (include "extraction-pipeline.keys" .root | fromYaml).names }}
restartPolicy: Never
# a Service called vllm would set VLLM_PORT
enableServiceLinks: false
serviceAccountName: {{ include "extraction-pipeline.serviceAccountName" .root | quote }}
automountServiceAccountToken: {{ $values.serviceAccount.automountToken }}
terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
{{- range $name := list "priorityClassName" "runtimeClassName" "schedulerName" }}
{{- with get $values $name }}
{{ $name }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- range $name := list "imagePullSecrets" "hostAliases" "dnsConfig" "nodeSelector" "tolerations" "affinity" }}
{{- with get $values $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- if $values.topologySpreadConstraints }}
{{- $own := dict "labelSelector" (dict "matchLabels" (include "extraction-pipeline.selectorLabels" .root | fromYaml)) }}
topologySpreadConstraints:
  {{- range $values.topologySpreadConstraints }}
  - {{- mergeOverwrite (deepCopy $own) . | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml $values.podSecurityContext | nindent 2 }}
{{- if or $values.initContainers $values.sidecars }}
initContainers:
  {{- range $values.sidecars }}
  # an init container that goes on running ends with the pod's work; another container would keep the pod alive
  - {{- merge (dict "restartPolicy" "Always") . | toYaml | nindent 4 }}
  {{- end }}
  {{- with $values.initContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  # without a command: the image's ENTRYPOINT has an init in front of the program, which passes SIGTERM on from the start
  - name: pipeline
    image: {{ include "extraction-pipeline.image" .root | quote }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    args:
      {{- toYaml .args | nindent 6 }}
    workingDir: /tmp
    {{- if and .resume $values.metrics.port }}
    ports:
      - name: metrics
        containerPort: {{ int $values.metrics.port }}
    {{- end }}
    env:
      {{- with .resume }}
      - name: JOB_NAME
        valueFrom:
          fieldRef:
            fieldPath: metadata.labels['batch.kubernetes.io/job-name']
      - name: POD_NAMESPACE
        valueFrom:
          fieldRef:
            fieldPath: metadata.namespace
      - name: PIPELINE_RESUME_COMMAND
        value: {{ . | quote }}
      {{- end }}
      - name: PIPELINE_CONFIG
        value: /etc/extraction-pipeline/config/pipeline.yaml
      - name: TMPDIR
        value: /tmp
      - name: HOME
        value: /tmp
      {{- if and .resume $values.metrics.pushgatewaySecret.name }}
      - name: PIPELINE_PUSHGATEWAY
        valueFrom:
          secretKeyRef:
            name: {{ $values.metrics.pushgatewaySecret.name | quote }}
            key: {{ $values.metrics.pushgatewaySecret.key | quote }}
      {{- end }}
      {{- if .chunks }}
      - name: PIPELINE_CHUNKS
        value: {{ .chunks | toString | quote }}
      {{- else if .shards }}
      - name: PIPELINE_SHARDS
        value: {{ int .shards | quote }}
      {{- end }}
      {{- range $keys }}
      - name: {{ . }}_FILE
        value: /etc/extraction-pipeline/keys/{{ . }}
      {{- end }}
      {{- with $values.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      {{- toYaml $values.resources | nindent 6 }}
    securityContext:
      {{- toYaml $values.securityContext | nindent 6 }}
    volumeMounts:
      {{- include "extraction-pipeline.mounts" .root | nindent 6 }}
      {{- with $values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "extraction-pipeline.configMapName" .root | quote }}
  {{- if $values.agents }}
  - name: agents
    configMap:
      name: {{ include "extraction-pipeline.fullname" .root }}-agents
  {{- end }}
  {{- if $keys }}
  - name: keys
    secret:
      secretName: {{ default (printf "%s-keys" (include "extraction-pipeline.fullname" .root)) $values.existingSecret | quote }}
      # without fsGroup the files are those of root
      defaultMode: {{ hasKey $values.podSecurityContext "fsGroup" | ternary "0440" "0444" }}
  {{- end }}
  - name: tmp
    emptyDir:
      sizeLimit: {{ $values.tmp.sizeLimit | quote }}
      {{- with $values.tmp.medium }}
      medium: {{ . }}
      {{- end }}
  {{- if include "extraction-pipeline.persistent" .root }}
  - name: data
    persistentVolumeClaim:
      claimName: {{ include "extraction-pipeline.claimName" .root | quote }}
  {{- end }}
  {{- with $values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
