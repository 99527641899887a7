"""The pipeline from a prompt and a target to an attribution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from apportion.game.continuing import continue_method
from apportion.game.method_runner import run_method
from apportion.options import checked_seed
from apportion.protocols.methods import Method
from apportion.protocols.metrics import RANDOM_ORDERS
from apportion.protocols.targets import TargetFunction
from apportion.results.attribution import Attribution
from apportion.results.comparison import ResultComparison
from apportion.results.evaluation import compare
from apportion.results.recipe import target_of
from apportion.runs.again import recipe_in, require_method, require_texts
from apportion.runs.changed_request import larger_request, rescored_request
from apportion.runs.concurrent import attributions
from apportion.runs.context_prompt import TEMPLATE, ContextOf
from apportion.runs.cost import Cost, estimate_cost
from apportion.runs.evaluate import checked_orders, chosen_metrics, measure_all
from apportion.runs.fills import FILLS, with_each_fill
from apportion.runs.opened import Opened
from apportion.runs.reliance import ContextQuestion, Criteria, context_reliance
from apportion.runs.together import check_one_game, checked_results

if TYPE_CHECKING:
    from apportion.prompts.image_text import ImageText
    from apportion.protocols.executor import Executor
    from apportion.protocols.metrics import Metric
    from apportion.results.context_reliance import ContextReliance
    from apportion.results.evaluation import Comparison, Evaluation
    from apportion.scoring.logits_target import LogitsFunction

__all__ = ["Explainer"]


class Explainer(Opened):
    """Attributes one model's outputs to features of its prompts.

    Args:
        model: ``"smollm2"`` (the demo model), a hub id, a folder, a ``.gguf`` file, a pair of ``transformers``
            objects ``(model, tokenizer)``, a model object together with ``tokenizer=``, a ``ModelSpec``, or anything
            else that a backend can open, such as the address of a server.
        tokenizer: a tokenizer object, or the name or folder of one; ``None`` for the model's own tokenizer.
        processor: the same, for models that read more than text.
        backend: a backend's name, a ``Backend``, or ``"auto"`` for the best one available. Only ``"auto"`` falls back
            to another backend; results state which one ran.
        device: device, such as ``"cpu"`` or ``"cuda"``; ``None`` leaves the choice to the backend. If a device is
            given, a model that was passed as an object is moved there.
        dtype: dtype of the weights, such as ``"float32"`` (the default for models that apportion loads) or
            ``"bfloat16"``.
        memory_budget: bytes that a batch may use, in addition to the model; ``None`` leaves the choice to the backend.
        backend_options: options of the named backend, such as ``{"compile": True}`` for ``"torch"``.
        allow_missing: open a model from files that lack some of its weights, such as the output layer. These are filled
            with random numbers, the same in every start, and results name them. Otherwise such files are an error.
        share_prefixes: encode a common prefix of a batch's prompts only once, if the model allows it.
        plugins: modules or objects with hook implementations, for this explainer only.
        progress: ``True`` or ``"auto"`` to show a progress bar in terminals and notebooks, and elsewhere a line on
            stderr every few seconds, once a run takes that long; ``"always"`` adds a first and a last line there;
            ``False`` or ``"never"`` shows nothing.
        cache: store scores in a file, so that no prompt is ever scored twice with the same model and target; ``True``
            for the file in the user's cache folder, or the path of another file.
        run_log: path of a file to which a line of JSON is appended for each run.

    Raises:
        ModelError: the model cannot be loaded or scored, or its files lack some of its weights.
        BackendError: the backend, device or dtype is not available; the message says why.
        PluginError: one of ``plugins`` cannot be loaded.
    """

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
        max_std_error: float | None = None,
        seed: int = 0,
        generate: Mapping[str, object] | None = None,
        attribute_generated: bool = False,
        samples: int | None = None,
        step_scores: str | Sequence[object] | Mapping[str, object] | None = None,
        **method_options: Any,
    ) -> Attribution:
        """Attribute a target to the features of a prompt: find out which parts made the model say it.

        Args:
            prompt: a ``str``, ``Text``, ``Template``, ``Chat``, ``Documents``, ``ImageText``, or a prompt of a plugin's
                input adapter.
            target: a text that continues the full prompt, exactly as given (its tokens are those that follow the
                prompt's where both are tokenised as one text; if none begins there, the result says what was scored
                instead), token ids, or ``None`` for the model's own greedy continuation of up to 25 tokens. A note asks
                if another space was meant before a text, where that is more than ten times as likely.
            method: a method's name, a ``Method``, or ``"auto"``, which keeps to a budget of 1024 evaluations if none is
                given: exact Shapley values if all 2^F coalitions of the F features fit it; else sampled ones, from 3F
                (2F + 2 below 20 features, 4F beyond 500); else Owen values of groups. The result says which, and why.
            features: features that a plain ``str`` is cut into, such as ``"sentences"``, as ``by`` of ``Text``.
            target_fn: the function of the model's output to explain: ``"log_prob"``, ``"prob"``, another registered
                name (``apportion targets``), a ``TargetFunction``, ``TextValue`` of a function of the texts that the
                model writes, or any function of the logits at the positions that
                predict the target, ``Float[S, T, V]``. Such a function returns a value per token, ``Float[S, T]``,
                whose sum is the value of the whole target; or the values of the whole target and each token,
                ``Float[S, 1 + T]``.
            contrast: text or token ids to compare the target with, for contrastive target functions.
            target_options: options of the target function, such as ``{"top_k": 20}``.
            budget: maximum number of distinct model evaluations; ``None`` leaves it to the method.
            until: the largest standard error allowed, in the unit of the target function (nats for ``"log_prob"``). The
                run continues in growing steps until every standard error of ``values`` is at most this, or the budget
                (4096 if none is given) is spent.
            max_std_error: alias of ``until``; give only one of them.
            seed: seed of every random draw.
            generate: options of the generation, such as ``{"max_new_tokens": 40}``; only with ``target=None``, or with
                a target function that reads texts, such as ``"chrf"``, which compares those after each prompt with it.
                ``"stop"`` is a text, or a list of texts, before which the target ends; by default a line break if the
                prompt has answers of one line each, such as few-shot examples, and ``None`` lets it go on.
            attribute_generated: also score the target's own tokens, by what they do for the tokens after them: each but
                the last is one more feature, with its position as ``Feature.generated``. An absent one is left out of
                what the model reads, or replaced as the ``baseline`` of a ``Text`` says. It cannot affect itself or
                earlier tokens, so that ``token_values`` has exactly 0 there.
            samples: number of texts that the model writes after each prompt, for target functions that read texts;
                ``None`` for one. Their noise is part of the standard errors. If greedy texts after the full prompt are
                alike, others are written once.
            step_scores: target functions to record for each target token of the full prompt, beside the attributions:
                ``["prob", "entropy", ("kl_divergence", {"reference": "empty"})]``, or a dict of them by names of your
                own. All of them together take one more forward pass over the full prompt, and one over each reference
                prompt, which ``budget`` does not limit.
            **method_options: options of the method; unknown ones are rejected, with a list of the available ones.

        Returns:
            One score per feature, for the whole target and for each target token; and the step scores.

        Raises:
            InputError: an argument is invalid; raised before the model runs.
            BudgetError: the budget is too small for the method.
            CapabilityError: the backend lacks a capability that the method or target function needs.
            ScoreError: the model returned a value that is not finite.
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
            "max_std_error": max_std_error,
            "seed": seed,
            "generate": generate,
            "attribute_generated": attribute_generated,
            "samples": samples,
            "step_scores": step_scores,
            **method_options,
        }
        stages = self._stages
        with stages.run() as run:
            draft = stages.resolve(run, arguments)
            request = stages.generate(run, draft)
            stages.begin(run)
            stages.record_steps(run, batches := stages.batches())
            game = stages.game(run, batches)
            estimate = run_method(request, game)
            stages.compare_spellings(run, game, batches)
            return stages.finish(run, estimate, game)

    @overload
    def attribute_many(
        self,
        prompts: Iterable[object],
        *,
        at_once: int = 8,
        on_error: Literal["raise"] = "raise",
        on_finish: Callable[[int, Attribution | Exception], None] | None = None,
        executor: Executor | None = None,
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
        executor: Executor | None = None,
        **shared: Any,
    ) -> Iterator[Attribution | Exception]: ...

    def attribute_many(
        self,
        prompts: Iterable[object],
        *,
        at_once: int = 8,
        on_error: Literal["raise", "return"] = "raise",
        on_finish: Callable[[int, Attribution | Exception], None] | None = None,
        executor: Executor | None = None,
        **shared: Any,
    ) -> Iterator[Attribution | Exception]:
        """Attribute many prompts; the inputs of their runs are scored in the same batches.

        Results equal those of ``attribute`` for each prompt, up to rounding, because batches differ. They are yielded
        one by one, in the order of the prompts. Runs start when a result is requested. The model must not change until
        the last result has been yielded or the iterator is closed.

        Args:
            prompts: any iterable, consumed lazily. An item is a prompt, or a dict of arguments of ``attribute`` that
                override the shared ones: ``{"prompt": …, "target": …, "seed": …}``.
            at_once: maximum number of runs in progress. More runs fill batches better, but use more memory.
            on_error: ``"raise"`` ends everything with the first error, when it is that item's turn; ``"return"`` yields
                the error in place of the item's result, and continues.
            on_finish: called with the number of an item, from 0, and its result or error, as soon as its run ends,
                which may be before its turn.
            executor: attributes the prompts in other processes, or on a cluster, such as ``ap.RayExecutor(workers=4)``;
                each worker opens the model, and ``at_once`` is that of each. All prompts are then taken from the
                iterable before the first starts. ``None`` for this process.
            **shared: arguments of ``attribute`` for all prompts.

        Returns:
            An iterator; closing it, or an error, ends all runs in progress.

        Raises:
            InputError: an argument is invalid; during iteration, any error of ``attribute``, with the number of the
                item.
            ServerError: a server, or a worker of the executor, is gone.
        """
        if executor is not None:
            from apportion.runs.distributed import distributed

            return distributed(
                executor,
                self._settings,
                prompts,
                shared,
                at_once=at_once,
                on_error=on_error,
                on_finish=on_finish,
                report=self.plugins.report,
            )
        return attributions(self._stages, prompts, shared, at_once=at_once, on_error=on_error, on_finish=on_finish)

    def refine(
        self,
        result: Attribution,
        *,
        budget: int | None = None,
        until: float | None = None,
        max_std_error: float | None = None,
    ) -> Attribution:
        """Continue from a result with a larger budget, without scoring anything twice.

        The new result is that of ``attribute`` with the same arguments and the larger budget. Scores are kept for as
        long as the result and the explainer live. A result that was read from a file has no scores, but holds the
        arguments of its call: with ``Explainer(cache=…)`` and the cache of its run, nothing is scored twice; without,
        everything is scored again.

        Args:
            result: a result of ``attribute`` or ``refine``, of this explainer or of another one of the same model.
            budget: maximum number of distinct evaluations in total, including those of ``result``. Where a method can
                use only some of these again, it evaluates fewer new coalitions.
            until: the largest standard error allowed, as in ``attribute``; the budget is then 4096 if none is given, or
                twice the evaluations of ``result`` if these are more.
            max_std_error: alias of ``until``; give only one of them.

        Returns:
            A new result; its ``provenance`` counts the evaluations and the time of both. For a result that was read
            from a file, it counts what was scored now, and as ``cached`` what was in the cache.

        Raises:
            InputError: neither ``budget`` nor ``until`` is given, the budget is not larger, the result is exact, its
                method evaluates more than coalitions (such as gradients, which are not kept), the model or the versions
                of packages are not those of the result, or the result does not hold its arguments.
            BudgetError: the budget is too small for the method.
            ScoreError: the model returned a value that is not finite.
        """
        stages = self._stages
        with stages.run() as run:
            past = stages.earlier(run, result)
            require_method(result, past.request)
            spent = result.provenance.method_evaluations
            run.request = request = larger_request(
                stages.resolver, past.request, run.id, budget, until, max_std_error, spent
            )
            past.check_larger(result, request)
            run.go_on_from(past)
            run.tally, run.before, run.steps = past.tally.copy(), past.seconds, past.steps
            stages.begin(run)
            game = stages.game(run, stages.batches(), spent=past.asked)
            estimate = continue_method(request, past.request, game, spent)
            return stages.finish(run, estimate, game)

    def rescore(
        self,
        result: Attribution,
        target_fn: str | TargetFunction,
        *,
        target: str | None = None,
        target_options: Mapping[str, object] | None = None,
    ) -> Attribution:
        """Explain the texts of a result with another target function; no text is written again.

        Args:
            result: a result of a target function that reads texts, also one that was read from a file.
            target_fn: another such function, as in ``attribute``.
            target: another text to compare with; ``None`` for that of the result.
            target_options: options of the target function.

        Returns:
            The result of ``attribute`` with these arguments. What its texts cost is not counted again. Only a method
            that asks about other prompts than before, because values differ, lets the model write more.

        Raises:
            InputError: the result holds no texts, the function reads none, or as in ``refine``.
        """
        require_texts(result)
        stages = self._stages
        with stages.run() as run:
            past = stages.earlier(run, result, rescored_by=(target_fn, target_options or {}))
            require_method(result, past.request)
            run.request = rescored_request(stages.resolver, past.request, run.id, target_fn, target_options, target)
            run.archive = past.archive.copy()
            if target is None:  # they are about the tokens of the target
                run.steps = past.steps
            stages.begin(run)
            game = stages.game(run, stages.batches())
            estimate = run_method(run.request, game)
            stages.note_new_texts(run, result)
            return stages.finish(run, estimate, game)

    @overload
    def evaluate(
        self,
        result: Attribution,
        metrics: Sequence[str | Metric] | None = None,
        *,
        seed: int = 0,
        random_orders: int = RANDOM_ORDERS,
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Evaluation: ...

    @overload
    def evaluate(
        self,
        result: Sequence[Attribution],
        metrics: Sequence[str | Metric] | None = None,
        *,
        seed: int = 0,
        random_orders: int = RANDOM_ORDERS,
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Comparison: ...

    def evaluate(
        self,
        result: Attribution | Sequence[Attribution],
        metrics: Sequence[str | Metric] | None = None,
        *,
        seed: int = 0,
        random_orders: int = RANDOM_ORDERS,
        options: Mapping[str, Mapping[str, object]] | None = None,
    ) -> Evaluation | Comparison:
        """Measure the faithfulness of a result with metrics, which evaluate coalitions of its features.

        Coalitions that the run, another metric or another evaluation has already scored are not scored again. Several
        results of one prompt and target are measured with the same random draws, and share all scores.

        Args:
            result: a result of ``attribute`` or ``refine``, also one that was read from a file; or a list of them, of
                one prompt, target and target function, by any methods.
            metrics: names (``apportion metrics``) or ``Metric`` objects; ``None`` for all installed metrics.
            seed: seed of every random draw.
            random_orders: number of random orders of the features whose deletion and insertion curves are measured as
                a yardstick, and for several results all other metrics too: half of them drawn, each followed by its
                reverse. 0 for none.
            options: options of metrics, by name: ``{"lds": {"masks": 128}}``.

        Returns:
            The measurement of each metric; ``show()`` prints them, and ``plot()`` draws the curves. For several
            results, a ``Comparison`` of their evaluations, with the cost of each. For a result with a contrast, metrics
            score what the result explains: the target compared with the contrast.

        Raises:
            InputError: the model or the versions of packages are not those of the result, the result does not hold its
                arguments, results are not about the same prompt and target, a metric or option is unknown, or
                ``random_orders`` is odd.
            PluginError: a metric failed.
        """
        stages, alone = self._stages, isinstance(result, Attribution)
        results, random_orders = checked_results(result), checked_orders(random_orders)
        with stages.run() as run:
            pasts = [stages.earlier(run, one) for one in results]
            chosen = chosen_metrics(self.plugins["metrics"], metrics, options or {})
            seed = checked_seed(seed)
            check_one_game(pasts, self.session)
            run.go_on_from(pasts[0] if alone else stages.shared(results, pasts))
            run.request = replace(pasts[0].request, id=run.id, budget=None)
            game = stages.game(run, stages.batches())
            how: dict[str, Any] = {"seed": seed, "random_orders": random_orders, "all_by_chance": not alone}
            found = [measure_all(game, one, chosen, **how, count=lambda: run.tally.evaluations) for one in results]
            return found[0] if alone else compare(found)

    def compare_fills(
        self,
        prompt: ImageText,
        target: str | Sequence[int] | None = None,
        *,
        fills: Sequence[object] = FILLS,
        **arguments: Any,
    ) -> ResultComparison:
        """Compare what different fills of absent regions make of one prompt with pictures.

        A region has no neutral replacement, as a word may have: black is a colour too. If the rankings under several
        fills agree, they say something about the picture, and not about the fill.

        Args:
            prompt: prompt with pictures; its own ``fill`` is not used.
            target: as in ``attribute``.
            fills: the fills, as ``fill`` of ``ImageText``.
            **arguments: other arguments of ``attribute``, the same for all fills.

        Returns:
            One result for each fill, and the agreement of their rankings; ``plot("image")`` draws them side by side.

        Raises:
            InputError: the prompt has no pictures, or there are fewer than two fills; and as in ``attribute``.
            BudgetError, CapabilityError, ScoreError: as in ``attribute``.
        """
        prompts = with_each_fill(prompt, fills)
        found = self.attribute_many(prompts, at_once=len(prompts), target=target, **arguments)
        return ResultComparison(list(found))

    def context_reliance(
        self,
        prompt: object,
        target: str | Sequence[int] | None = None,
        *,
        context: str | None = None,
        template: str = TEMPLATE,
        contextless: str | None = None,
        metric: str | TargetFunction = "kl_divergence",
        metric_options: Mapping[str, object] | None = None,
        threshold: float | None = 1.0,
        top_tokens: int | None = None,
        cue_threshold: float | None = 1.0,
        top_cues: int | None = None,
        **arguments: Any,
    ) -> ContextReliance:
        """Find the output tokens that depend on the context, and the parts of it that each of them relies on (PECoRe).

        Args:
            prompt: the input, with ``context=``; or a prompt whose features are the context, such as ``Documents``.
            target: the output, as in ``attribute``; ``None`` for what the model writes with the context.
            context: a text, which ``features=`` cuts as it cuts a plain prompt.
            template: how the two make up the prompt.
            contextless: the prompt without its context, in which ``{input}`` stands for the input. ``None`` for the
                input alone, or for a prompt of another type without any of its features.
            metric: target function that compares the two predictions, such as ``"pcxmi"``: any with a reference prompt.
            metric_options: its options, such as ``{"top_k": 20}``.
            threshold: standard deviations above the mean from which a token is sensitive; ``None`` for all.
            top_tokens: maximum number of sensitive tokens.
            cue_threshold: the same, for the features that are cues of a token, by magnitude.
            top_cues: maximum number of cues of a token.
            **arguments: other arguments of ``attribute``. The default ``target_fn``, ``"contrast_prob_diff"``, compares
                each token with what the model says there without the context. The default ``method`` is ``"saliency"``
                where the model allows it, else ``"auto"``.

        Returns:
            The scores of all tokens; and for each sensitive one, its alternative without the context, and its cues.

        Raises:
            InputError, CapabilityError, BudgetError, ScoreError: as in ``attribute``; the metric always needs logits.
        """
        criteria = Criteria(threshold, top_tokens, cue_threshold, top_cues)
        where = ContextOf(prompt, context, template, contextless, arguments.pop("features", None))
        question = ContextQuestion(where, metric, metric_options or {}, criteria, {"target": target, **arguments})
        with self._stages.run() as run:
            return context_reliance(self._stages, run, self.plugins, self.session, question)

    def target_of(self, result: Attribution) -> tuple[int, ...]:
        """Return the token ids of a result's target, to explain the same target again.

        Raises:
            InputError: the result was saved by an earlier version.
        """
        return target_of(recipe_in(result).target).ids

    def estimate(self, prompt: object, target: str | Sequence[int] | None = None, **arguments: Any) -> Cost:
        """Estimate the cost of ``attribute`` with these arguments, before a long run.

        Runs the method on made-up values, plans its evaluations, and times a few short trials, which take up to a third
        of the expected time, between one and eight seconds in most cases. If no target is given, it is
        generated, as in ``attribute``.

        Args:
            prompt: as in ``attribute``.
            target: as in ``attribute``.
            **arguments: all other arguments of ``attribute``; unknown ones are rejected.

        Raises:
            InputError, BudgetError, CapabilityError: ``attribute`` would raise the same error.
        """
        stages = self._stages
        with stages.run(silent=True) as run:
            draft = stages.resolve(run, {"prompt": prompt, "target": target, **arguments})
            request = stages.generate(run, draft)
            game = partial(stages.game, run, stages.batches())
            return estimate_cost(request, self.session, game, before=run.seconds, extra_texts=run.extra_texts)

    def __enter__(self) -> Explainer:
        return self
