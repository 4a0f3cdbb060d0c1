"""`workbench serve MODEL…` and `workbench key NAME`: what is started from a terminal."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from pathlib import Path

from workbench.errors import InputError
from workbench.graph.limits import Limits
from workbench.server.auth import Keys, new_key
from workbench.server.settings import Settings, size
from workbench.server.workers import Model, Workers


def main(words: list[str] | None = None) -> int:
    """Do what the words say; the exit status."""
    parser = _parser()
    asked, rest = parser.parse_known_args(words)
    if rest and (not hasattr(asked, "models") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        asked.models += rest  # models behind options, where argparse does not look for them
    try:
        return asked.do(asked)
    except InputError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("workbench", description="Look inside PyTorch models, also from afar.")
    commands = parser.add_subparsers(required=True, metavar="serve | key")
    serve = commands.add_parser("serve", help="host models for `remote=True`")
    serve.set_defaults(do=_serve)
    add = serve.add_argument
    add("models", nargs="+", metavar="MODEL", help="a hub id, a folder, or workbench/demo-gpt2, workbench/demo-llama")
    add("--host", default="127.0.0.1", help="the address to listen on; other than this machine only with --keys")
    add("--port", type=int, default=8730, help="8730 unless given")
    add("--keys", type=Path, metavar="FILE", help="who may ask: see `workbench key`")
    add("--memory", type=_size, metavar="BYTES", help="what all loaded models may take, as 40GB; others wait on disk")
    add("--data", type=Path, metavar="FOLDER", help="where jobs and results are kept")
    add("--seconds", type=float, default=600.0, help="what one job may take; 600 unless given")
    add("--keep", type=float, default=24.0, metavar="HOURS", help="for how long results are kept; 24 unless given")
    add("--queue", type=int, default=1000, help="how many jobs a key may have waiting; 1000 unless given")
    add("--together", type=int, default=1, metavar="N", help="let up to N queued jobs of a model share a forward pass")
    add("--functions", type=Path, metavar="FILE.py", help="functions of yours that traces may name")
    add("--dtype", help="the weights' dtype, as bfloat16")
    add("--tensor-parallel", type=int, default=1, metavar="N", help="divide each model over N processes, a GPU each")
    add("--device-map", help="where weights are put, as auto or cuda:0")
    add("--limit", action="append", default=[], metavar="NAME=NUMBER", help="another limit, as result=1GB; see README")
    ray = serve.add_argument_group("on a Ray cluster, when one machine is outgrown (pip install 'workbench[ray]')")
    add = ray.add_argument
    add("--ray", metavar="ADDRESS", help="the cluster's head, as 10.0.0.1:6379; its token in RAY_AUTH_TOKEN or a file")
    add("--replicas", type=int, default=1, metavar="N", help="how many of each model; 1 unless given")
    add(
        "--resources", action="append", default=[], metavar="NAME=NUMBER",
        help="what each replica asks for, as GPU=1, CPU=4, memory=20GB, or a resource of your own; CPU=1 unless given",
    )  # fmt: skip
    add(
        "--patience",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="how long a job waits for a cluster that is away",
    )
    key = commands.add_parser("key", help="make a key, shown once, its hash kept in a file")
    key.set_defaults(do=_key)
    key.add_argument("name", help="whose key it is")
    key.add_argument("--keys", type=Path, required=True, metavar="FILE")
    return parser


def _size(text: str) -> int:
    try:
        return size(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _key(asked: argparse.Namespace) -> int:
    print(new_key(asked.keys, asked.name))
    return 0


def _serve(asked: argparse.Namespace) -> int:
    try:
        import uvicorn

        from workbench.server.app import make_app
        from workbench.server.results import alone
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; a server needs: pip install 'workbench[server]'") from error
    if asked.tensor_parallel > 1 and asked.device_map:
        raise InputError("--tensor-parallel places weights itself: leave out --device-map")
    options = {name: value for name, value in (("dtype", asked.dtype), ("device_map", asked.device_map)) if value}
    settings = Settings(
        models=tuple(Model(key, options) for key in asked.models),
        folder=(asked.data or _folder(asked.port)).absolute(),
        host=asked.host,
        port=asked.port,
        keys=asked.keys,
        memory=asked.memory,
        seconds=asked.seconds,
        keep=asked.keep * 3600,
        queue=asked.queue,
        together=asked.together,
        functions=None if asked.functions is None else asked.functions.absolute(),
        ranks=asked.tensor_parallel,
        limits=_limits(asked.limit) | {"seconds": asked.seconds},
    )
    Keys(settings.keys)  # a fault in the file is said now
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    def end() -> None:
        running.should_exit = True

    with _door(asked.host, asked.port) as door, alone(settings.folder):
        app = make_app(settings, _on_ray(asked, settings), end)
        # h11 by name: where httptools is installed it would be taken, and it reads a head of any length
        config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        running = uvicorn.Server(config)
        port = door.getsockname()[1]
        print(
            f"http://{_in_address(asked.host)}:{port} hosts {', '.join(asked.models)}; "
            f"jobs are kept in {settings.folder}",
            flush=True,
        )
        running.run([door])
    desk = getattr(app.state, "desk", None)
    if desk is not None and desk.fault is not None:
        raise InputError(desk.fault)
    return 0


def _door(host: str, port: int) -> socket.socket:
    """The address, taken before anything else is begun."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, else asyncio waits to fill packets
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise InputError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); name another with --host or --port"
        ) from error
    return door


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _limits(given: list[str]) -> dict[str, float]:
    """The limits by name, each of the kind that it has."""
    kinds = {name: type(value) for name, value in Limits().write().items()}
    found = _named_numbers("--limit", given)
    unknown = sorted(found.keys() - kinds.keys())
    if unknown:
        raise InputError(f"--limit {unknown[0]}: there is no such limit; there are {', '.join(sorted(kinds))}")
    return {name: kinds[name](value) for name, value in found.items()}


def _on_ray(asked: argparse.Namespace, settings: Settings) -> Workers | None:
    """The workers on a cluster, if that is asked for."""
    if asked.ray is None:
        if asked.replicas != 1 or asked.resources:
            raise InputError("--replicas and --resources are for a Ray cluster: give --ray ADDRESS too")
        return None
    from importlib.util import find_spec

    from workbench.server.cluster.workers import OnRay

    if find_spec("ray") is None:
        raise InputError("--ray needs the package ray: pip install 'workbench[ray]'")
    host, _, port = asked.ray.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--ray {asked.ray}: write the head's address and port, as --ray 10.0.0.1:6379")
    if asked.replicas < 1:
        raise InputError(f"--replicas {asked.replicas}: there is at least one of each model")
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return OnRay(
        asked.ray,
        asked.replicas,
        _named_numbers("--resources", asked.resources),
        settings.memory,
        settings.limits,
        None if settings.functions is None else str(settings.functions),
        settings.folder / "workers.log",
        asked.patience,
        settings.ranks,
    )


def _folder(port: int) -> Path:
    import platformdirs

    return platformdirs.user_state_path("workbench") / f"server-{port}"


def _named_numbers(option: str, given: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals:
            raise InputError(f"{option} {each}: write a name and a number, as {option} {_SUCH[option]}")
        found[name.strip()] = float(value) if value.replace(".", "", 1).isdigit() else size(value)
    return found


_SUCH = {"--limit": "result=1GB", "--resources": "GPU=1"}


if __name__ == "__main__":
    sys.exit(main())
