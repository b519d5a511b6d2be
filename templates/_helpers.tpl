{{- define "steelyard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains "steelyard" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-steelyard" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels below take (dict "root" $ "component" "controller"). */}}
{{- define "steelyard.selectorLabels" -}}
app.kubernetes.io/name: steelyard
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "steelyard.labels" -}}
{{ include "steelyard.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "steelyard.metadata" -}}
name: {{ include "steelyard.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "steelyard.labels" . | nindent 2 }}
{{- end -}}

{{/* Cluster-wide objects carry no namespace. */}}
{{- define "steelyard.clusterMetadata" -}}
name: {{ include "steelyard.fullname" .root }}-{{ .component }}
labels:
  {{- include "steelyard.labels" . | nindent 2 }}
{{- end -}}

{{- define "steelyard.image" -}}
{{- $image := index .root.Values.image .component -}}
image: {{ printf "%s:%s" $image.repository ($image.tag | default .root.Chart.AppVersion) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- end -}}

{{/* The Secret with the speakers' common key: the controller makes it, the speakers read it. */}}
{{- define "steelyard.memberlistSecret" -}}
steelyard-memberlist
{{- end -}}

{{/* Environment that both programs share. */}}
{{- define "steelyard.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- with .Values.kubernetes.host }}
- name: KUBERNETES_SERVICE_HOST
  value: {{ . | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ $.Values.kubernetes.port | quote }}
{{- end }}
{{- end -}}

{{/* Where a pod may run and how important it is; the same words for both programs. */}}
{{- define "steelyard.scheduling" -}}
{{- $values := index .root.Values .component -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "steelyard.probes" -}}
livenessProbe:
  httpGet:
    path: /healthz
    port: health
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: health
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end -}}

{{/* Fails where the Prometheus Operator's kind is missing. Without a cluster Helm knows no kinds at all, not even pods. */}}
{{- define "steelyard.needsOperator" -}}
{{- $known := .root.Capabilities.APIVersions -}}
{{- if and ($known.Has "v1/Pod") (not ($known.Has (printf "monitoring.coreos.com/v1/%s" .kind))) -}}
{{- fail (printf "monitoring.%s.enabled is true, but the cluster has no kind %s: install the Prometheus Operator first, or set it to false" .value .kind) -}}
{{- end -}}
{{- end -}}
