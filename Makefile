# make demo   the environment, everything installed, and the main job on the embedded network
# make test   the environment if absent, and the whole test suite
# make lint   ruff, and mypy of all code, tests and workers included
# make coverage   the test suite once more, and which lines no test runs: no gate, and build/coverage for a browser
# make docs   the documentation as a site in build/site; a warning is an error

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
# The version that the project is tested with. Where pip knows a CPU build under that version it is taken.
TORCH  ?= torch==2.13.0

# Each process that a test starts would compile the package anew.
test coverage: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test coverage lint docs environment lava clients clean
.DELETE_ON_ERROR:

environment: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable ".[dev,docs]"
	touch $@

lava: environment
	$(BIN)/cos-export targets --install lava

# One environment for all four clients.
clients: environment
	$(BIN)/cos-export targets --install sinabs

demo: lava
	$(BIN)/cos-export convert-and-export digits --data digits --steps 4 --method static \
		--targets onnxruntime,lava --out out/digits
	$(BIN)/cos-export convert-and-export digits --data digits --steps 4 --method half --schedule layerwise \
		--targets onnxruntime,lava --out out/digits-layerwise

test: lava clients
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

coverage: lava clients
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile \
		--cov --cov-report term --cov-report html:build/coverage

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: environment
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf $(VENV) out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
