"""Random inputs for the command line: files of sequences, changes of a manifest, options."""

import json
import string

from hypothesis import strategies as st

__all__ = ["changes", "commands", "files"]

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))

ODD = ["", " ", "a", "\x1b[2J", "<b>", "\ud800", "x" * 300, "{0.__class__}", "%s", "1" * 5000, "[" * 2000]
texts = st.text(max_size=40) | st.sampled_from(ODD)
columns = st.sampled_from(["prompt", "references", "id", "task", "choices", "answer", "text", "a.b"])
suitable = st.fixed_dictionaries(
    {"prompt": texts, "references": st.lists(texts, max_size=2) | texts},
    optional={
        "id": texts | st.integers(),
        "task": texts,
        "choices": st.lists(texts, max_size=3),
        "answer": st.integers(-1, 3) | texts,
    },
)
rows = suitable | st.dictionaries(columns, values)
mixed = st.lists(rows.map(json.dumps) | texts | values.map(json.dumps), min_size=1, max_size=4)
lines = (st.lists(suitable.map(json.dumps), min_size=1, max_size=4) | mixed).map("\n".join)

ENDINGS = [".jsonl", ".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".gguf", ""]
files = st.tuples(
    st.sampled_from(ENDINGS), lines.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=200)
)
"""An ending of a name, and bytes."""

WORDS = """
    0 1 -1 3 1e9 nan inf 0.5 a prompt references decode sequence layer sublayer flops layers chrf rougeL agreement
    log_likelihood random spread auto mcts-uct tpe dp exhaustive local cpu cuda float32 bfloat16 float64 int8 instruct
    RUN DATA MODEL OUT . / /dev/null ../x ~ sqlite:///x.db 10MB
"""
OPTIONS = """
    --model --data --limit --tasks --prompt-column --template --reference-column --reference-file --choices-column
    --answer-column --id-column --task-column --criterion --tolerance --metrics --scope --unit --cost --seconds --paths
    --layer-executions --study --prune --seed --batch-rows --memory --no-chat-template --dtype --resume --from --cache
    --no-cache --cache-limit --json --sequence --at-most --by-task --allocations --against --sql --budget --csv --help
    --evaluations --max-new-tokens --strategy --workers --executor --prove --to --all
"""
COMMANDS = [["search"], ["search"], ["query", "RUN"], ["cache", "info"], ["cache", "verify"], ["cache", "prune"], [""]]

words = st.sampled_from(WORDS.split()) | st.text(string.printable, max_size=12)
options = st.sampled_from(OPTIONS.split())
given = st.tuples(options, words).map(list) | options.map(lambda option: [option])
followed = st.lists(given, max_size=4).map(lambda found: [word for words in found for word in words])
commands = st.tuples(st.sampled_from(COMMANDS), followed)
"""A command, and what follows it; words in capitals stand for what is there."""


def changes(manifest: dict) -> st.SearchStrategy:
    """Places in a manifest, with something else for each."""
    places = [(section, name) for section in ("config", "model", "data") for name in manifest[section]]
    return st.lists(
        st.tuples(st.sampled_from([*places, *((name,) for name in manifest)]), values | words), min_size=1, max_size=3
    )
