"""The model `layer-oracle`: requests of the harness, run by our engine under a policy.

Token ids, templates, windows and stop texts are handled by the methods of the harness's own `hf` model.
"""

import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import torch
from lm_eval.utils import simple_parse_args_string

from oracle.config import SearchConfig
from oracle.controllers import Controller
from oracle.controllers.base import SequenceController
from oracle.controllers.prompts import Prompt
from oracle.engine import Engine
from oracle.engine.prompts import check_cache_switch, prompt_pass
from oracle.errors import InputError
from oracle.lm_eval.policy import Choice, Policy
from oracle.lm_eval.tally import Tally
from oracle.models import LanguageModel, load_model
from oracle.pipeline.reload import model_of
from oracle.store import Run
from oracle.tasks.encoder import HarnessModel, Pair
from oracle.tasks.harness import generation_settings
from oracle.types import Rendered, RunPath, Sequence
from oracle.utils.progress import Watch, silent

__all__ = ["LayerOracle"]

TOGETHER = 32
"""Maximum number of prompts that are open at a time."""

SHARE = 4
"""The states of open prompts take at most this part of the engine's memory: one over it."""


class LayerOracle(HarnessModel):
    """A language model of which a policy decides the layers.

    Args:
        run: a run, whose model, scope and unit apply; None for a model of its own.
        pretrained: name of the model, as for `oracle.load_model`, where there is no run, or if the run's model is
            elsewhere now.
        model: the model, if already loaded.
        controller: name of a controller of `oracle compare`, with its settings as further arguments; one that learns is
            trained on all sequences of the run.
        allocation: one allocation for all requests, such as `0-3,7,9-29`; in a list of arguments that commas separate,
            `0-3+7+9-29`.
        oracle: `equal_quality` or `minimal`: the allocations that the run found, by prompt.
        scope: which tokens run the allocation; None for the run's, or `decode`.
        device, dtype, trust_remote_code: of the model; None for the run's setting.
        batch_size: maximum number of outputs decoded together; `auto` and None for the engine's own.
        max_batch_size: not used.
        watch: reports progress of training.
        **settings: settings of the controller, such as `speedup=2.0`.

    Raises:
        InputError: for bad input.
    """

    def __init__(
        self,
        run: RunPath | None = None,
        pretrained: str | None = None,
        *,
        model: LanguageModel | None = None,
        controller: str | None = None,
        allocation: str | int | None = None,
        oracle: str | bool | None = None,
        scope: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        watch: Watch = silent,
        **settings: Any,
    ) -> None:
        written = None if allocation is None else str(allocation).replace("+", ",")
        wanted = "equal_quality" if oracle is True else oracle or None
        choice = Choice(controller=controller, settings=settings, allocation=written, oracle=wanted)
        stored = None if run is None else Run.open(run)
        base = SearchConfig() if stored is None else SearchConfig.from_dict(stored.manifest["config"])
        how = {name: value for name, value in (("device", device), ("dtype", dtype)) if value is not None}
        if stored is not None:
            if "dtype" in how:
                raise InputError(f"the dtype is the run's, {base.dtype}, not {dtype}: leave it out")
            model = model_of(stored, model or pretrained, device=device, trust_remote_code=trust_remote_code)
        elif model is None:
            if pretrained is None:
                raise InputError("a run or a model is required: give run=RUN or pretrained=MODEL")
            model = load_model(pretrained, trust_remote_code=trust_remote_code, **how)
        super().__init__(model.tokenizer, model.context, model.network.config)
        changes: dict[str, Any] = {"scope": scope} if scope is not None else {}
        if isinstance(batch_size, int) or (isinstance(batch_size, str) and batch_size.isdigit()):
            changes["batch_rows"] = int(batch_size)
        # Prompts come rendered, and each request has its own stop texts.
        plain: dict[str, Any] = {"model": model.name, "stop": (), "paths": False, "strategy": "auto", "study": None}
        self.settings = replace(base, **plain, **changes)
        self.language_model, self._model, self._device = model, model.network, model.network.device
        self.run = None if stored is None else str(stored.folder)
        self.policy = Policy.of(choice, stored, model, self.settings, watch)
        self._scorer = self.policy.on(Engine(model, replace(self.settings, generation_config=False)))
        self.tallies = {name: Tally() for name in ("loglikelihood", "generate_until")}

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "LayerOracle":
        """The model from the harness's command line, which names a GPU whether or not there is one."""
        others = {name: value for name, value in (additional_config or {}).items() if value is not None}
        if str(others.get("device", "")).startswith("cuda") and not torch.cuda.is_available():
            del others["device"]
        return cls(**{**others, **arg_dict})

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> "LayerOracle":
        """The same from one text, in the harness's own reading."""
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer, for the harness's caches."""
        return self.language_model.name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What the harness writes into its results beside the scores: the model, the policy, and what it cost."""
        return {
            "model_num_parameters": self.language_model.describe()["parameters"],
            "model_dtype": self.language_model.machine.dtype,
            "layer_oracle": self.report(),
        }

    def report(self) -> dict[str, Any]:
        """Policy, scope, executed fraction, FLOPs and tokens per second, as JSON values; see `Tally.to_dict`."""
        units = self._scorer.engine.units.count
        return {
            "run": self.run,
            "model": self.language_model.name,
            "fingerprint": self.language_model.fingerprint,
            "policy": self.policy.name,
            "scope": self.settings.scope,
            "unit": self.settings.unit,
            "trained_on_the_run": self.policy.trained,
            "cost": {name: tally.to_dict(units) for name, tally in self.tallies.items() if tally.requests},
        }

    def notes(self) -> list[str]:
        """What the user should know of the numbers, a line each."""
        lines = []
        if self.policy.trained:
            lines.append("the controller was trained on the run's sequences: documents among them are no test of it")
        tally = self.tallies["loglikelihood"]
        if self.settings.scope == "decode" and tally.requests:
            lines.append(
                "in scope decode the first token of each continuation is the full model's: of one-token choices "
                "nothing depends on the layers; use --scope decode-last or sequence"
            )
        cut = sum(tally.truncated for tally in self.tallies.values())
        return lines + ([f"{cut} contexts were cut from the left to fit the model, as the harness does"] if cut else [])

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: Any = None
    ) -> list[tuple[float, bool]]:
        """Total log-likelihood in nats of each continuation, and whether it is the greedy output."""
        by_context: dict[tuple[int, ...], list[int]] = {}
        pairs: list[Pair] = []
        tally = self.tallies["loglikelihood"]
        for place, (_, context, continuation) in enumerate(requests):
            kept = list(context)[max(0, len(context) + len(continuation) - self.max_length - 1) :]
            if not kept or not continuation:
                raise InputError(
                    f"a context and a continuation of at least one token each are required, which together fit "
                    f"{self.max_length} tokens, but there are {len(context)} and {len(continuation)}"
                )
            tally.truncated += len(kept) < len(context)
            pairs.append((kept, list(continuation)))
            by_context.setdefault(tuple(kept), []).append(place)
        tally.requests += len(pairs)
        results: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        for prompts in self._opened(list(by_context)):
            for prompt in prompts:
                places = by_context[prompt.ids]
                scored = self._score(prompt, [pairs[place][1] for place in places])
                for place, result in zip(places, scored, strict=True):
                    results[place] = result
        for (text, *_), result in zip(requests, results, strict=True):
            if text is not None:  # as the harness's own models do; windows of rolling texts have none
                self.cache_hook.add_partial("loglikelihood", text, result)
        return results

    def _opened(self, contexts: Seq[tuple[int, ...]]) -> Iterator[list[Prompt]]:
        """Prompts of contexts after their full-depth pass, as many at a time as memory allows."""
        engine, scope = self._scorer.engine, self.settings.scope
        decoder = engine.model.decoder
        if scope == "decode-last" and any(len(ids) < 2 for ids in contexts):
            raise InputError(
                "scope decode-last requires contexts of at least 2 tokens, but one has 1, as the windows of rolling "
                "texts have; use --scope sequence"
            )
        for part in _parts(engine, [len(ids) for ids in contexts]):
            began = time.perf_counter()
            some = [
                Prompt(text=str(self.tokenizer.decode(list(ids))), state=prompt_pass(decoder, list(ids), scope))
                for ids in contexts[part]
            ]
            self.tallies["loglikelihood"].prompt_seconds += time.perf_counter() - began
            yield some

    def _score(self, prompt: Prompt, continuations: Seq[Seq[int]]) -> list[tuple[float, bool]]:
        tally, controller, engine = self.tallies["loglikelihood"], self._scorer, self._scorer.engine
        if self.settings.scope != "sequence":
            longest = max(map(len, continuations)) - 1
            check_cache_switch(engine.model.decoder, len(prompt.ids), longest, "tokens of a continuation")
        began = time.perf_counter()
        scores = controller.score([prompt] * len(continuations), continuations)
        tally.seconds += time.perf_counter() - began
        cost, flops = float(engine.units.count), None
        if isinstance(controller, SequenceController):
            [allocation] = controller.allocations([prompt])
            cost = float(len(allocation))
            flops = controller.costs.of(allocation) if controller.costs else None
        for ids, score in zip(continuations, scores, strict=True):
            tally.add_tokens(len(ids), score.cost if score.cost is not None else cost, score.flops or flops)
        tally.add_prompt(len(prompt.ids), self._prompt_executed(len(prompt.ids), tally.executed / tally.tokens))
        return [(score.value * len(ids), score.greedy) for ids, score in zip(continuations, scores, strict=True)]

    def _prompt_executed(self, tokens: int, cost: float) -> float:
        """Units executed over a prompt's tokens, of which the last or all run at the cost of the allocation."""
        units = self._scorer.engine.units.count
        own = {"decode": 0, "decode-last": 1, "sequence": tokens}[self.settings.scope]
        return (tokens - own) * units + own * cost

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Greedy outputs, each up to its first stop text."""
        groups: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(generation_settings(request.args[1]), []).append(place)
        texts = [""] * len(requests)
        for (stop, length), places in groups.items():
            config = replace(self.settings, stop=stop, max_new_tokens=length)
            engine = Engine(self.language_model, config)
            controller = self.policy.on(engine)
            found = self._generate(controller, [requests[place].args[0] for place in places], length)
            for place, text in zip(places, found, strict=True):
                texts[place] = text
                self.cache_hook.add_partial("generate_until", requests[place].args, text)
        return texts

    def _generate(self, controller: Controller, contexts: Seq[str], length: int) -> list[str]:
        tally, engine = self.tallies["generate_until"], controller.engine
        most = self.max_length - length
        if most < 1:
            raise InputError(
                f"the maximum length of outputs, {length}, must be below the model's context of {self.max_length}: set "
                "max_gen_toks in a task file of your own, or --gen_kwargs max_gen_toks=N"
            )
        encoded = []
        for context in contexts:
            ids = self.tok_encode(context)
            tally.truncated += len(ids) > most
            encoded.append(ids[-most:])
        tally.requests += len(encoded)
        texts: list[str] = []
        for part in _parts(engine, [len(ids) for ids in encoded]):
            began = time.perf_counter()
            some = [
                Prompt.of(engine, Sequence(id="", prompt=text, rendered=Rendered(text=text, ids=tuple(ids))))
                for text, ids in zip(contexts[part], encoded[part], strict=True)
            ]
            tally.prompt_seconds += time.perf_counter() - began
            outputs = controller.generate(some)
            for prompt, output in zip(some, outputs, strict=True):
                tally.seconds += output.seconds
                tally.add_tokens(len(output.tokens), output.cost, output.flops)
                tally.add_prompt(len(prompt.ids), self._prompt_executed(len(prompt.ids), output.cost))
            texts += [output.text for output in outputs]
        return texts


def _parts(engine: Engine, lengths: Seq[int]) -> Iterator[slice]:
    """Consecutive prompts that are open together, by their lengths in tokens: as many as memory allows."""
    most = engine.footprint.limit // (SHARE * engine.model.layers * max(1, engine.footprint.states))
    first = 0
    while first < len(lengths):
        last, tokens = first + 1, lengths[first]
        while last < min(first + TOGETHER, len(lengths)) and tokens + lengths[last] <= most:
            tokens += lengths[last]
            last += 1
        yield slice(first, last)
        first = last
