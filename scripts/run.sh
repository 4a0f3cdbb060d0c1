#!/bin/sh
# Finds a Python that is new enough, or says how to get one, and hands it the work.
set -eu
cd "$(dirname "$0")/.."

new_enough() {
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python; do
    if new_enough "$python"; then
        exec "$python" -m scripts "$@"
    fi
done

found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "no Python")
cat >&2 <<WORDS
workbench needs Python 3.11 or newer; this machine has $found.
  Debian, Ubuntu   apt-get install python3 python3-venv
  macOS            brew install python
  elsewhere        https://www.python.org/downloads/
One in an unusual place is named with: make PYTHON=/path/to/python lab
WORDS
exit 1
