"""Presets of benchmark data sets: `--data preset:NAME` stands for data, columns, metric and stop texts together.

They are read from the bundled `presets.yaml` and from files of the user's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oracle.config import PRESET, SearchConfig
from oracle.errors import InputError
from oracle.sequences.hub import HubName, is_folder, local_name
from oracle.sequences.load import PRESETS, bundled_file
from oracle.settings import assembled, flat_settings, read_yaml
from oracle.utils.text import nearest_hint

__all__ = ["Preset", "preset_config", "preset_settings", "read_presets"]

_NEVER = ("trust_remote_code", "study", "model")
"""Settings that no preset can have: what they allow or name is up to the caller."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings under a name.

    Attributes:
        name: as in `preset:NAME`.
        about: one line for listings.
        settings: by option, as written.
        source: the file.
    """

    name: str
    about: str
    settings: Mapping[str, Any]
    source: Path

    def flat(self) -> dict[str, Any]:
        """Its settings by flat name: see `oracle.settings`.

        Raises:
            InputError: if one is unknown.
        """
        return flat_settings(self.settings, f"preset {self.name!r} of '{self.source}'")


def read_presets(*files: Path | str) -> dict[str, Preset]:
    """The bundled presets and those of files, which may replace or start from (`base: NAME`) earlier ones.

    Raises:
        InputError: if a file cannot be read, a key is unknown, or an entry has no data.
    """
    found: dict[str, Preset] = {}
    for file in (bundled_file(PRESETS), *map(Path, files)):
        for name, entry in read_yaml(file).items():
            found[name] = _preset(name, entry, file, found)
    return found


def _preset(name: str, entry: Any, file: Path, earlier: Mapping[str, Preset]) -> Preset:
    where = f"preset {name!r} of '{file}'"
    if not isinstance(entry, dict) or ":" in name:
        raise InputError(f"{where} must be a name without colons and a mapping of settings: correct the file")
    own = dict(entry)
    about, base = own.pop("about", ""), own.pop("base", None)
    if base is not None:
        if base not in earlier:
            raise InputError(f"{where}: unknown base {base!r}{nearest_hint(str(base), earlier)}")
        own = {**earlier[base].settings, **{_key(key): value for key, value in own.items()}}
        about = about or earlier[base].about
    preset = Preset(name=name, about=str(about), settings={_key(key): value for key, value in own.items()}, source=file)
    flat = preset.flat()
    if "data" not in flat:
        raise InputError(f"{where} needs data: add 'data: NAME:CONFIG:SPLIT', or 'base:' with an earlier preset")
    if given := [key for key in _NEVER if key in flat]:
        raise InputError(f"{where} cannot set {given[0].replace('_', '-')}: give it on the command line")
    return preset


def _key(key: Any) -> str:
    return str(key).replace("_", "-") if str(key) != "task_options" else str(key)


def preset_settings(data: str, presets: Mapping[str, Preset]) -> dict[str, Any]:
    """Flat settings of `preset:NAME`, or of `preset:NAME:DATA`, which reads DATA instead of the preset's own.

    A folder is read by the preset's configuration, if the folder has it, and split.

    Raises:
        InputError: if the name is unknown; lists the known ones and the nearest.
    """
    name, _, other = data.removeprefix(PRESET).partition(":")
    if name not in presets:
        raise InputError(
            f"--data {PRESET}NAME needs one of {', '.join(presets)}, not '{name}'{nearest_hint(name, presets)}"
        )
    found = presets[name].flat()
    if other:
        found["data"] = local_name(other, HubName.parse(found["data"])) if is_folder(other) else other
    return found


def preset_config(name: str, *, files: tuple[Path | str, ...] = (), **changes: Any) -> SearchConfig:
    """The settings of a search over a preset's data.

    Args:
        name: of the preset, such as `gsm8k`; or `gsm8k:DATA` to read DATA instead of its own data.
        files: YAML files with further presets.
        changes: settings that differ from the preset's, as for `SearchConfig`.

    Raises:
        InputError: if there is no such preset, or a setting is invalid.
    """
    flat = preset_settings(f"{PRESET}{name.removeprefix(PRESET)}", read_presets(*files))
    return replace(SearchConfig(), **{**assembled(flat, SearchConfig()), **changes})
