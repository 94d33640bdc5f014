"""Bad settings of a search fail at once: before torch is imported, without a folder left behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oracle.config import SearchConfig
from oracle.errors import InputError
from oracle.pipeline.settings_check import check_settings

ROOT = Path(__file__).resolve().parents[2]

BAD = {
    "--strategy autoo": "unknown strategy 'autoo': the strategies are .*; nearest: 'auto'",
    "--strategy xyzzy": "unknown strategy 'xyzzy': the strategies are [^;]*$",
    "--dtype foo": "--dtype needs auto, float32 .*, not 'foo'$",
    "--dtype 4bit": "not '4bit'; the smallest are bfloat16 and float16",
    "--device bar": "--device needs auto, cpu, cuda or cuda:N, not 'bar'$",
    "--device cuda:x": "not 'cuda:x'; nearest: 'cuda'",
    "--memory 1": "--memory needs at least 16, not 1",
    "--memory 0": "--memory needs at least 16, not 0",
    "--threads 4": "--threads 4; set the environment variable OMP_NUM_THREADS instead",
    "--evaluation-count 4": "unrecognized arguments: --evaluation-count 4; nearest: '--evaluations'",
    "--executor spark": "--executor needs one of local, ray, not 'spark'$",
    "--criterion rougeLL": "unknown metric 'rougeLL': .*; nearest: 'rougeL'",
    "--metrics choice_acuracy": "nearest: 'choice_accuracy'",
    "--limit -1": "--limit needs at least 1, not -1",
    "--limit 2.5": "--limit needs a whole number, not '2.5'; see",
    "--evaluations 0": "--evaluations needs at least 1, not 0",
    "--evaluations many": "--evaluations needs a whole number, not 'many'",
    "--seconds nan": "--seconds needs a finite number above 0, not nan",
    "--seconds inf": "--seconds needs a finite number above 0, not inf; omit it for no limit",
    "--seconds -3": "--seconds needs a finite number above 0, not -3",
    "--tolerance nan": "--tolerance needs at least 0, not nan",
    "--tolerance 5": "--tolerance needs less than 1 for rougeL",
    "--scope decod": "--scope needs one of decode, decode-last, sequence, not 'decod'; nearest: 'decode'",
    "--unit layers": "--unit needs one of layer, sublayer, not 'layers'; nearest: 'layer'",
    "--cost flop": "--cost needs layers, flops, latency or a file of costs: .*; nearest: 'flops'",
    "--max-new-tokens 0": "--max-new-tokens needs at least 1",
    "--layer-executions 0": "--layer-executions needs at least 1",
    "--prove -1": "--prove needs at least 0",
    "--seed -1": "--seed needs at least 0",
    "--near-tie nan": "--near-tie needs at least 0",
    "--batch-rows 0": "--batch-rows needs at least 1",
    "--executor rayy": "--executor needs one of local, ray, not 'rayy'",
    "--address auto": "--address auto needs --executor ray",
    "--workers 0": "--workers needs at least 1, not 0",
    "--executor ray --workers 0": "--workers needs at least 1",
    "--paths": "--paths needs --scope sequence",
    "--paths --scope sequence": "--paths needs one of the strategies mcts-cola, mcts-drllm, mcts-wide, not 'auto'",
    "--study sqlite:///x.db": "--study needs one of the strategies tpe",
    "--study x.db --strategy tpe": "--study needs a URL such as sqlite:///trials.db, not 'x.db'",
    "--study sqlite:///no/x.db --strategy tpe": "--study .* needs an existing folder, but 'no' is none",
    "--study nosql://x --strategy tpe": "--study needs a URL",
    "--template-arg thinking": "--template-arg needs NAME=VALUE",
    "--template-arg a=1 --template-arg a=2": "--template-arg a is given twice",
    "--no-chat-template --system x": "--system needs a chat template, but --no-chat-template is given",
    "--no-chat-template --template-arg a=1": "--template-arg needs a chat template",
    "--no-chat-template --chat-template x": "--chat-template and --no-chat-template exclude each other",
    "--resume a --from b": "give only one of them",
    "--resume nothing": "a run folder is required, but 'nothing' does not exist; give a folder written by",
    "--out taken": "'taken' already exists",
}

SCRIPT = """
import contextlib, io, json, sys
from oracle.cli import main
found = []
for options in json.load(sys.stdin):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = main(["search", *options.split()])
    heavy = sorted({"torch", "transformers", "datasets", "ray"} & set(sys.modules))
    found.append([code, errors.getvalue(), heavy])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list]]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "taken").mkdir()
    (folder / "taken" / "mine").touch()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(list(BAD)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return folder, dict(zip(BAD, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("options", BAD)
def test_a_bad_setting_fails_at_once(failed: tuple[Path, dict[str, list]], options: str) -> None:
    code, said, heavy = failed[1][options]
    assert (code, heavy) == (2, [])
    assert said.count("\n") == 1
    assert re.search(BAD[options], said), said


def test_nothing_is_left_behind(failed: tuple[Path, dict[str, list]]) -> None:
    assert sorted(path.name for path in failed[0].rglob("*")) == ["mine", "taken"]


def test_a_file_of_costs_of_another_unit_is_refused_early(tmp_path: Path) -> None:
    from oracle.costs import Costs, write_costs

    costs = Costs(
        units=(1.0, 1.0),
        states=(0.0, 0.0),
        overhead=0.0,
        unit_of_measure="ms/token",
        unit="sublayer",
        context=8,
        batch=1,
        dtype="float32",
        device="cpu",
        model="m",
        fingerprint="f",
    )
    path = tmp_path / "costs.json"
    write_costs(path, [costs])
    check_settings(SearchConfig(cost=str(path), unit="sublayer"))
    with pytest.raises(InputError, match="has the costs of sublayers, but --unit is layer; choose --unit sublayer"):
        check_settings(SearchConfig(cost=str(path)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"strategy": "mcts-drllm", "paths": True, "scope": "sequence"},
        {"criterion": "log_likelihood", "tolerance": 2.0},
        {"strategy": "tpe", "study": "sqlite:///trials.db"},
        {"cost": "flops"},
    ],
    ids=str,
)
def test_good_settings_pass(settings: dict[str, object]) -> None:
    check_settings(SearchConfig(**settings))
