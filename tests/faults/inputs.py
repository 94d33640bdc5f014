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
plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(str.strip)
sound = st.fixed_dictionaries(
    {"prompt": plain, "references": plain | st.lists(plain, min_size=1, max_size=3)},
    optional={"task": plain, "choices": st.lists(plain, min_size=2, max_size=3, unique=True), "answer": st.just(0)},
)
searched = st.lists(sound | suitable, min_size=1, max_size=3) | st.lists(sound, min_size=1, max_size=3)
lines = (searched.map(lambda found: [json.dumps(row) for row in found]) | mixed).map("\n".join)

ENDINGS = [*[".jsonl"] * 6, ".json", ".csv", ".tsv", ".txt", ".parquet", ".gguf", ""]
files = st.tuples(
    st.sampled_from(ENDINGS), lines.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=200)
)
"""An ending of a name, and bytes."""

WORDS = """
    0 1 -1 3 1e9 nan inf 0.5 a prompt references decode sequence layer sublayer flops layers chrf rougeL agreement
    log_likelihood random spread auto mcts-cola tpe dp exhaustive local cpu cuda float32 bfloat16 float64 int8 instruct
    RUN DATA MODEL OUT . / /dev/null ../x ~ sqlite:///x.db 10MB
"""
OPTIONS = """
    --model --data --limit --tasks --prompt-column --template --reference-column --reference-file --choices-column
    --answer-column --id-column --task-column --criterion --tolerance --metrics --scope --unit --cost --seconds --paths
    --layer-executions --study --prune --seed --batch-rows --memory --no-chat-template --dtype --resume --from --cache
    --no-cache --cache-limit --json --sequence --at-most --by-task --allocations --against --sql --budget --csv --help
    --evaluations --max-new-tokens --strategy --workers --executor --prove --to --all
"""
SUITABLE = {
    "search": """
        --criterion chrf,--criterion agreement,--criterion log_likelihood,--criterion exact_match,--scope sequence,
        --unit sublayer,--cost flops,--strategy random,--strategy spread,--strategy dp,--strategy influence,--prune,
        --strategy exhaustive,--strategy tpe,--strategy nsga2,--strategy mcts-cola --paths --scope sequence,--limit 1,
        --tolerance 0.5,--tolerance 0.9,--metrics log_likelihood,--seed 7,--batch-rows 1,--memory 64,--dtype bfloat16,
        --evaluations 1,--layer-executions 9,--seconds 0.01,--prove 0,--no-chat-template,--no-cache,--from RUN,--json,
        --cache OUT-hidden --cache-limit 1KiB,--reference-column prompt,--template {prompt},--task-column prompt
    """,
    "query RUN": """
        --sequence 0,--at-most 0.5,--by-task,--allocations 3,--against RUN,--budget 0.9,--budget 1,--criterion rougeL,
        --criterion agreement,--csv,--json,--sql SELECT,--sql FROM+sequences,--sql SELECT+1/0,--sequence x
    """,
    "cache info": "--json,--cache OUT-hidden,--cache-limit 1GB",
    "cache verify": "--json,--cache OUT-hidden",
    "cache prune": "--json,--cache OUT-hidden,--to 0,--all,--model tiny",
    "": "--help,search,query,demo --help",
}

words = st.sampled_from(WORDS.split()) | st.text(string.printable, max_size=12)
options = st.sampled_from(OPTIONS.split())
given = st.tuples(options, words).map(list) | options.map(lambda option: [option])


def followed(command: str) -> st.SearchStrategy:
    """A command with options, most of which suit it."""
    suit = st.sampled_from([one.split() for one in SUITABLE[command].replace("\n", "").split(",")])
    several = st.lists(suit, max_size=3) | st.lists(suit | given, max_size=4)
    return several.map(lambda found: (command.split(" "), [word.replace("+", " ") for some in found for word in some]))


commands = st.one_of(*(followed(command) for command in ("search", "search", *SUITABLE)))
"""A command, and what follows it; words in capitals stand for what is there."""


def changes(manifest: dict) -> st.SearchStrategy:
    """Places in a manifest, with something else for each."""
    places = [(section, name) for section in ("config", "model", "data") for name in manifest[section]]
    return st.lists(
        st.tuples(st.sampled_from([*places, *((name,) for name in manifest)]), values | words), min_size=1, max_size=3
    )
