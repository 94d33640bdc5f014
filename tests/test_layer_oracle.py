"""A file of the user's own with the name of a package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import layer_oracle

ROOT = Path(__file__).resolve().parents[1]


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder that it searches first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


RUN = ("-c", "from layer_oracle import run; run()", "--version")
MODULE = ("-m", "oracle", "--version")


@pytest.mark.parametrize(
    ("name", "command"),
    [("oracle.py", RUN), ("analysis.py", RUN), ("analysis.py", MODULE), ("analysis/__init__.py", MODULE)],
)
def test_the_command_line_names_the_file(name: str, command: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("")
    done = python(tmp_path, *command)
    package = name.partition("/")[0].removesuffix(".py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"oracle: error: Python finds '{file}' in the place of layer-oracle's package '{package}': rename that file or "
        "folder, or start from another folder\n"
    )


def test_a_script_with_the_name_of_a_package_is_told(tmp_path: Path) -> None:
    file = tmp_path / "analysis.py"
    file.write_text("import oracle\n\nprint(oracle.Run)\n")
    done = python(tmp_path, "analysis.py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: Python finds '{file}' in the place of")
    file.rename(tmp_path / "oracle.py")
    (tmp_path / "other.py").write_text("import analysis\n\nprint(analysis.load)\n")
    done = python(tmp_path, "other.py")
    assert done.returncode == 1 and f"Python finds '{tmp_path / 'oracle.py'}' in the place of" in done.stderr


def test_a_folder_of_data_and_other_names_are_no_clash(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "oracles.py").write_text("")
    for command in (RUN, MODULE):
        done = python(tmp_path, *command)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("layer-oracle ")
    layer_oracle.check_names()


def test_the_command_starts_here() -> None:
    assert 'oracle = "layer_oracle:run"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
