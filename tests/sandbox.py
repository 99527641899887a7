"""A virtual environment of its own that sees everything installed here: pip works in it, offline and in seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sandbox:
    """What is installed in it can be uninstalled without a trace here."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Sandbox:
        """Make it: no packages of its own, this environment's behind it, and the commands that users type."""
        venv.create(folder, with_pip=False)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        paths = [path for path in sys.path if path and Path(path).is_dir() and not path.startswith(sys.base_prefix)]
        (site / "outer.pth").write_text("\n".join(paths))
        for command in ("pip", "pytest", "apportion"):
            script = folder / "bin" / command
            script.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {command} "$@"\n')
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
