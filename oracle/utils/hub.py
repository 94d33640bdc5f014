"""Whether the Hugging Face hub can be reached, found out in seconds instead of by the libraries' many attempts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

__all__ = ["TIMEOUT", "quick_hub"]

TIMEOUT = 5.0
"""Longest wait for the hub, in seconds."""


@contextmanager
def quick_hub(name: str, kind: Literal["model", "dataset"]) -> Iterator[None]:
    """Within it, the libraries look in their local caches only if the hub does not answer; for local names, as usual.

    Args:
        name: a name on the hub, or a local path.
        kind: what it names.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or _is_local(name) or _answers(name, kind):
        yield
        return
    switches: list[Any] = [constants]
    if kind == "dataset":
        import datasets

        switches.append(datasets.config)
    before = [module.HF_HUB_OFFLINE for module in switches]
    try:
        for module in switches:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(switches, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _is_local(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # path too long
        return False


def _answers(name: str, kind: Literal["model", "dataset"]) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().repo_info(name, repo_type=kind, timeout=TIMEOUT)
    except (HfHubHTTPError, HFValidationError):
        return True  # what does not exist, is private or has no valid name is better explained by the library
    except Exception:  # no route, no name, no answer: each HTTP library has errors of its own
        return False
    return True
