"""Capsule: one file with an experiment and all that it takes to run it again and see what differs.

It is a zip archive of JSON and safetensors: no pickle, and no code but the experiment's own, which runs only once the
person has said so for that file.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors.torch import load, save
from torch import Tensor

from workbench.engine.values import first_tensor, placed
from workbench.errors import InputError
from workbench.experiment.comparison import Compared, Comparison, compared, in_words, summed_up
from workbench.experiment.fault import Fault
from workbench.experiment.kinds import Code, Experiment, Frozen, Patch, Set, Steer
from workbench.jupyter.compare import predictions, vocabulary
from workbench.jupyter.environment import describe, differences, versions
from workbench.jupyter.messages import CapsuleReply, PromptResult, Receipt
from workbench.jupyter.record import Record
from workbench.jupyter.report import headline
from workbench.models.base import NNsight
from workbench.store import Store, digest, missing, store, tensor, write_whole

SMALL = 4 << 20
"""Bytes of a result that is put in whole; of larger ones the hash is."""
MOST = 1 << 30
"""Bytes of a part of a capsule that is still read."""

CAPSULE, RESULTS, TENSORS = "capsule.json", "results.safetensors", "tensors.safetensors"


class Contents(Frozen):
    """What the JSON of a capsule says."""

    version: int = 1
    headline: str
    experiment: Experiment
    code: str
    prompts: tuple[PromptResult, ...]
    receipts: tuple[Receipt, ...] = ()
    environment: dict[str, Any] = Field(description="versions, the model and its weights, the prompts' token ids")
    hashes: dict[str, str] = Field(description="saved value → hash of what is in it")
    text: dict[str, str] = Field(default={}, description="saved value → its summary")


class Capsule:
    """A capsule that was read: its contents, its small results, and the tensors that the experiment names."""

    def __init__(self, contents: Contents, results: dict[str, Tensor], tensors: dict[str, Tensor], key: str) -> None:
        self.contents = contents
        self.results = results
        self.tensors = tensors
        self.key = key

    @property
    def codes(self) -> tuple[str, ...]:
        """The code that it brings along."""
        return codes_of(self.contents.experiment)


def codes_of(experiment: Experiment) -> tuple[str, ...]:
    """The code of an experiment's cards, switched off or not."""
    return tuple(card.code for card in experiment.interventions if isinstance(card, Code) and card.code.strip())


# ---- writing


def write(record: Record, path: Path) -> bytes:
    """Put a run in a file, and give its bytes.

    Raises:
        InputError: the run has not come to its end, or a tensor that it names is gone.
    """
    if record.state != "done":
        raise InputError(f"{record.name} is {record.state}; a capsule is made of a run that is done")
    values = record.values()
    results = {
        name: found.detach().cpu().contiguous().clone()
        for name, value in values.items()
        if (found := first_tensor(value)) is not None and found.numel() * found.element_size() <= SMALL
    }
    contents = Contents(
        headline=headline(record),
        experiment=record.experiment,
        code=record.code.text,
        prompts=record.prompts,
        receipts=record.receipts,
        environment=record.environment,
        hashes={name: hash_of(value) for name, value in values.items()},
        text={each.name: each.text for each in record.saved},
    )
    named = {name: tensor(name).contiguous() for name in names_in(record.experiment)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(CAPSULE, contents.model_dump_json(indent=1))
        file.writestr(RESULTS, save(results))
        file.writestr(TENSORS, save(named))
    data = buffer.getvalue()
    write_whole(path, data)
    return data


def hash_of(value: Any) -> str:
    """The hash of a saved value: of its tensors and where they stand, or of its repr."""
    found = hashlib.sha256()
    parts = list(placed(value))
    for where, each in parts:
        found.update(f"{where} {digest(each)}".encode())
    if not parts:
        found.update(repr(value).encode())
    return found.hexdigest()[:32]


def names_in(experiment: Experiment) -> list[str]:
    """The tensors that an experiment names."""
    found = []
    for card in experiment.enabled:
        name = card.value if isinstance(card, Set) else card.tensor if isinstance(card, (Steer, Patch)) else None
        if isinstance(name, str):
            found.append(name)
    return list(dict.fromkeys(found))


# ---- reading


def read(path: Path) -> Capsule:
    """What is in a capsule; nothing of it is run.

    Raises:
        InputError: there is no such file, or it is no capsule.
    """
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if any(each.file_size > MOST for each in file.infolist()):
                raise InputError(f"{path.name} holds a part of more than {MOST >> 30} GiB, which no capsule has")
            contents = Contents.model_validate_json(file.read(CAPSULE))
            results, tensors = (load(file.read(name)) if name in file.namelist() else {} for name in (RESULTS, TENSORS))
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}") from error
    except (OSError, KeyError, zipfile.BadZipFile, ValidationError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path.name} is no capsule: {str(error).splitlines()[0]}") from error
    return Capsule(contents, results, tensors, hashlib.sha256(data).hexdigest())


