#!/bin/sh
# Finds a Python that is new enough, or says how to get one, and hands it the work.
set -eu
cd "$(dirname "$0")/.."

new_enough() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then # named: used or refused, never exchanged for another
    new_enough "$PYTHON" && exec "$PYTHON" -m scripts "$@"
else
    for python in python3 python3.14 python3.13 python3.12 python3.11 python; do
        new_enough "$python" && exec "$python" -m scripts "$@"
    done
fi

asked=${PYTHON:-python3}
found=$("$asked" --version 2>/dev/null || echo "not there")
cat >&2 <<WORDS
workbench needs Python 3.11 or newer; $asked is $found.
  Debian, Ubuntu   apt-get install python3 python3-venv
  macOS            brew install python
  elsewhere        https://www.python.org/downloads/
One in an unusual place is named with: make PYTHON=/path/to/python lab
WORDS
exit 1
