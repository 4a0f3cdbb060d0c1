"""`python -m scripts setup | lab | check | test | format | bench | soak | types | picture | clean`: the Makefile's."""

from __future__ import annotations

import sys

from scripts import checks, lab, setup
from scripts.steps import Failure, say


def main(words: list[str]) -> int:
    """Does what the first word asks for; returns the exit status."""
    what, flags = words[0], words[1:]
    try:
        if what == "clean":
            setup.clean()
            return 0
        setup.everything(browser=what in ("test", "bench", "picture"), panel=what != "types")
        if what == "setup":
            say("ready: make lab")
            return 0
        if what == "lab":
            lab.become(flags)
        return checks.run_all(what)
    except Failure as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