def unpacked(capsule: Capsule, store: Store) -> Experiment:
    """The experiment, its tensors put into the store; one whose name is taken by another gets a new one."""
    experiment = capsule.contents.experiment
    renamed: dict[str, str] = {}
    for name, value in capsule.tensors.items():
        known = store.names().get(name)
        if missing(name) is None and known is not None and known["hash"] == digest(value):
            continue
        new = name if known is None and not name.endswith(".safetensors") else f"{name} of capsule {capsule.key[:8]}"
        store.keep(new, value)
        renamed[name] = new
    cards = []
    for card in experiment.interventions:
        field = "value" if isinstance(card, Set) else "tensor" if isinstance(card, (Steer, Patch)) else None
        name = getattr(card, field) if field is not None else None
        new = renamed.get(name) if isinstance(name, str) else None
        cards.append(card if new is None or field is None else card.model_copy(update={field: new}))
    return experiment.model_copy(update={"interventions": tuple(cards)})


def against(capsule: Capsule, record: Record) -> Comparison:
    """What differs between a capsule and its rerun: values, next tokens, the experiment, versions and weights."""
    contents = capsule.contents
    now = record.values()
    values = list(compared(capsule.results, {name: first_tensor(now.get(name)) for name in capsule.results}))
    for name, key in contents.hashes.items():
        if name not in capsule.results:
            same = name in now and hash_of(now[name]) == key
            values.append(
                Compared(name=name, equal=same, text="the same, by its hash" if same else "differs, by its hash")
            )
    found, tokens = predictions(contents.prompts, record.prompts, (), vocabulary(record))
    pairs = (*values, *found)
    environment = differences(contents.environment, record.environment)
    equal = all(each.equal for each in pairs)
    text = summed_up(pairs) + ("" if not environment else f" · {len(environment)} differences around it")
    there = contents.experiment.model_copy(update={"model": record.experiment.model})
    return Comparison(
        equal=equal,
        text=text,
        values=pairs,
        tokens=tokens,
        experiment=in_words(there, record.experiment),
        environment=environment,
    )


# ---- at the door


def about(path: Path, models: Mapping[str, NNsight]) -> CapsuleReply:
    """What a person is shown of a capsule before anything of it is run; `models` are those of this kernel by name."""
    found, consents = read(path), Consents(store())
    consents.met(found)
    contents = found.contents
    known = contents.environment.get("model", {})
    parts = [known.get("class"), known.get("name"), f"{known.get('parameters', 0):,} parameters", known.get("revision")]
    model = models.get(contents.experiment.model)
    here = {"versions": versions()} | ({} if model is None else {"model": describe(model)})
    there = {name: value for name, value in contents.environment.items() if name in here}
    return CapsuleReply(
        path=str(path),
        bytes=path.stat().st_size,
        headline=contents.headline,
        experiment=contents.experiment,
        model=" · ".join(part for part in parts if part),
        versions=contents.environment.get("versions", {}),
        foreign=() if consents.given(found) else found.codes,
        differs=differences(there, here),
    )


def agreed(path: Path, consent: bool) -> Capsule:
    """A capsule that may run.

    Raises:
        InputError: it brings code, and its person did not consent.
    """
    found, consents = read(path), Consents(store())
    consents.met(found)
    if not consents.given(found):
        if not consent:
            raise InputError(
                f"this capsule brings code of its own, which could do anything here: {found.codes[0]!r}; read it, "
                "and rerun it with your consent"
            )
        consents.give(found)
    return found


def foreign(experiment: Experiment) -> tuple[Fault, ...]:
    """Code that came in a file of someone else, and that nobody let run yet."""
    found = Consents(store()).refused(experiment)
    if found is None:
        return ()
    card = next(each for each in experiment.interventions if isinstance(each, Code) and each.code == found)
    message = "this code came in a capsule; read it, then rerun the capsule with your consent, or remove this card"
    return (Fault(message=message, card=card.id),)


# ---- whose code it is


class Consents:
    """Which files' code a person let run, and which code came from elsewhere; kept beside the store."""

    def __init__(self, store: Store) -> None:
        self._path = store.folder / "consents.json"

    def made_here(self, data: bytes) -> None:
        """A capsule that was written here needs no consent."""
        self._change(lambda state: state["files"].append(hashlib.sha256(data).hexdigest()))

    def met(self, capsule: Capsule) -> None:
        """Remember what code a file brought, until its person consents."""
        if capsule.codes and not self.given(capsule):
            self._change(lambda state: state["foreign"].extend(map(_key, capsule.codes)))

    def given(self, capsule: Capsule) -> bool:
        """Whether a file's code may run."""
        return not capsule.codes or capsule.key in self._read()["files"]

    def give(self, capsule: Capsule) -> None:
        """Let a file's code run."""

        def change(state: dict[str, list[str]]) -> None:
            state["files"].append(capsule.key)
            known = set(map(_key, capsule.codes))
            state["foreign"] = [each for each in state["foreign"] if each not in known]

        self._change(change)

    def refused(self, experiment: Experiment) -> str | None:
        """The first code of an experiment that came from elsewhere and was not let run."""
        foreign = set(self._read()["foreign"])
        return next((each for each in codes_of(experiment) if _key(each) in foreign), None)

    def _read(self) -> dict[str, list[str]]:
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            found = {}
        known: Mapping[str, Any] = found if isinstance(found, dict) else {}
        return {name: [*map(str, known.get(name, ()))] for name in ("files", "foreign")}

    def _change(self, change: Any) -> None:
        state = self._read()
        change(state)
        write_whole(self._path, json.dumps({name: list(dict.fromkeys(each)) for name, each in state.items()}).encode())


def _key(code: str) -> str:
    return hashlib.sha256(code.strip().encode()).hexdigest()[:32]
