# Two commands are enough: `make lab` to use it, `make test` to check it. The work is in scripts/.
# Settings: PYTHON=/path/to/python, CHROMIUM=/path/to/chromium, LABFLAGS="--no-browser --port=8890".

DO = @sh scripts/run.sh

.PHONY: help setup lab test check format bench soak types picture clean

help:  ## what can be asked for
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | expand -t 10

setup:  ## make .venv, install everything, build the panel
	$(DO) setup

lab:  ## set up, then open JupyterLab on notebooks/first_look.ipynb
	$(DO) lab $(LABFLAGS)

test:  ## set up, then run all checks: lint, types, units, notebooks, browser
	$(DO) test

check:  ## set up, then the quick checks: lint, types, units
	$(DO) check

format:  ## put the code in shape
	$(DO) format

bench:  ## measure against hooks written by hand
	$(DO) bench

soak:  ## kill servers, send ten thousand jobs and strange requests, for an hour
	$(DO) soak

types:  ## write the panel's types anew from the Python ones
	$(DO) types

picture:  ## take the README's picture anew
	$(DO) picture

clean:  ## remove what was built and installed
	$(DO) clean
