#!/usr/bin/env bash
# Checks the deployment files with the tools at hand; says at the end which were missing. `make check-deploy` runs it.
#   PYTHON_IMAGE, TORCH_INDEX_URL   passed on to the image build
#   IMAGE_BUILD=0                   leaves the image build out (it downloads torch)
set -uo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 missing=()

check() { # NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    passed=$((passed + 1)) && echo "ok      $name"
  else
    failed=$((failed + 1)) && echo "FAILED  $name" && sed 's/^/        /' "$work/log"
  fi
}

if_there() { # TOOL NAME COMMAND...
  if command -v "$1" >/dev/null; then check "${@:2}"; else missing+=("$1 ($2)"); fi
}

# kubernetes-validate says WARN, with status 0, of a kind that it does not know.
valid_manifests() {
  kubectl kustomize "$1" >"$work/manifests.yaml" || return
  command -v kubernetes-validate >/dev/null || return 0
  kubernetes-validate --strict -k 1.33 "$work/manifests.yaml" >"$work/validated" 2>&1
  local status=$?
  cat "$work/validated"
  [ $status -eq 0 ] && ! grep -q WARN "$work/validated"
}

image() { # BUILDER: "docker" or "podman" or "buildah"
  "$1" build -f deploy/docker/Dockerfile -t rag-serving:check \
    ${PYTHON_IMAGE:+--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE"} \
    ${TORCH_INDEX_URL:+--build-arg "TORCH_INDEX_URL=$TORCH_INDEX_URL"} .
}

for folder in base overlays/local overlays/replicas overlays/elasticsearch overlays/milvus; do
  if_there kubectl "kustomize $folder" valid_manifests "deploy/kustomize/$folder"
done
command -v kubernetes-validate >/dev/null || missing+=("kubernetes-validate (schemas)")
if_there promtool "prometheus configuration" promtool check config deploy/prometheus/prometheus.yaml
if_there promtool "prometheus rules" promtool test rules deploy/prometheus/rules_test.yaml
if_there hadolint "Dockerfile" hadolint deploy/docker/Dockerfile
if docker compose version >/dev/null 2>&1; then
  check "compose file" docker compose -f deploy/compose/compose.yaml config --quiet
  for backend in elasticsearch milvus; do
    check "compose file with $backend" env ELASTIC_PASSWORD=x \
      docker compose -f deploy/compose/compose.yaml -f "deploy/compose/$backend.yaml" config --quiet
  done
else
  missing+=("docker compose (compose file)")
fi
check "tests/deploy" python -m pytest -q tests/deploy

if [ "${IMAGE_BUILD:-1}" = 0 ]; then
  missing+=("image build (IMAGE_BUILD=0)")
elif docker info >/dev/null 2>&1; then
  check "image, docker" image docker
elif command -v podman >/dev/null; then
  check "image, podman" image podman
elif command -v buildah >/dev/null; then
  check "image, buildah" image buildah
else
  missing+=("docker, podman or buildah (image build)")
fi

echo "$passed passed, $failed failed, ${#missing[@]} not run${missing:+: $(printf '%s; ' "${missing[@]}" | sed 's/; $//')}"
[ "$failed" -eq 0 ]
