# Two commands do all the set-up: `make demo` and `make test`. Both may be run again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test install format lint types bench hostile fuzz faults test-vllm conformance test-slow service-test viewer bundle lock licences audit clean

demo: $(STAMP)
	@$(BIN)/tissuetalk demo

test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

# Every command of every page, and a whole training run: minutes each
test-slow: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q -m slow

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "missing: $(PYTHON). Install Python 3.11 or newer, or run 'make PYTHON=/path/to/python3 …'." >&2; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "missing: Python 3.11 or newer ($(PYTHON) is older). Run 'make PYTHON=/path/to/python3.11 …'." >&2; exit 3; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "missing: the venv module. On Debian: apt-get install python3-venv." >&2; exit 3; }
	@mkdir -p .import/tissuetalk
	@for area in server tools prompts models; do ln -sfn ../../$$area .import/tissuetalk/$$area; done
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'torch==2.13.0' || { echo "torch could not be installed: check that pip reaches a package index." >&2; exit 3; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,export,llm,agent,ray,data,train,service,openvino]' || { echo "the install failed: see pip's message above." >&2; exit 3; }
	@touch $(STAMP)

format: $(STAMP)
	@$(BIN)/ruff format --check .

lint: $(STAMP)
	@$(BIN)/ruff check .

types: $(STAMP)
	@$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

faults: $(STAMP)
	@TISSUETALK_KILLS=100 TISSUETALK_DAMAGES=400 $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/test_faults.py

# Every hostile file and call against the real server, and the table of docs/security.md. FAMILY=png for one family.
hostile: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python -m hostile $(if $(FAMILY),--family $(FAMILY))

# Readers of strangers' bytes, driven by coverage; what breaks one is kept in tests/hostile/seeds.
fuzz: $(STAMP)
	@PYTHONPATH=tests $(BIN)/python -m hostile.fuzz --minutes $(or $(MINUTES),10)

test-vllm: $(STAMP)
	@$(BIN)/python tests/vllm/run.py

# REQUIRED=1: without npm, or where it reaches no registry, this fails instead of being skipped
conformance: $(STAMP)
	@$(BIN)/python tests/conformance/run.py $(if $(REQUIRED),--required)

# Several servers over Debian's PostgreSQL and an S3-compatible store, slides in Orthanc: apt-get install postgresql orthanc orthanc-dicomweb
service-test: $(STAMP)
	@$(BIN)/python -c 'import dicomweb_client, moto, psycopg, s3fs' 2>/dev/null || { echo "missing: run '$(BIN)/pip install -e .[dev,service]'." >&2; exit 3; }
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { echo "missing: PostgreSQL. On Debian: apt-get install postgresql." >&2; exit 3; }
	@command -v Orthanc >/dev/null && ls /usr/share/orthanc/plugins/libOrthancDicomWeb.so >/dev/null 2>&1 || { echo "missing: Orthanc. On Debian: apt-get install orthanc orthanc-dicomweb." >&2; exit 3; }
	@$(BIN)/python -m pytest -q -p no:cacheprovider -m service tests $(TESTS)

# The viewer's page from its sources, into the file that is committed and ships. CHECK=1: only whether they belong together
viewer:
	@command -v npm >/dev/null || { echo "missing: npm. On Debian: apt-get install npm." >&2; exit 3; }
	@cd server/viewer && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent build >/dev/null
	@for built in index.html:viewer.html licences.md:licences.md; do \
	  $(if $(CHECK),cmp,cp) build/viewer/$${built%%:*} server/viewer/$${built##*:} || exit 1; done
	@ls -l server/viewer/viewer.html

# What chat hosts install with one click, and its entry for the MCP registry; the public packer comes from npm
bundle: $(STAMP)
	@$(BIN)/python -m build --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet --disable-pip-version-check build
	@rm -f dist/*.whl && $(BIN)/python -m build --wheel --outdir dist . >/dev/null
	@$(BIN)/python server/packaging/build.py dist/tissuetalk-*.whl

# WHEELS=FOLDER: take torch's CPU build from there where download.pytorch.org is not reached
lock: .venv-audit/.installed
	@.venv-audit/bin/uv pip compile pyproject.toml --extra export --extra llm --extra service -c constraints.txt --quiet --no-header --no-annotate \
	  --generate-hashes --python-version 3.11.7 --python-platform x86_64-manylinux_2_28 -o requirements.body \
	  $(if $(WHEELS),--find-links $(WHEELS) --no-emit-find-links,--torch-backend cpu)
	@{ head -n 2 requirements.lock; cat requirements.body; } > requirements.new && rm requirements.body && mv requirements.new requirements.lock

licences: $(STAMP)
	@$(BIN)/python -m benchmarks dependencies

audit: $(STAMP) .venv-audit/.installed
	@$(BIN)/python -m benchmarks dependencies --audit .venv-audit/bin/pip-audit

.venv-audit/.installed:
	@$(PYTHON) -m venv .venv-audit
	@.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 pip-audit==2.10.1
	@touch $@

clean:
	@rm -rf $(VENV) demo-out
