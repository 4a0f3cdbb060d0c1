"""Editor: a trace that is not run but kept, and is then a part of every trace of its model."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from workbench.engine.plan import plan
from workbench.errors import NotTracingError
from workbench.proxy import Proxy
from workbench.recorder import CURRENT, Recorder
from workbench.tracing.creation import Creation
from workbench.tracing.edits import Edit
from workbench.tracing.elsewhere import Where, checked

if TYPE_CHECKING:
    from workbench.models.base import NNsight


class Editor:
    """`with model.edit() as edited:` — what is written inside is done in every later trace of `edited`."""

    def __init__(self, model: NNsight, inplace: bool, remote: Where = False) -> None:
        self._remote = remote
        self._model = model if inplace else model._view()
        self._recorder = Recorder(self._model, Proxy)
        self._creation = Creation()
        self._entered = False

    def __enter__(self) -> NNsight:
        if CURRENT.get() is not None:
            raise NotTracingError("a trace is open here; an edit is written outside of traces")
        if self._recorder.finished or self._entered:
            raise NotTracingError("this edit was written already; call .edit() again")
        self._entered = True
        try:
            CURRENT.set(self._recorder)
            self._creation.__enter__()
            if self._remote:
                self._recorder.check = checked(self._recorder)
        except BaseException:
            self._leave(BaseException)
            raise
        return self._model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._leave(kind)
        except BaseException:
            self._leave(BaseException)
            raise
        recorder = self._recorder
        try:
            if error is None:
                edit = Edit(recorder.freeze(), dict(recorder.bindings))
                plan(edit.graph)  # refuses here what could never run
                self._model.__dict__["_edits"] += (edit,)
        finally:
            recorder.finish({}, lambda id: "this was written in an edit, which runs in later traces; save it in one")

    def _leave(self, kind: type[BaseException] | None) -> None:
        self._creation.close()
        CURRENT.set(None)
        if kind is not None and not issubclass(kind, Exception):
            self._recorder.interrupted()
