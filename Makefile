# Two commands: `make lab` to use it, `make test` to check it. Both set everything up first, and are quick the second time.
PYTHON ?= python3
VENV := .venv/bin

.PHONY: help setup lab test check bench types notebooks browser clean

help:
	@echo "make lab     set up, then open JupyterLab with the panel"
	@echo "make test    set up, then run every check"
	@echo "make check   format, lint, types and unit tests only"
	@echo "make bench   speed beside hand-written hooks, as ratios"
	@echo "make types   write the TypeScript types anew from the Python ones"
	@echo "make clean   remove what the set-up made"

setup:
	@$(PYTHON) scripts/setup.py

lab: setup
	@$(VENV)/jupyter lab notebooks/first_look.ipynb

test: setup
	@$(VENV)/python scripts/checks.py

check: setup
	@$(VENV)/python scripts/checks.py lint types units

bench: setup
	@$(VENV)/python -m benchmarks.engine

types: setup
	@npm run --silent types

clean:
	rm -rf .venv .make node_modules workbench/labextension labextension/lib
