#!/usr/bin/env bash
# Installs the chart in a kind cluster of its own, with the fake server; waits for the backfill and for a nightly run
# after it; and holds the report against the archive.
#
# It is NOT run in CI: it needs docker, kind, kubectl and helm, and no cluster was there when it was written. What the
# tests do hold of it: shellcheck, and that the values and objects in it render and are valid. KEEP=1 keeps the cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=extraction-pipeline-smoke
image=extraction-pipeline:smoke
documents=30
shards=3
scratch=$(mktemp -d)
k() { kubectl --context "kind-$cluster" --namespace smoke "$@"; }
say() { printf '\n== %s\n' "$*"; }
done_with() {
    code=$?
    if [ "$code" -ne 0 ]; then
        k get pods,jobs || true
        k logs --selector app.kubernetes.io/name=extraction-pipeline --prefix --tail 20 || true
    fi
    rm -rf "$scratch"
    if [ -z "${KEEP:-}" ]; then kind delete cluster --name "$cluster"; fi
    exit "$code"
}

for program in docker kind kubectl helm python3; do
    command -v "$program" >/dev/null || { echo "kind_smoke: $program is needed" >&2; exit 2; }
done

say "a cluster, and the image in it"
docker build --file config/docker/Dockerfile --tag "$image" .
trap done_with EXIT
kind create cluster --name "$cluster" --wait 120s
kind load docker-image "$image" --name "$cluster"
kubectl --context "kind-$cluster" create namespace smoke

say "the fake server, from the same image and this folder's scripts"
fakes=()
for file in scripts/fake_llm/*.py; do fakes+=("--from-file=$file"); done
k create configmap fake-llm "${fakes[@]}"
cat >"$scratch/server.yaml" <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: vllm}
spec:
  selector: {matchLabels: {app: vllm}}
  template:
    metadata: {labels: {app: vllm}}
    spec:
      containers:
        - name: vllm
          image: extraction-pipeline:smoke
          imagePullPolicy: Never
          command: [python, /fake/fake_llm, --host=0.0.0.0, --port=8000, --api-key=smoke-key]
          readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 1}
          volumeMounts: [{name: fake, mountPath: /fake/fake_llm, readOnly: true}]
      volumes: [{name: fake, configMap: {name: fake-llm}}]
---
apiVersion: v1
kind: Service
metadata: {name: vllm}
spec:
  selector: {app: vllm}
  ports: [{port: 8000}]
YAML
k apply --filename "$scratch/server.yaml"
k rollout status deployment/vllm --timeout 120s

say "an archive of $documents documents, in a ConfigMap"
mkdir "$scratch/archive"
for number in $(seq "$documents"); do echo "Text number $number of an archive." >"$scratch/archive/d$number.txt"; done
k create configmap archive --from-file="$scratch/archive"

say "the chart"
cat >"$scratch/values.yaml" <<'YAML'
image: {tag: smoke, pullPolicy: Never}
config: {VLLM_BASE_URL: "http://vllm:8000", VLLM_MODEL: llama3.1, VLLM_API_KEY: smoke-key}
pipelineConfig: {input: {uri: /archive}}
cronjob: {schedule: "0 0 1 1 *"}
backfill: {enabled: true, shards: 3, parallelism: 2}
persistence: {enabled: true, size: 1Gi, accessModes: [ReadWriteOnce]}
resources: {requests: {cpu: 50m, memory: 128Mi}}
extraVolumes: [{name: archive, configMap: {name: archive}}]
extraVolumeMounts: [{name: archive, mountPath: /archive, readOnly: true}]
YAML
helm upgrade --install smoke config/helm/extraction-pipeline --kube-context "kind-$cluster" --namespace smoke \
    --values "$scratch/values.yaml"

say "the backfill, then a nightly run that finds nothing to do"
k wait job --selector app.kubernetes.io/component=backfill --for condition=Complete --timeout 300s
report() {  # by its log: a pod that is over so soon cannot be attached to
    k run "report-$1" --restart Never --image "$image" --overrides '{"spec": {"containers": [{
        "name": "cat", "image": "extraction-pipeline:smoke", "imagePullPolicy": "Never",
        "command": ["cat", "/data/out/report.json"], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "smoke-extraction-pipeline-data"}}]}}'
    k wait "pod/report-$1" --for jsonpath='{.status.phase}'=Succeeded --timeout 60s
    k logs "report-$1" >"$scratch/$1.json"
}
report backfill
k create job nightly-now --from cronjob/smoke-extraction-pipeline-nightly
k wait job/nightly-now --for condition=Complete --timeout 300s
report nightly

python3 - "$scratch" "$documents" "$shards" <<'PY'
import json, pathlib, sys
folder, documents, shards = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
backfill, nightly = (json.loads((folder / f"{name}.json").read_text()) for name in ("backfill", "nightly"))
assert backfill["missing_shards"] == [] and len(backfill["shards"]) == shards, backfill["shards"]
assert backfill["run"]["counts"]["done"] + backfill["run"]["counts"]["skipped"] == documents, backfill["run"]["counts"]
assert (nightly["run"]["counts"]["done"], nightly["run"]["counts"]["skipped"]) == (0, documents), nightly["run"]["counts"]
print(f"{documents} documents in {shards} shards, each done once; the nightly run skipped them all")
PY
