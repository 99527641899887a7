"""The one pipeline: from a prompt and a target to an attribution."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from apportion.errors import InputError
from apportion.game.method_runner import run_method
from apportion.hooks.manager import load_plugins
from apportion.hooks.validation import explained
from apportion.models.select_backend import check_memory_budget, named_backend, open_session
from apportion.models.spec import model_spec
from apportion.options import checked_seed
from apportion.protocols.methods import Method
from apportion.protocols.progress import ProgressEvent
from apportion.protocols.targets import TargetFunction
from apportion.runs.concurrent import attributions
from apportion.runs.cost import Cost, estimate_cost
from apportion.runs.evaluate import measure_all
from apportion.runs.stages import Stages

if TYPE_CHECKING:
    from apportion.protocols.backend import Backend
    from apportion.protocols.metrics import Metric
    from apportion.results.attribution import Attribution
    from apportion.results.evaluation import Evaluation
    from apportion.scoring.logits_target import LogitsFunction

__all__ = ["Explainer"]


class Explainer:
    """Explains one model's outputs.

    Args:
        model: ``"smollm2"`` (the demo model), a hub id, a folder, a ``.gguf`` file, a pair of ``transformers``
            objects ``(model, tokenizer)``, or what else a backend opens, such as the address of a server.
        tokenizer: an object, or the name or folder of one, where it does not come with the model.
        processor: the same for models that read more than text.
        backend: a backend's name, a ``Backend``, or ``"auto"`` for the best one available. Only ``"auto"``
            falls back; results say which backend ran.
        device: such as ``"cpu"`` or ``"cuda"``; the backend's choice if ``None``. Naming one moves a model
            that was passed as an object.
        dtype: such as ``"float32"`` (the default for models that apportion loads) or ``"bfloat16"``.
        memory_budget: bytes that a batch may take besides the model; the backend's choice if ``None``.
        backend_options: of the backend that is named, such as ``{"compile": True}`` of ``"torch"``.
        share_prefixes: encode a prefix that all prompts of a batch share once, where the model allows it.
        plugins: modules or objects with hook implementations, for this explainer only.
        progress: a progress bar in terminals and notebooks.
        cache: remember scores in a file, so that no prompt is ever scored twice with the same model and target;
            ``True`` for the file in the user's cache folder, or the path of another.
        run_log: append a line of JSON about each run to this file.

    Raises:
        ModelError: the model cannot be loaded or scored.
        BackendError: the backend, device or dtype is not available; the message says why.
        PluginError: one of ``plugins`` cannot be loaded.
    """

    def __init__(
        self,
        model: object,
        *,
        tokenizer: object = None,
        processor: object = None,
        backend: str | Backend = "auto",
        device: str | None = None,
        dtype: str | None = None,
        memory_budget: int | None = None,
        backend_options: Mapping[str, object] | None = None,
        share_prefixes: bool = True,
        plugins: Sequence[object] = (),
        progress: bool = True,
        cache: bool | str | Path = False,
        run_log: str | Path | None = None,
    ) -> None:
        for name, value in (("share_prefixes", share_prefixes), ("progress", progress)):
            if not isinstance(value, bool):
                raise InputError(f"{name}={value!r} must be True or False.")
        self.plugins = load_plugins(plugins, switches={"progress": progress, "cache": cache, "run_log": run_log})
        check_memory_budget(memory_budget)
        named = named_backend(self.plugins, backend, backend_options)
        self.session, notes = open_session(
            self.plugins,
            named,
            model_spec(model, tokenizer, processor),
            device=device,
            dtype=dtype,
            memory_budget=memory_budget,
            options=backend_options,
        )
        self._stages = Stages(self.plugins, self.session, notes, share=share_prefixes, report=self._report)

    def attribute(
        self,
        prompt: object,
        target: str | Sequence[int] | None = None,
        *,
        method: str | Method = "auto",
        features: object = None,
        target_fn: str | TargetFunction | LogitsFunction = "log_prob",
        contrast: str | Sequence[int] | None = None,
        target_options: Mapping[str, object] | None = None,
        budget: int | None = None,
        until: float | None = None,
        seed: int = 0,
        generate: Mapping[str, object] | None = None,
        **method_options: Any,
    ) -> Attribution:
        """Which parts of the prompt made the model say the target.

        Args:
            prompt: a ``str``, ``Text``, ``Template``, or what a plugin's input adapter takes.
            target: a text (encoded without special tokens), token ids, or ``None`` for the model's own
                greedy continuation of up to 25 tokens.
            method: a method's name, a ``Method``, or ``"auto"``: exact Shapley values while 2^F evaluations
                fit the budget, else sampled ones; the result says which and why.
            features: how a plain ``str`` is cut: what ``Text`` takes as ``by``.
            target_fn: what of the model's output is explained: ``"log_prob"``, ``"prob"``, another registered name
                (``apportion targets``), a ``TargetFunction``, or any function of the logits at the positions that
                predict the target, ``Float[S, T, V]``, which gives a value for each token, ``Float[S, T]`` (their sum
                stands for the whole target), or for the whole and each token, ``Float[S, 1 + T]``.
            contrast: for contrastive target functions: the text or token ids that the target is compared with.
            target_options: of the target function, such as ``{"top_k": 20}``.
            budget: the most distinct model evaluations.
            until: go on in growing steps until every standard error of ``values`` is at most this, or the budget
                (4096 if none is given) ends. In the unit of the target function: nats for ``"log_prob"``.
            seed: of every random draw.
            generate: options of the generation, such as ``{"max_new_tokens": 40}``; with ``target=None`` only.
            **method_options: of the method; unknown ones are refused with a list of those there are.

        Returns:
            One score for each feature and target token.

        Raises:
            InputError: anything about the call that cannot work, before the model runs.
            BudgetError: the budget is too small for the method.
            CapabilityError: the backend cannot do what the method or target function needs.
            ScoreError: the model gave a value that is not finite.
        """
        arguments = {
            "prompt": prompt,
            "target": target,
            "method": method,
            "features": features,
            "target_fn": target_fn,
            "contrast": contrast,
            "target_options": target_options,
            "budget": budget,
            "until": until,
            "seed": seed,
            "generate": generate,
            **method_options,
        }
        stages = self._stages
        with stages.run() as run:
            request = stages.resolve(run, arguments)
            stages.begin(run)
            game = stages.game(run, stages.batches())
            estimate = run_method(request, game)
            return stages.finish(run, estimate, game)

    @overload
    def attribute_many(
        self,
        prompts: Iterable[object],
        *,
        at_once: int = 8,
        on_error: Literal["raise"] = "raise",
        on_finish: Callable[[int, Attribution | Exception], None] | None = None,
        **shared: Any,
    ) -> Iterator[Attribution]: ...

    @overload
    def attribute_many(
        self,
        prompts: Iterable[object],
        *,
        at_once: int = 8,
        on_error: Literal["return"],
        on_finish: Callable[[int, Attribution | Exception], None] | None = None,
        **shared: Any,
    ) -> Iterator[Attribution | Exception]: ...

    def attribute_many(
        self,
        prompts: Iterable[object],
        *,
        at_once: int = 8,
        on_error: Literal["raise", "return"] = "raise",
        on_finish: Callable[[int, Attribution | Exception], None] | None = None,
        **shared: Any,
    ) -> Iterator[Attribution | Exception]:
        """Attribute many prompts; what their runs ask is scored in the same batches.

        Results are what ``attribute`` gives for each prompt, up to the rounding of other batches. They come one by
        one, in the order of the prompts; runs begin when they are asked for. Until the last one is there, or the
        iterator is closed, the model must not change.

        Args:
            prompts: any iterable, read as it goes. An item is a prompt, or a dict of arguments of ``attribute``, which
                go before the shared ones: ``{"prompt": …, "target": …, "seed": …}``.
            at_once: the most runs under way. More of them fill batches better, and take more memory.
            on_error: ``"raise"`` ends everything with the first error, when it is that item's turn; ``"return"`` gives
                the error in place of the item's result, and goes on.
            on_finish: called with the number of an item, from 0, and its result or error, as soon as the run ends,
                which may be before its turn.
            **shared: arguments of ``attribute`` for all prompts.

        Returns:
            An iterator; closing it, or an error, ends all runs that are under way.

        Raises:
            InputError: arguments that cannot work; when it is iterated, whatever ``attribute`` raises, with the number
                of the item.
        """
        return attributions(self._stages, prompts, shared, at_once=at_once, on_error=on_error, on_finish=on_finish)

    def refine(self, result: Attribution, *, budget: int | None = None, until: float | None = None) -> Attribution:
        """Go on from a result with a larger budget, without scoring anything twice.

        The new result is what ``attribute`` with the same arguments and the larger budget gives. Results remember
        what was scored for as long as they live and their explainer does; those read from a file do not.

        Args:
            result: of this explainer's ``attribute`` or ``refine``.
            budget: the most distinct evaluations in all, those of ``result`` included.
            until: as in ``attribute``; the budget is 4096 then, if none is given.

        Returns:
            A new result; its ``provenance`` counts the evaluations and the time of both.

        Raises:
            InputError: neither ``budget`` nor ``until`` is given, the budget is not larger, or the result is not one
                of this explainer's.
            BudgetError: the budget is too small for the method.
            ScoreError: the model gave a value that is not finite.
        """
        stages = self._stages
        with stages.run() as run:
            past = stages.past.of(result)
            spent = result.provenance.evaluations + result.provenance.cached
            run.request = request = stages.resolver.larger(past.request, run.id, budget, until, spent)
            run.memory, run.tally, run.before = past.memory, past.tally.copy(), past.seconds
            stages.begin(run)
            game = stages.game(run, stages.batches())
            estimate = run_method(request, game)
            return stages.finish(run, estimate, game)

    def evaluate(
        self,
        result: Attribution,
        metrics: Sequence[str | Metric] | None = None,
        *,
        seed: int = 0,
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Evaluation:
        """How faithful a result is: metrics ask the model about coalitions of its features.

        What the run scored already is not scored again, nor is what another metric or evaluation asked for.

        Args:
            result: of this explainer's ``attribute`` or ``refine``.
            metrics: names (``apportion metrics``) or ``Metric`` objects; ``None`` for all that are installed.
            seed: of every draw of the metrics.
            options: of metrics, by name: ``{"lds": {"masks": 128}}``.

        Returns:
            What each metric found; ``show()`` prints it and ``plot()`` draws the curves.

        Raises:
            InputError: the result is not one of this explainer's, an unknown metric or option.
            PluginError: a metric failed.
        """
        stages = self._stages
        with stages.run() as run:
            past = stages.past.of(result)
            chosen = stages.resolver.metrics(metrics, options or {})
            seed = checked_seed(seed)
            run.request, run.memory = replace(past.request, id=run.id, budget=None), past.memory
            return measure_all(stages.game(run, stages.batches()), result, chosen, seed=seed)

    def target_of(self, result: Attribution) -> tuple[int, ...]:
        """The token ids of a result's target, to explain the same one again.

        Raises:
            InputError: the result is not one of this explainer's.
        """
        return self._stages.past.of(result).request.target.ids

    def estimate(self, prompt: object, target: str | Sequence[int] | None = None, **arguments: Any) -> Cost:
        """What ``attribute`` with these arguments would cost, before anything long starts.

        Runs the method on made-up values, plans what it asks for, and forwards about 2,000 tokens to find the rate.
        A target that is not given is generated, as ``attribute`` would.

        Args:
            prompt: as in ``attribute``.
            target: as in ``attribute``.
            **arguments: all other arguments of ``attribute``; unknown ones are refused as it does.

        Raises:
            InputError, BudgetError, CapabilityError: what ``attribute`` would refuse.
        """
        stages = self._stages
        with stages.run() as run:
            request = stages.resolve(run, {"prompt": prompt, "target": target, **arguments})
            batches = stages.batches()
            return estimate_cost(request, stages.scorer(run, request, batches), partial(stages.game, run, batches))

    def close(self) -> None:
        """Close the session, which lets go of the model; idempotent. ``with Explainer(…) as explainer:`` does it."""
        self.session.close()

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _report(self, event: ProgressEvent) -> None:
        try:
            self.plugins.call("apportion_on_progress", event=event)
        except Exception as error:
            # Watching a run must not end it, nor hide why it ended.
            warnings.warn(explained(error), RuntimeWarning, stacklevel=2)
