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

{{/* The pod template; takes root, component, args, and shards for an Indexed Job. */}}
{{- define "extraction-pipeline.podTemplate" -}}
{{- $values := .root.Values }}
{{- $keys := (include "extraction-pipeline.keys" .root | fromYaml).names }}
metadata:
  labels:
    {{- include "extraction-pipeline.selectorLabels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  # a Service called vllm would set VLLM_PORT
  enableServiceLinks: false
  serviceAccountName: {{ include "extraction-pipeline.serviceAccountName" .root | quote }}
  automountServiceAccountToken: {{ $values.serviceAccount.automountToken }}
  terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  containers:
    - name: pipeline
      image: {{ include "extraction-pipeline.image" .root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: [pipeline]
      args:
        - run
        - --run-id=$(JOB_NAME)
        - --log-format={{ $values.logFormat }}
        - --log-level={{ $values.logLevel }}
        {{- with $values.metrics.port }}
        - --metrics-port={{ int . }}
        - --metrics-host=0.0.0.0
        {{- end }}
        {{- with $values.metrics.pushgateway }}
        - {{ printf "--pushgateway=%s" . | quote }}
        {{- end }}
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
      workingDir: /tmp
      {{- with $values.metrics.port }}
      ports:
        - name: metrics
          containerPort: {{ int . }}
      {{- end }}
      env:
        - name: JOB_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['batch.kubernetes.io/job-name']
        - name: PIPELINE_CONFIG
          value: /etc/extraction-pipeline/config/pipeline.yaml
        - name: TMPDIR
          value: /tmp
        - name: HOME
          value: /tmp
        {{- with $values.metrics.pushgatewaySecret }}
        {{- if .name }}
        - name: PIPELINE_PUSHGATEWAY
          valueFrom:
            secretKeyRef:
              name: {{ .name | quote }}
              key: {{ .key | quote }}
        {{- end }}
        {{- end }}
        {{- with .shards }}
        - name: PIPELINE_SHARDS
          value: {{ int . | quote }}
        {{- end }}
        {{- range $keys }}
        - name: {{ . }}_FILE
          value: /etc/extraction-pipeline/keys/{{ . }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- toYaml $values.securityContext | nindent 8 }}
      volumeMounts:
        # whole folders, never a subPath: only so does a changed ConfigMap or Secret reach a running pod
        - name: config
          mountPath: /etc/extraction-pipeline/config
          readOnly: true
        {{- if $values.agents }}
        - name: agents
          mountPath: /etc/extraction-pipeline/agents
          readOnly: true
        {{- end }}
        {{- if $keys }}
        - name: keys
          mountPath: /etc/extraction-pipeline/keys
          readOnly: true
        {{- end }}
        - name: tmp
          mountPath: /tmp
        {{- if include "extraction-pipeline.persistent" .root }}
        - name: data
          mountPath: {{ $values.persistence.mountPath | quote }}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
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
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $values.topologySpreadConstraints }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "extraction-pipeline.selectorLabels" .root | fromYaml)) }}
  topologySpreadConstraints:
    {{- range $values.topologySpreadConstraints }}
    - {{- mergeOverwrite (deepCopy $own) . | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
{{- end }}
