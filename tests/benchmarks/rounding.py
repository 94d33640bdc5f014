"""How the near-tie rule was chosen: how often rounding turns a token round that the rule lets pass.

    python tests/benchmarks/rounding.py [--limit 12] [--masks 32] [--threads 1] [--products own] [--json]

Decodes sequences of the embedded model under random masks of all budgets as one batch, then each alone, fed the same
tokens, and compares how far the best token leads the second. Prints, for multiples of the rounding that was measured
when the model was loaded: near-ties for each 1,000 tokens (each costs a decoding alone), the share of tokens whose
lead moved by more, and the expected number of tokens that rounding turns round unnoticed for each million.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import oracle
from oracle.config import SearchConfig
from oracle.engine import Engine
from oracle.engine.row_batch import RowBatch
from oracle.sequences import load_sequences
from oracle.types import Allocation

TOKENS = 24
MULTIPLES = (1, 2, 4, 8, 16)
NARROW = 0.2
"""Leads, in logits, over which the density of leads near zero is taken."""


def main() -> None:
    """Prints the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=12, help="number of sequences")
    parser.add_argument("--masks", type=int, default=32, help="masks per sequence, at budgets from 10 to 100 percent")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--products", choices=("torch", "own"), default="torch", help="of batches")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    engine = Engine(oracle.load_model(), SearchConfig(max_new_tokens=TOKENS))
    if arguments.products == "own" and not engine.products:
        raise SystemExit("batches have the products of torch on this processor; omit --products")
    generator = np.random.default_rng(0)
    found = []
    for sequence in load_sequences("instruct", limit=arguments.limit):
        shares = np.linspace(0.1, 1.0, arguments.masks)
        masks = [tuple(np.flatnonzero(generator.random(engine.units.count) < share).tolist()) for share in shares]
        found.append(_moves(engine, sequence.prompt, masks, own=arguments.products == "own"))
    lead, moved = np.concatenate(found, axis=1)
    known = engine.model.decoder.rounding
    about = {"threads": arguments.threads, "products": arguments.products, "rounding": known.to_dict()}
    measured = known.batches if arguments.products == "own" else known.logits
    _show(measured, lead, moved, about, as_json=arguments.json)


@torch.inference_mode()
def _moves(engine: Engine, text: str, masks: list[Allocation], *, own: bool) -> NDArray[np.float64]:
    """The lead of the best token alone, and how far it is from the lead in a batch (2, tokens of all masks)."""
    prompt, decoder = engine.open(text), engine.model.decoder
    outputs = [generation.tokens for generation, _ in engine.generate([(prompt, mask) for mask in masks])]
    schedule = engine.units.steps(masks)
    batch = RowBatch(decoder, [prompt] * len(masks), schedule, new_tokens=TOKENS, products=own)
    # Outputs that have ended go on with their last token: any text will do.
    fed = [[tokens[min(step, len(tokens) - 1)] for tokens in outputs] for step in range(TOKENS - 1)]
    batched_TRV = [decoder.finish(batch.forward(torch.tensor(ids), ids))[:, 0] for ids in fed]
    rows = []
    for row in range(len(masks)):
        alone = RowBatch(
            decoder,
            [prompt],
            schedule.of_rows(np.array([row])),
            new_tokens=TOKENS,
            by_reference=False,
        )
        for step, ids in enumerate(fed):
            logits_V = decoder.finish(alone.forward(torch.tensor(ids[row : row + 1]), ids[row : row + 1]))[0, 0]
            best, second = logits_V.topk(2).indices.tolist()
            lead = float(logits_V[best] - logits_V[second])
            other_V = batched_TRV[step][row]
            rows.append((lead, abs(lead - float(other_V[best] - other_V[second]))))
    return np.array(rows).T


def _show(measured: float, lead: NDArray[Any], moved: NDArray[Any], about: dict[str, Any], *, as_json: bool) -> None:
    density = float((lead < NARROW).mean()) / NARROW
    rows = [
        {
            "multiple": multiple,
            "logits": multiple * measured,
            "near_ties_per_1000": 1000 * density * multiple * measured,
            "moved_more": float((moved > multiple * measured).mean()),
            # A lead x is turned round where it moves by more than x, in one of two directions.
            "unnoticed_per_million": 1e6 * density * float(np.maximum(moved - multiple * measured, 0).mean()) / 2,
        }
        for multiple in MULTIPLES
    ]
    largest = float(moved.max()) / measured
    summary = {**about, "tokens": len(lead), "largest_multiple": largest}
    if as_json:
        print(json.dumps({**summary, "rows": rows}))
        return
    print(
        f"{len(lead)} tokens, {about['threads']} threads; rounding {measured:.2g} logits; the lead moved by at most ",
        end="",
    )
    print(f"{largest:.1f} times that\n\nmultiple   logits  near-ties/1,000  moved more  unnoticed/million")
    for row in rows:
        cells = (row["near_ties_per_1000"], row["moved_more"], row["unnoticed_per_million"])
        print(f"{row['multiple']:8d}  {row['logits']:.1e}  {cells[0]:15.2f}  {cells[1]:10.5f}  {cells[2]:17.4f}")


if __name__ == "__main__":
    main()
