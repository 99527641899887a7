"""Python processes that begin in milliseconds: forks of one that has imported what takes four seconds.

None of apportion's own modules is imported before the fork, so that a program finds them as a new process would. Tests
of what is imported, and of signals while it is, start Python anew.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import shutil
import signal
import site
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["Forks", "Process"]

IMPORTED = (
    "matplotlib.backends.backend_agg",
    "pytest",
    "rich.console",
    "sklearn.linear_model",
    "torch",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "typer",
)
SITE = "APPORTION_TEST_SITE"
"""The variable that names a folder of packages besides those that are installed here."""


class Process:
    """A program under way.

    Attributes:
        pid: for signals.
        stdout: what it writes, as it comes.
        stderr: what it wrote besides, to be read once it has ended.
    """

    def __init__(self, connection: socket.socket, stdout: IO[str], stderr: IO[str]) -> None:
        self._answers = connection.makefile("r")
        connection.close()
        self.stdout, self.stderr = stdout, stderr
        self.pid = int(self._answers.readline())

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        """What it still writes until it has ended, and what went to its standard error."""
        with self.stdout, self.stderr, self._answers:
            rest = self.stdout.read()
            self.returncode = int(self._answers.readline())
            self.stderr.seek(0)
            return rest, self.stderr.read()


class Forks:
    """Starts programs; what it was started with has to be closed."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp()
        self.socket = Path(self._folder, "socket")
        command = [sys.executable, __file__, "serve", str(self.socket)]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def start(
        self, program: str, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Process:
        """Run a program as ``python -c`` does, with the modules that can be imported here."""
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        words = ["-c", *map(str, arguments)]
        stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        ours, theirs = os.pipe()
        with Path(os.devnull).open() as nothing, os.fdopen(theirs):
            streams = [nothing.fileno(), theirs, stderr.fileno()]
            connection = ask(str(self.socket), program, words, streams, {**os.environ, **path, **(env or {})}, cwd)
        return Process(connection, os.fdopen(ours), stderr)

    def run(
        self, program: str, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        process = self.start(program, *arguments, env=env, cwd=cwd)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(program, process.returncode, stdout, stderr)

    def pytest(
        self, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run pytest without a cache, and without the plugins that its tests have no use for."""
        words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest", *map(str, arguments)]
        return self.run("import pytest, sys\nsys.exit(pytest.main(sys.argv[1:]))", *words, env=env, cwd=cwd)

    def command(self, *, packages: Path | None = None) -> str:
        """Begins a line of the shell that runs Python, with these packages besides."""
        return f'{SITE}="{packages or ""}" exec "{sys.executable}" -SE "{__file__}" ask "{self.socket}"'

    def close(self) -> None:
        """End what waits for programs; those under way go on."""
        self._server.communicate()
        shutil.rmtree(self._folder)


def ask(
    path: str, program: str, words: list[str], streams: list[int], env: Mapping[str, str], cwd: Path | None = None
) -> socket.socket:
    """Have a program run; the answers, a line each, are its process id and its exit status."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    job = {"program": program, "words": words, "env": dict(env), "cwd": str(cwd or Path.cwd())}
    message = json.dumps(job).encode() + b"\n"
    sent = socket.send_fds(connection, [message], streams)
    connection.sendall(message[sent:])
    return connection


def ask_as_python(path: str, words: list[str]) -> int:
    """Do what ``python`` does with these words."""
    match words:
        case [] | ["-"]:
            program = sys.stdin.read()
        case ["-c", program, *rest]:
            words = ["-c", *rest]
        case ["-m", module, *words]:
            program = f"import runpy\nrunpy.run_module({module!r}, None, '__main__', True)"
            words = [module, *words]
        case [file, *_]:
            program = f"import runpy\nrunpy.run_path({file!r}, None, '__main__')"
    with ask(path, program, words, [0, 1, 2], os.environ).makefile("r") as answers:
        answers.readline()
        status = int(answers.readline())
    return status if status >= 0 else 128 - status


def serve(path: str) -> str:
    """Wait for programs until standard input ends; comes back in the fork that is to run one."""
    for name in IMPORTED:
        __import__(name)
    assert threading.active_count() == 1, "a fork has one thread only"
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how those that wait for programs end
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
        else:
            os._exit(0)
    return become(connection)


def become(connection: socket.socket) -> str:
    """Fork once more, and say how the program ended; comes back in the fork that is to run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # A test runner in the background ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    message, streams, *_ = socket.recv_fds(connection, 1 << 16, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 16)
    job = json.loads(message)
    if pid := os.fork():
        for stream in (*streams, 0, 1):
            os.close(stream)
        connection.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv[:] = job["words"]
    paths = ["", *filter(None, job["env"].get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = dict.fromkeys([*paths, *sys.path[1:]])
    if packages := job["env"].get(SITE):
        site.addsitedir(packages)
    program: str = job["program"]
    return program


def execute(program: str) -> None:
    """Run it as the main module, and end as Python does, short of taking down modules, which is a second's work."""
    status = 1

    def leave() -> None:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(program, "<program>", "exec"), vars(sys.modules["__main__"]))
        status = 0
    except SystemExit as exit:
        status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        raise


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask_as_python(sys.argv[2], sys.argv[3:]))
    execute(serve(sys.argv[2]))
