"""The wheel: its files, and metadata that a package index can show."""

import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    [name] = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(name))


def test_it_holds_the_packages_and_their_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {
        "layer_oracle.py",
        "oracle/py.typed",
        "analysis/py.typed",
        "oracle/_data/instruct.jsonl",
        "oracle/_data/presets.yaml",
    } <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for package in ("oracle", "analysis"):
        sources = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert sources == {name for name in names if name.startswith(f"{package}/") and name.endswith(".py")}
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "analysis" / "report" / "assets").iterdir()}
    assert assets and assets <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "oracle",
        "analysis",
        "layer_oracle.py",
    }


def test_links_and_pictures_of_its_readme_are_absolute(metadata: Message) -> None:
    readme = metadata.get_payload()
    assert isinstance(readme, str)
    targets = re.findall(r"\]\(([^)\s]+)\)", readme)
    assert len(targets) == len(re.findall(r"\]\(([^)\s]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert [target for target in targets if not target.startswith("https://")] == []
    pictures = re.findall(r"!\[[^\]]*\]\((\S+)\)", readme)
    assert pictures and all(target.startswith("https://raw.githubusercontent.com/") for target in pictures)


def test_its_metadata_name_authors_and_places(metadata: Message) -> None:
    assert metadata["Author"] == "layer-oracle contributors"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert {url.split(", ")[0] for url in metadata.get_all("Project-URL", [])} == {
        "Homepage",
        "Source",
        "Issues",
        "Changelog",
    }
