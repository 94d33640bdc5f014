import pytest

from oracle.errors import InputError
from oracle.utils.paths import cache_folder, hidden_folder


@pytest.mark.parametrize("name", ["LAYER_ORACLE_CACHE", "LAYER_ORACLE_HIDDEN"])
def test_a_cache_folder_without_a_home_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "~no-such-user/x")
    with pytest.raises(InputError, match=f"'~no-such-user/x', but there is none; name a folder .* variable {name}"):
        (cache_folder if name == "LAYER_ORACLE_CACHE" else hidden_folder)()
