"""Device and dtype: what `auto` stands for, what is refused before anything is loaded, what a run records."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import LAYERS, tiny_llama, tiny_tokenizer

from oracle.config import SearchConfig
from oracle.errors import InputError, Interrupted
from oracle.models import load_model
from oracle.pipeline.run import resume_search, run_search
from oracle.skiplayer.config import SkipConfig
from oracle.skiplayer.study import run_study
from oracle.store import Run
from oracle.store.index import index_all
from oracle.utils import machine as machines
from oracle.utils.devices import DTYPES, dtype_name
from oracle.utils.machine import Machine, resolve_device, resolve_dtype

Command = Callable[..., tuple[int, str, str]]
Search = Callable[..., Run]


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def with_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with two GPUs, for what only decides."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be loaded."""
    for place in ("oracle.pipeline.setup", "oracle.pipeline.reload", "oracle.models"):
        monkeypatch.setattr(f"{place}.load_model", lambda *args, **kwargs: pytest.fail("a model was loaded"))


@pytest.fixture(scope="module")
def half_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as a checkpoint in bfloat16."""
    folder = tmp_path_factory.mktemp("model") / "half"
    tiny_llama().to(torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def stops_at_once() -> bool:
    return True


class TestAuto:
    """What it stands for."""

    @pytest.mark.usefixtures("without_gpu")
    def test_is_float32_on_the_cpu_without_a_gpu(self) -> None:
        assert resolve_device("auto") == torch.device("cpu")
        assert resolve_dtype("auto", torch.device("cpu")) == torch.float32

    @pytest.mark.usefixtures("with_two_gpus")
    def test_is_the_checkpoints_own_dtype_on_a_gpu(self) -> None:
        assert resolve_device("auto") == torch.device("cuda")
        assert resolve_dtype("auto", torch.device("cuda")) is None
        # What is asked for counts, wherever.
        assert resolve_device("cpu") == torch.device("cpu")
        assert resolve_device("cuda:1") == torch.device("cuda:1")
        assert resolve_dtype("fp32", torch.device("cuda")) == torch.float32

    def test_is_the_default_of_all_that_loads_a_model(self) -> None:
        assert (SearchConfig().dtype, SearchConfig().device, SkipConfig().device) == ("auto", "auto", "auto")

    @pytest.mark.usefixtures("without_gpu")
    def test_loads_a_half_checkpoint_in_float32_on_the_cpu(self, half_folder: Path) -> None:
        assert load_model(str(half_folder)).network.dtype == torch.float32
        assert load_model(str(half_folder), dtype="bf16").network.dtype == torch.bfloat16

    def test_the_checkpoints_own_dtype_is_the_one_it_was_saved_in(
        self, half_folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("oracle.models.loading.resolve_dtype", lambda dtype, device: None)
        found = [load_model(str(folder), device="cpu").machine.dtype for folder in (half_folder, tiny_folder)]
        assert found == ["bfloat16", "float32"]


class TestNames:
    """How dtypes and devices are spelled."""

    @pytest.mark.parametrize(
        ("given", "canonical"),
        [(given, name) for name, others in DTYPES.items() for given in (name, *others)] + [("auto", "auto")],
    )
    def test_every_spelling_is_stored_as_torchs_own(self, given: str, canonical: str) -> None:
        assert SearchConfig(dtype=given).dtype == dtype_name(given) == canonical
        if given != "auto":
            assert str(resolve_dtype(given, torch.device("cpu"))) == f"torch.{canonical}"
        if hasattr(torch, given):  # torch spells some of them differently itself
            assert getattr(torch, given) == getattr(torch, canonical)

    @pytest.mark.parametrize(
        ("given", "hint"),
        [
            ("floar32", "nearest: 'float32'"),
            ("BF16", "nearest: 'bf16'"),
            ("torch.float16", "nearest: 'float16'"),
            ("flaot64", "nearest: 'float64'"),
            ("int8", "the smallest are bfloat16 and float16"),
            ("float8_e4m3fn", "the smallest are bfloat16 and float16"),
        ],
    )
    def test_another_dtype_is_refused_with_the_nearest(self, given: str, hint: str) -> None:
        with pytest.raises(InputError, match=rf"--dtype needs auto, .*float64 \(fp64, double\), not '{given}'; {hint}"):
            SearchConfig(dtype=given)

    @pytest.mark.parametrize(
        ("given", "hint"), [("gpu", "cuda"), ("gpu:1", "cuda"), ("CPU", "cpu"), ("cuda:x", "cuda"), ("atuo", "auto")]
    )
    def test_another_device_is_refused_with_the_nearest(self, given: str, hint: str) -> None:
        for config in (SearchConfig, SkipConfig):
            with pytest.raises(InputError, match=f"cuda or cuda:N, not '{given}'; nearest: '{hint}'"):
                config(device=given)

    @pytest.mark.usefixtures("without_gpu")
    @pytest.mark.parametrize("device", ["cuda", "cuda:0"])
    def test_a_gpu_where_there_is_none_is_refused(self, device: str) -> None:
        with pytest.raises(InputError, match=f"--device {device} needs a CUDA device .* use auto or cpu"):
            resolve_device(device)

    @pytest.mark.usefixtures("with_two_gpus")
    def test_a_gpu_beyond_the_last_is_refused(self) -> None:
        with pytest.raises(InputError, match=r"--device cuda:2 does not exist: the last of 2 GPUs is cuda:1"):
            resolve_device("cuda:2")


@pytest.mark.usefixtures("unloaded")
class TestEarly:
    """What cannot be had is refused before a model is loaded, and leaves nothing behind."""

    @pytest.mark.parametrize("wrong", ["--dtype foo", "--dtype int8", "--device gpu", "--device cuda:99"])
    @pytest.mark.parametrize("name", ["search", "demo"])
    def test_by_a_search(self, name: str, wrong: str, command: Command, sequences_file: Path, tmp_path: Path) -> None:
        data = ["--data", sequences_file] if name == "search" else []
        code, out, err = command(name, *data, "--out", tmp_path / "run", *wrong.split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"oracle: error: {wrong.split()[0]} ")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("wrong", ["--dtype foo", "--device gpu"])
    def test_by_a_profile(self, wrong: str, command: Command, tmp_path: Path) -> None:
        code, out, err = command("profile", "--out", tmp_path / "costs.json", *wrong.split())
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"oracle: error: {wrong.split()[0]} needs auto")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["measure", "compare"])
    def test_by_what_reads_a_run(self, name: str, command: Command, tmp_path: Path) -> None:
        code, out, err = command(name, tmp_path, "--device", "gpu")
        assert (code, out) == (2, "")
        assert err.startswith("oracle: error: --device needs auto")

    def test_by_a_study(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--device cuda:99 needs"):
            run_study(SkipConfig(device="cuda:99"), tmp_path / "study")
        assert not (tmp_path / "study").exists()


def test_a_gpu_that_is_not_there_is_refused_before_the_model_is_looked_for() -> None:
    with pytest.raises(InputError, match="--device cuda:99 needs"):
        load_model("unknown/model", device="cuda:99")


@pytest.mark.usefixtures("without_gpu")
class TestRun:
    """What a run records, and how it goes on."""

    def test_records_the_dtype_that_was_used_and_the_device_that_was_asked_for(self, search: Search) -> None:
        run = search(limit=2, device="auto")
        assert run.manifest["config"]["dtype"] == run.manifest["model"]["dtype"] == "float32"
        assert run.manifest["config"]["device"] == "auto"
        machine = dict(run.manifest["machine"])
        use = {name: machine.pop(name) for name in ("workers", "parts", "cores", "busy")}
        assert 1 <= use["workers"] <= use["parts"] == use["cores"] and use["busy"] >= 0
        assert machine == {
            "device": "cpu",
            "gpu": None,
            "dtype": "float32",
            "threads": 1,
            "processor": machines._processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch_version": torch.__version__,
        }
        assert run.manifest["machine"]["processor"]
        assert [event["machine"] for event in logged(run) if event["event"] == "began"] == [run.manifest["machine"]]

    def test_records_another_dtype_by_torchs_name(self, search: Search) -> None:
        run = search(limit=2, dtype="bf16")
        assert run.manifest["config"]["dtype"] == run.manifest["machine"]["dtype"] == "bfloat16"

    @pytest.mark.parametrize("settings", [{}, {"dtype": "auto"}, {"dtype": "fp32"}, {"device": "auto"}])
    @pytest.mark.parametrize("older", [False, True])
    def test_goes_on(self, search: Search, tmp_path: Path, settings: dict[str, str], older: bool) -> None:
        with pytest.raises(Interrupted):
            search(out=tmp_path / "run", limit=2, device="auto", stop=stops_at_once)
        if older:
            as_before_auto(tmp_path / "run")
        assert resume_search(tmp_path / "run", settings=settings).complete

    def test_does_not_go_on_with_another_dtype(self, search: Search, tmp_path: Path, half_folder: Path) -> None:
        with pytest.raises(Interrupted):
            search(model=str(half_folder), dtype="bf16", out=tmp_path / "run", limit=2, stop=stops_at_once)
        with pytest.raises(InputError, match="cannot be resumed with dtype float32 rather than bfloat16"):
            resume_search(tmp_path / "run", settings={"dtype": "fp32"})
        # Automatically in float32 here, but this run is in bfloat16.
        assert resume_search(tmp_path / "run", settings={"dtype": "auto"}).complete

    def test_begins_another_with_its_dtype(self, search: Search, half_folder: Path) -> None:
        first = search(model=str(half_folder), dtype="bf16", limit=2, evaluations=8)
        second = search(model=str(half_folder), limit=2, evaluations=8, prior=first.folder)
        assert second.manifest["config"]["dtype"] == "bfloat16"
        with pytest.raises(
            InputError, match="has the dtype bfloat16: a search that starts from it needs that, not float32"
        ):
            search(model=str(half_folder), dtype="fp32", limit=2, prior=first.folder)

    def test_of_before_is_begun_with(self, search: Search) -> None:
        first = search(limit=2, evaluations=8)
        as_before_auto(first.folder)
        assert search(limit=2, evaluations=8, device="auto", strategy="random", prior=first.folder).complete


def logged(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]


def as_before_auto(folder: Path) -> None:
    """Makes a run one of a version that knew no `auto`."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["machine"]
    manifest["config"] |= {"device": "cpu", "dtype": "float32"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    index_all(folder)


class TestFirstLine:
    """Which model, which dtype, where."""

    @pytest.fixture
    def line(self, tiny_folder: Path) -> str:
        machine = Machine.of(torch.device("cpu"), torch.float32)
        return f"{tiny_folder}: {LAYERS} layers, float32 on {machine.place}"

    @pytest.fixture
    def small(self, tiny_folder: Path, sequences_file: Path) -> list[object]:
        where = ["--model", tiny_folder, "--data", sequences_file, "--device", "cpu"]
        return ["search", *where, "--max-new-tokens", 4, "--evaluations", 8, "--no-figures"]

    def test_of_a_search_and_of_what_reads_its_run(
        self, line: str, small: list[object], command: Command, tmp_path: Path
    ) -> None:
        commands = [
            [*small, "--out", tmp_path / "run"],
            ["measure", tmp_path / "run", "--only", "features"],
            ["compare", tmp_path / "run", "--controllers", "unified", "--no-timing"],
        ]
        for arguments in commands:
            code, _, err = command(*arguments)
            assert (code, err.splitlines()[0]) == (0, line), arguments[0]
            assert err.count(line) == 1

    def test_of_a_profile(self, line: str, command: Command, tiny_folder: Path) -> None:
        arguments = ["profile", "--model", tiny_folder, "--device", "cpu", "--rounds", 2]
        code, out, err = command(*arguments, "--json")
        assert (code, err.splitlines()[0]) == (0, line)
        found = json.loads(out)
        assert found["machine"] == Machine.of(torch.device("cpu"), torch.float32).to_dict()
        assert {costs["device"] for costs in found["costs"]} == {line.partition(" on ")[2]}

    def test_is_not_there_if_quiet(self, small: list[object], command: Command, tmp_path: Path) -> None:
        code, _, err = command(*small, "--quiet", "--out", tmp_path / "run")
        assert (code, err) == (0, "")
        assert command("measure", tmp_path / "run", "--only", "features", "--quiet")[2] == ""

    def test_is_the_first_of_a_resumed_search(
        self, line: str, search: Search, sequences_file: Path, command: Command, tmp_path: Path
    ) -> None:
        with pytest.raises(Interrupted):
            search(out=tmp_path / "run", limit=2, device="cpu", stop=stops_at_once)
        code, _, err = command("search", "--resume", tmp_path / "run", "--dtype", "auto", "--no-figures")
        assert (code, err.splitlines()[0]) == (0, line)


def test_the_demo_runs_as_it_is_told(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def searched(config: SearchConfig, out: Path, **how: object) -> None:
        raise InputError(f"{config.dtype} on {config.device}, seed {config.seed}")

    monkeypatch.setattr("oracle.pipeline.run.run_search", searched)
    for options, answer in {
        "": "auto on auto, seed 0",
        "--dtype bf16 --device cpu --seed 3": "bfloat16 on cpu, seed 3",
    }.items():
        code, _, err = command("demo", "--out", tmp_path / "run", *options.split())
        assert (code, err) == (2, f"oracle: error: {answer}\n")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD  EPYC \nmodel name\t: other\n", "AMD EPYC"),
        ("Features: fp asimd\n", "named by Python"),
    ],
)
def test_the_processor_has_the_name_that_the_system_gives(
    content: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(machines, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.processor", lambda: "named by Python")
    assert machines._processor.__wrapped__() == name


def test_a_place_says_what_computes() -> None:
    common = {"dtype": "bfloat16", "processor": "Xeon", "instructions": "AVX512", "torch_version": "2.13.0"}
    assert Machine(device="cpu", gpu=None, threads=1, **common).place == "cpu (Xeon, AVX512), 1 thread"
    assert Machine(device="cpu", gpu=None, threads=2, **common).place == "cpu (Xeon, AVX512), 2 threads"
    assert Machine(device="cuda:0", gpu="NVIDIA H100", threads=8, **common).place == "cuda:0 (NVIDIA H100)"


def test_the_defaults_of_a_python_search_are_those_of_the_command_line(
    tiny_folder: Path, sequences_file: Path, tmp_path: Path
) -> None:
    config = SearchConfig(model=str(tiny_folder), data=str(sequences_file), limit=2, evaluations=4, max_new_tokens=4)
    run = run_search(config, tmp_path / "run")
    assert run.manifest["config"]["dtype"] != "auto"
