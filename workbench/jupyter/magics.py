"""`%%trace`: a cell whose body is traced, as a run like the panel's.

    %load_ext workbench

    %%trace model "The Eiffel Tower is in the city of" --name clean
    hidden = model.transformer.h[2].output.save()
    model.lm_head.output[:, -1].softmax(-1).max()

The names that it assigns are there afterwards, the last expression is saved and shown, and the run is in the panel's
history with its sites, logs and values.
"""

from __future__ import annotations

import linecache
import os
import sys
from types import FrameType
from typing import Any, NoReturn

from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand, output_can_be_silenced
from IPython.display import display

from workbench.errors import InputError
from workbench.experiment.cell import Cell
from workbench.jupyter.history import shown
from workbench.jupyter.link import register

ROOT = os.path.dirname(os.path.dirname(__file__)) + os.sep


def load(shell: Any) -> None:
    """Let a shell know `%%trace`."""
    link = register()
    assert link is not None

    @output_can_be_silenced  # by a semicolon, as elsewhere
    @no_var_expand  # a prompt may hold braces and dollars
    def trace(line: str, body: str) -> Any:
        """%%trace model "prompt": trace the cell's body.

        --invoke NAME     a further prompt, in quotes or by the name of a variable; the body is traced for each, and
                          the names that it assigns hold a list with one value for each
        --generate N      in a generation of N new tokens
        --temperature T   sampled, instead of always the most probable token
        --seed N          of all that is random
        --validate        run each line on fake values first, so that an error comes before the run
        --remote          on the server that wb.CONFIG names
        --name RUN        what the run is called in the history
        """
        __tracebackhide__ = True
        try:
            cell = Cell(*_source(shell, line, body), shell.user_ns)
        except InputError as error:
            raise UsageError(str(error)) from None  # of the line: there is nothing to be seen in a traceback
        try:
            record = link.bench.trace(cell)
        except Exception as error:
            _raise_at_its_line(error, cell.file)
        display(shown(record))
        return cell.shown

    shell.register_magic_function(trace, "cell", "trace")


def _source(shell: Any, line: str, body: str) -> tuple[str, str]:
    """The cell as it was typed, and the name by which the kernel knows it; from now on with the lines as typed, too."""
    text = f"%%trace {line}\n{body}"
    typed = (getattr(shell.history_manager, "input_hist_raw", None) or [""])[-1]
    if typed.lstrip("\n").startswith("%%trace") and typed.strip().endswith(body.strip()):
        text = typed  # with the empty lines above the first
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename not in shell.compile._filename_map:
        frame = frame.f_back
    file = shell.compile.cache(text, shell.execution_count) if frame is None else frame.f_code.co_filename
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    return text, file


def _raise_at_its_line(error: Exception, file: str) -> NoReturn:
    """Raise an error of the run from the cell's line that it is about, instead of from inside the engine."""
    __tracebackhide__ = True
    where = getattr(error, "location", None)
    if where is None or where.file != file:
        raise error
    cause = error.__cause__
    if cause is None or not _of_a_person(cause):
        error.__cause__ = error.__context__ = None
    error.__traceback__ = None
    code = compile("\n" * (where.number - 1) + "raise __error__", file, "exec")
    exec(code, {"__error__": error})
    raise AssertionError


def _of_a_person(error: BaseException) -> bool:
    """Whether an error comes from a function of the person's own, which they will want to see."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else trace.tb_frame.f_code.co_filename
    return bool(place) and not place.startswith(ROOT) and f"{os.sep}site-packages{os.sep}" not in place
