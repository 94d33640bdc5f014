"""A model of 30 narrow layers in the place of the embedded one, and the small run that pages read as `runs/demo`."""

import re
from collections import Counter
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder with a random model in the place of the embedded one, which writes words of the bundled references.

    Its outputs share words with the references, so that qualities differ between allocations.
    """
    from tiny import tiny_llama
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from oracle.config import EMBEDDED
    from oracle.models.embedded import DIGEST
    from oracle.sequences import load_sequences

    texts = [text for one in load_sequences("instruct") for text in one.references]
    common = Counter(word for text in texts for word in re.findall(r"\w+", text))
    words = ["</s>", "<unk>", *(word for word, _ in common.most_common(38))]
    words += [f"word{number}" for number in range(4096 - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    network = tiny_llama(
        num_hidden_layers=30,
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        eos_token_id=0,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    network.lm_head.weight.data[40:] *= 0.1  # common words are written, the others can be read
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "models" / f"{EMBEDDED}-{DIGEST[:8]}"
    network.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return cache


@pytest.fixture(scope="session")
def demo(stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that pages read as `runs/demo`."""
    from oracle.config import SearchConfig
    from oracle.pipeline.run import run_search

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAYER_ORACLE_CACHE", str(stand_in))
        config = SearchConfig(limit=8, evaluations=8, max_new_tokens=6, strategy="spread", device="cpu")
        return run_search(config, tmp_path_factory.mktemp("run") / "demo").folder
