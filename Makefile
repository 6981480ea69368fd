# Every target works alone on a bare machine with Python 3.11 or newer: what it needs is set up first, once.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# All extras but `pusht`, which installs another pygame than `box2d` and `minigrid` do (see constraints.txt).
EXTRAS := doom,box2d,dmc,atari,minigrid,hdf5,tensorboard,cma,sb3,play,dev

.PHONY: setup demo test lint bench clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "worldloom needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "worldloom needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# A first-person Doom world: recorded, learned, and a policy learned in its dreams that then plays the real game.
# Ends with runs/doom/report.html and runs/doom/card.json. What is there already is not made again.
demo: setup
	$(BIN)/worldloom record doom data/doom --episodes 400 --options action_repeat=4 --hold 3 --num-envs 2 --seed 0
	test -f runs/doom/summary.json || $(BIN)/worldloom train rssm data/doom --out runs/doom --steps 2400 --length 32 --preview-every 300 \
		--set representation_weight=0.1 --set open_loop_head_weight=1 --threads 2 $$(test -f runs/doom/run.json && echo --resume)
	$(BIN)/worldloom learn dreamer runs/doom --out runs/doom-policy --steps 1750 --policy.starts 256 \
		--policy.discount 0.99 --threads 2 $$(test -f runs/doom-policy/learn.json && echo --resume)
	$(BIN)/worldloom evaluate runs/doom --policy runs/doom-policy --env doom --options action_repeat=4 --threads 2

# Two at a time; the browser's tests by themselves, because a browser takes both cores.
test: setup
	$(BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/play/test_browser.py
	$(BIN)/python -m pytest tests/play/test_browser.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	for name in rssm_update imagination data_loading startup checkpoint; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build *.egg-info
