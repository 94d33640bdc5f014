"""`oracle completion`: completion of commands and options by the shell's tab key."""

import argparse
from pathlib import Path
from typing import Any

from oracle.cli.parsing import add_debug

__all__ = ["add_completion"]

SHELLS = ("bash", "zsh", "fish")

EPILOG = """\
where shells look for it:
  oracle completion bash > ~/.local/share/bash-completion/completions/oracle
  oracle completion zsh > ~/.zfunc/_oracle      with fpath+=(~/.zfunc) before compinit in ~/.zshrc
  oracle completion fish > ~/.config/fish/completions/oracle.fish
"""


def add_completion(commands: Any) -> None:
    """Adds `oracle completion`."""
    about = "Print a script that completes commands, options and files in a shell."
    parser = commands.add_parser(
        "completion", help=about, description=about, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EPILOG
    )
    parser.set_defaults(run=_run_completion)
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    add_debug(parser)


def _run_completion(arguments: argparse.Namespace) -> None:
    import shtab

    from oracle.cli import whole_parser

    parser = whole_parser()
    _complete_files(parser)
    print(shtab.complete(parser, arguments.shell))


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Marks the arguments that are paths, nested commands included."""
    import shtab

    for action in parser._actions:
        if action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner)
