# One command a chore. The first call makes .venv and installs what the chore needs; later calls start at once.
# On a fresh machine only python3 (3.11 or newer, with venv) is needed.

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
# Workers of pytest beside each other: one thread each, and no spinning while they wait.
ONE_THREAD := OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 MPLBACKEND=Agg
# More words for the chore's command, for example: make test ARGS="tests/data -x"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check bench-fill bench-import bench-memory bench-methods score-dev leaderboard ms-experiment train train-smoke small-round overfit-one wheel clean

help:
	@echo "make demo           fill a real scan with a simulated lesion; prints where the results are"
	@echo "make test           run the tests"
	@echo "make check          ruff, mypy, direction of imports"
	@echo "make bench-fill     wall time and peak memory of a fill"
	@echo "make bench-import   import every published file form at published size, bit for bit, with time and memory"
	@echo "make bench-memory   memory of a training step of latent3d and pseudo3d at 1 mm"
	@echo "make bench-methods  one evaluation and one training step of every method against plain float32"
	@echo "make score-dev      scores of the default model and the classical fills on the dev persons"
	@echo "make leaderboard    all methods on the dev persons, as docs/results.md and a page; goes on where it stopped"
	@echo "make ms-experiment  does filling repair a tissue segmentation? docs/ms.md; goes on where it stopped"
	@echo "make train          train the default model: prepare, train, export; goes on where it stopped"
	@echo "make small-round    every method at preset small for the same minutes: docs/small.md"
	@echo "make overfit-one    every method learns one case by heart and fills it: docs/overfitted.png"
	@echo "make train-smoke    every method for a few steps on made-up data; the loss must fall"
	@echo "make wheel          build dist/*.whl"
	@echo "make clean          remove .venv and everything built"

$(VENV)/.base:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "neuromend needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.base pyproject.toml constraints.txt
	@echo "Installing neuromend into $(VENV) (once; PyTorch is the big part)"
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml constraints.txt
	@echo "Installing neuromend and its development tools into $(VENV) (once; PyTorch is the big part)"
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[all]' --group dev
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo
	$(RUN) -m neuromend demo $(ARGS)

test: $(VENV)/.dev
	$(ONE_THREAD) $(RUN) -m pytest -n 2 $(ARGS)

check: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench-fill: $(VENV)/.dev
	$(RUN) benchmarks/bench_fill.py $(ARGS)

bench-import: $(VENV)/.dev
	$(RUN) benchmarks/bench_import.py $(ARGS)

bench-memory: $(VENV)/.dev
	$(RUN) benchmarks/bench_memory.py $(ARGS)

bench-methods: $(VENV)/.dev
	$(RUN) benchmarks/bench_methods.py $(ARGS)

score-dev: $(VENV)/.dev
	$(RUN) benchmarks/score_dev.py $(ARGS)

leaderboard: $(VENV)/.dev
	$(RUN) benchmarks/dev_tsv.py --out runs/dev-cases
	$(RUN) -m neuromend benchmark --cases runs/dev-cases/cases.tsv --out runs/leaderboard --results docs/results.md $(ARGS)

ms-experiment: $(VENV)/.dev
	$(RUN) benchmarks/ms_experiment.py $(ARGS)

runs/prepared/cache.json: | $(VENV)/.dev
	$(RUN) training/dataset_tsv.py --data ../shared/data --out runs/dataset
	$(RUN) -m neuromend prepare runs/dataset/cases.tsv --out runs/prepared

train: $(VENV)/.dev runs/prepared/cache.json
	$(RUN) -m neuromend train --method fastwavelet3d --preset default --data runs/prepared --out runs/default \
		--shapes ../shared/data/stroke/masks-mni:0.8:4 --shapes ../shared/data/ms/masks-mni:0.2:2 $(ARGS)
	$(RUN) -m neuromend export runs/default --out runs/default-model --name fastwavelet3d-default --coverage both \
		--licence CC-BY-NC-SA-4.0 --licence-file training/LICENSE-WEIGHTS.md --notes training/card-notes.md --overwrite

small-round: $(VENV)/.dev runs/prepared/cache.json
	$(RUN) training/small_round.py $(ARGS)

overfit-one: $(VENV)/.dev
	$(RUN) training/overfit_one.py $(ARGS)

train-smoke: $(VENV)/.dev
	$(RUN) benchmarks/train_smoke.py $(ARGS)

wheel: $(VENV)/.dev
	rm -rf build dist
	$(RUN) -m build --wheel --no-isolation --outdir dist

clean:
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
