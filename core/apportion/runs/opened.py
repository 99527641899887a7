"""An open model and its plugins, which all calls of an explainer use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apportion.errors import InputError, shown
from apportion.hooks.manager import load_plugins
from apportion.models.select_backend import check_memory_budget, named_backend, open_session
from apportion.models.spec import model_spec
from apportion.options import true_or_false
from apportion.phrases import quoted
from apportion.protocols.progress import ALWAYS, AUTO, NEVER
from apportion.runs.stages import Stages

if TYPE_CHECKING:
    from apportion.protocols.backend import Backend

__all__ = ["Opened"]


class Opened:
    """A model in a session of a backend, with plugins. For the arguments, see ``Explainer``.

    Attributes:
        plugins: hooks and registries.
        session: session of the open model.
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
        allow_missing: bool = False,
        share_prefixes: bool = True,
        plugins: Sequence[object] = (),
        progress: bool | str = True,
        cache: bool | str | Path = False,
        run_log: str | Path | None = None,
    ) -> None:
        true_or_false("allow_missing", allow_missing)
        true_or_false("share_prefixes", share_prefixes)
        if not isinstance(progress, bool) and progress not in (AUTO, ALWAYS, NEVER):
            raise InputError(f"progress={shown(progress)} must be True, False, {AUTO!r}, {ALWAYS!r} or {NEVER!r}.")
        self._settings: dict[str, object] = {
            "model": str(model) if isinstance(model, Path) else model,
            "tokenizer": tokenizer,
            "processor": processor,
            "backend": backend,
            "device": device,
            "dtype": dtype,
            "memory_budget": memory_budget,
            "backend_options": backend_options,
            "allow_missing": allow_missing,
            "share_prefixes": share_prefixes,
            "plugins": plugins,
            "cache": cache,
            "run_log": run_log,
        }
        self.plugins = load_plugins(
            plugins, switches={"progress": progress != NEVER and progress, "cache": cache, "run_log": run_log}
        )
        check_memory_budget(memory_budget)
        named = named_backend(self.plugins, backend, backend_options)
        self.session, notes = open_session(
            self.plugins,
            named,
            model_spec(model, tokenizer, processor, allow_missing=allow_missing),
            device=device,
            dtype=dtype,
            memory_budget=memory_budget,
            options=backend_options,
        )
        self._stages = Stages(self.plugins, self.session, notes, share=share_prefixes, report=self.plugins.report)

    def __repr__(self) -> str:
        info = self.session.info
        where = ", ".join(filter(None, (info.backend, info.device, info.dtype)))
        return f"{type(self).__name__}({quoted(info.model)}, {where})"

    def close(self) -> None:
        """Close the session and release the model; idempotent. ``with Explainer(…) as explainer:`` closes it too."""
        self.session.close()

    def __exit__(self, *exc_info: object) -> None:
        self.close()
