# Every target installs what it needs into .venv and works alone, from nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PACKAGES := default_model serving rag_client ingestion retriever_service generator_service gateway evaluation training cli
PROTOS := protos/rag/v1/common.proto protos/rag/v1/retriever.proto protos/rag/v1/generator.proto protos/rag/v1/gateway.proto
export HF_HUB_OFFLINE ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo install protos lint types contracts drift test test-slow check check-deploy bench-generator bench-generator-gpu bench-retriever clean

demo: install            ## start the three services, ingest the sample knowledge base, ask, stop
	$(BIN)/rag demo

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --constraint constraints.txt --editable '.[cpu,report]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install --constraint constraints.txt --group dev
	@touch $@

protos: $(VENV)/.installed-dev   ## write the stubs beside their .proto
	$(BIN)/python -m grpc_tools.protoc -I . --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=. --pyi_out=. --grpc_python_out=. --mypy_grpc_out=quiet:. $(PROTOS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/baseline.binpb

types: $(VENV)/.installed-dev
	$(BIN)/mypy $(PACKAGES)

contracts: $(VENV)/.installed-dev ## the import directions of docs/architecture.md
	$(BIN)/lint-imports

drift: protos                    ## committed stubs are what the .proto files generate
	git diff --exit-code --stat -- protos

test test-slow: $(VENV)/.installed-dev
	$(BIN)/pytest -m '$(if $(findstring slow,$@),slow,not slow)'

check: lint types contracts drift test

check-deploy: $(VENV)/.installed-dev ## with kubectl, promtool, podman where they are
	deploy/check.sh

bench-generator bench-generator-gpu bench-retriever: $(VENV)/.installed-dev ## ours against others, and docs/performance.md
	$(BIN)/python -m benchmarks.$(if $(findstring retriever,$@),retriever,generator $(if $(findstring gpu,$@),--device cuda)) && $(BIN)/python -m benchmarks.generator.report

clean:
	rm -rf $(VENV) build *.egg-info
