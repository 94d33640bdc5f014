"""`oracle completion`, tried in the shells that this machine has."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from oracle.cli import COMMANDS

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (("sea",), "search"),
        (("search", "--crit"), "--criterion"),
        (("data", "--skip"), "--skip-unusable"),
        (("cache", "ver"), "verify"),
        (("report", "some-r"), "some-run"),
    ],
)
def test_bash_completes(typed: tuple[str, ...], expected: str, command: Command, tmp_path: Path) -> None:
    code, script, err = command("completion", "bash")
    assert (code, err) == (0, "")
    (tmp_path / "script").write_text(script)
    (tmp_path / "some-run").mkdir()
    words = f"COMP_WORDS=(oracle {' '.join(typed)}); COMP_CWORD={len(typed)}"
    ask = f"source ./script; {words}; _shtab_oracle oracle {typed[-1]}; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_command(shell: str, command: Command, tmp_path: Path) -> None:
    code, script, err = command("completion", shell)
    assert (code, err) == (0, "")
    assert [name for name in (*COMMANDS, "near-tie", "skip-unusable") if name not in script] == []
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "--no-execute", "script"], cwd=tmp_path, check=True)


def test_an_unknown_shell_is_refused(command: Command) -> None:
    code, _, err = command("completion", "tcsh")
    assert code == 2
    assert "SHELL needs one of bash, zsh, fish, not 'tcsh'" in err
