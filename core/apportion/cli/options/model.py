"""The model, and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from apportion.cli.options.command import NO_VALUE, in_panel
from apportion.cli.parse import json_pairs, memory_size, usage_error

__all__ = ["ModelOptions"]

_option = in_panel("Model")
_server = in_panel("Server, if --model is an address")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model, its backend and its memory."""

    model: Annotated[
        str,
        _option(
            "--model",
            "-m",
            metavar="NAME",
            help="'smollm2' (a small demo model, downloaded once), a Hugging Face Hub id, a folder, a .gguf file, or "
            "the address of a server (http://localhost:8000/v1).",
        ),
    ] = "smollm2"
    tokenizer: Annotated[
        str | None,
        _option(
            "--tokenizer",
            metavar="NAME",
            show_default="the model's own",
            help="Hub id or folder of the tokenizer, where it does not come with the model.",
        ),
    ] = None
    backend: Annotated[
        str,
        _option(
            metavar="NAME",
            help="Backend that runs the model; see `apportion backends`. 'auto' takes the best one that works here.",
        ),
    ] = "auto"
    device: Annotated[
        str | None,
        _option(
            metavar="NAME", show_default="a GPU if there is one", help="Device to run on, such as cpu, cuda or cuda:1."
        ),
    ] = None
    dtype: Annotated[
        str | None,
        _option(
            metavar="NAME",
            show_default="float32",
            help="Type of the weights: float64, float32, bfloat16 or float16.",
        ),
    ] = None
    memory_budget: Annotated[
        str | None,
        _option(
            metavar="SIZE",
            show_default="the backend's choice",
            help="Memory for a batch, besides the model, in bytes or with a unit: 512MiB, 2GB.",
        ),
    ] = None
    backend_option: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME=VALUE",
            help="Option of the backend that --backend names: compile=true. Repeatable; see `apportion backends show "
            "NAME`.",
        ),
    ] = ()
    allow_missing: Annotated[
        bool,
        _option(
            "--allow-missing",
            metavar=NO_VALUE,
            help="Open a model whose files lack some of its weights, and fill these with random numbers.",
        ),
    ] = False
    no_share_prefixes: Annotated[
        bool,
        _option(
            "--no-share-prefixes",
            metavar=NO_VALUE,
            help="Encode every prompt from its first token, even where the prompts of a batch begin alike.",
        ),
    ] = False
    cache: Annotated[
        bool,
        _option(
            "--cache",
            metavar=NO_VALUE,
            help="Remember scores in your cache folder, and never score a prompt twice with the same model and target.",
        ),
    ] = False

    key_file: Annotated[
        Path | None,
        _server(
            metavar="FILE",
            show_default="the variable APPORTION_API_KEY",
            help="File that holds the server's key, and nothing else.",
        ),
    ] = None
    max_requests: Annotated[
        int | None, _server(metavar="N", min=1, show_default="no limit", help="The most requests to send.")
    ] = None
    price: Annotated[
        float | None,
        _server(metavar="AMOUNT", show_default="unknown", help="Price of a million tokens, in any currency."),
    ] = None
    max_cost: Annotated[
        float | None, _server(metavar="AMOUNT", show_default="no limit", help="The most to spend; needs --price.")
    ] = None

    @property
    def at_server(self) -> bool:
        """True if the model is the address of a server."""
        return self.model.lower().startswith(("http://", "https://"))

    def settings(self) -> dict[str, Any]:
        """Arguments of ``Explainer`` that are about the model.

        Raises:
            typer.BadParameter: a size or option that cannot be read, or a server's where there is none.
        """
        at_server = self.at_server
        given = {name: getattr(self, name) for name in ("key_file", "max_requests", "price", "max_cost")}
        server = {name: value for name, value in given.items() if value is not None}
        for name in server if not at_server else ():
            usage_error(f"--{name.replace('_', '-')}", f"is of servers; --model is {self.model!r}, and not an address.")
        return {
            "model": self.model,
            "tokenizer": self.tokenizer,
            "backend": "openai" if at_server and self.backend == "auto" else self.backend,
            "device": self.device,
            "dtype": self.dtype,
            "memory_budget": None if self.memory_budget is None else memory_size("--memory-budget", self.memory_budget),
            "backend_options": {
                **json_pairs("--backend-option", self.backend_option, "compile=true"),
                **server,
            },
            "allow_missing": self.allow_missing,
            "share_prefixes": not self.no_share_prefixes,
            "cache": self.cache,
        }
