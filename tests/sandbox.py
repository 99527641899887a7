"""A virtual environment of its own that sees everything installed here: pip works in it, offline and in seconds.

What is not pip is run by forks, which find what is installed in it and have imported torch already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

from forks import Forks


@dataclass(frozen=True)
class Sandbox:
    """What is installed in it can be uninstalled without a trace here."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, forks: Forks) -> Sandbox:
        """Make it: no packages of its own, this environment's behind it, and the commands that users type."""
        venv.create(folder, with_pip=False)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        paths = [path for path in sys.path if path and Path(path).is_dir() and not path.startswith(sys.base_prefix)]
        (site / "outer.pth").write_text("\n".join(paths))
        python = forks.command(packages=site)
        commands = {name: f"{python} -m {name}" for name in ("pytest", "apportion")}
        commands |= {"python": python, "pip": f'exec "{folder}/bin/python3" -m pip'}
        for name, command in commands.items():
            script = folder / "bin" / name
            script.unlink(missing_ok=True)
            script.write_text(f'#!/bin/sh\n{command} "$@"\n')
            script.chmod(0o755)
        return cls(folder)

    def run(self, script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run shell commands in it; the first that fails ends the script."""
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.folder),
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: no isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NO_COLOR": "1",
        }
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            ["bash", "-euc", script], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
