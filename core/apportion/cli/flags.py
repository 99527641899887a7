"""The flags of the commands, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL, FEATURES, TARGET, METHOD, OUTPUT = "Model", "Features", "Target", "Method", "Output"
NO_VALUE = " "
"""Metavar of flags without a value; typer would print their type."""

# --- Model ---------------------------------------------------------------------------------------------------------

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        rich_help_panel=MODEL,
        help="'smollm2' (a small demo model, fetched once), a Hugging Face hub id, a folder, or a .gguf file.",
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MODEL,
        help="What runs the model; see `apportion backends`. 'auto' takes the best one that works here.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MODEL,
        show_default="a GPU if there is one",
        help="Such as cpu, cuda or cuda:1.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=MODEL,
        show_default="float32",
        help="Of the weights: float64, float32, bfloat16 or float16.",
    ),
]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=MODEL,
        show_default="the backend's choice",
        help="What a batch may take besides the model, in bytes or with a unit: 512MiB, 2GB.",
    ),
]
BackendOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        rich_help_panel=MODEL,
        show_default=False,
        help="An option of the backend that --backend names: compile=true. Repeatable; see `apportion backends`.",
    ),
]
NoSharePrefixes = Annotated[
    bool,
    typer.Option(
        "--no-share-prefixes",
        metavar=NO_VALUE,
        rich_help_panel=MODEL,
        help="Encode every prompt from its first token on, also where the prompts of a batch begin alike.",
    ),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache",
        metavar=NO_VALUE,
        rich_help_panel=MODEL,
        help="Remember scores in your cache folder, and score no prompt twice with the same model and target.",
    ),
]

# --- Features ------------------------------------------------------------------------------------------------------

Prompt = Annotated[
    str | None,
    typer.Argument(
        metavar="PROMPT",
        show_default=False,
        help="The prompt, '-' to read it from stdin, or leave it out and use --prompt-file, --template or --chat.",
    ),
]
PromptFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=FEATURES,
        show_default=False,
        help="Read the prompt from this UTF-8 file. One line break at its end (and that of stdin) is not part of it.",
    ),
]
Input = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=FEATURES,
        show_default=False,
        help="Take the prompt for one of this type, which a plugin brings; see `apportion plugins`.",
    ),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        rich_help_panel=FEATURES,
        show_default=False,
        help="An option of that type; the value is read as JSON where it is JSON. Repeatable.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        metavar="UNIT",
        rich_help_panel=FEATURES,
        show_default="words; turns with --chat; documents with --document",
        help="Cut the prompt into words, tokens, sentences or paragraphs; a chat also into turns or roles.",
    ),
]
TextBaseline = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=FEATURES,
        show_default="absent pieces are removed",
        help="What replaces an absent piece of the prompt.",
    ),
]
BaselineId = Annotated[
    int | None,
    typer.Option(
        metavar="ID",
        min=0,
        rich_help_panel=FEATURES,
        show_default=False,
        help="The same as a token id; with --by tokens.",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=FEATURES,
        show_default=False,
        help="A piece of the prompt that is always present and gets no score. Repeatable.",
    ),
]
KeepIndex = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N",
        rich_help_panel=FEATURES,
        show_default=False,
        help="The same by its position from 0; -1 is the last. Repeatable.",
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=FEATURES,
        show_default=False,
        help="A prompt with slots, each a feature: '{name} lives in {city}'. Literal braces are written {{ and }}.",
    ),
]
Value = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SLOT=TEXT",
        rich_help_panel=FEATURES,
        show_default=False,
        help="What is in a slot: name=Dave. Once for each slot.",
    ),
]
Baseline = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SLOT=TEXT",
        rich_help_panel=FEATURES,
        show_default="empty",
        help="What is in a slot whose feature is absent: name=Sarah. The same slot again adds an alternative, and "
        "results are averaged over them. 'city,state=Seattle,WA' changes slots together; a JSON list of texts "
        "does so for values with commas.",
    ),
]
Group = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SLOT,SLOT",
        rich_help_panel=FEATURES,
        show_default=False,
        help="Slots that are one feature with one score: name,pronoun. Repeatable.",
    ),
]
Draws = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=FEATURES,
        show_default="16",
        help="The most combinations of alternative baselines to average over.",
    ),
]

Chat = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.json",
        rich_help_panel=FEATURES,
        show_default=False,
        help="A conversation ('-' for stdin), written by the model's chat template: a list of messages with role and "
        "content, or an object with 'messages', 'tools' and other arguments of ap.Chat. The last turn of the user is "
        "kept unless something else is.",
    ),
]
Document = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=FEATURES,
        show_default=False,
        help="A document that the prompt is a question about; documents, or with --by pieces of them, are the "
        "features. Repeatable.",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=FEATURES,
        show_default=r"Context: {context}\n\nQuery: {question}",
        help="Where documents and question stand in the prompt.",
    ),
]
AsChat = Annotated[
    bool,
    typer.Option(
        "--as-chat",
        metavar=NO_VALUE,
        rich_help_panel=FEATURES,
        help="Send documents and question as a user's message, in the model's chat template.",
    ),
]

# --- Target --------------------------------------------------------------------------------------------------------

Target = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="TEXT",
        rich_help_panel=TARGET,
        show_default="the model's own continuation",
        help="The output to explain, with its leading space: ' playing golf'.",
    ),
]
TargetIds = Annotated[
    str | None,
    typer.Option(
        metavar="ID,ID",
        rich_help_panel=TARGET,
        show_default=False,
        help="The same as token ids: 504,2471.",
    ),
]
TargetFn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=TARGET,
        help="What of the output is explained: log_prob (nats), prob, entropy, … (`apportion targets`).",
    ),
]
Contrast = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        rich_help_panel=TARGET,
        show_default=False,
        help="What the target is compared with, for contrastive target functions such as contrast_prob_diff.",
    ),
]
ContrastIds = Annotated[
    str | None,
    typer.Option(
        metavar="ID,ID",
        rich_help_panel=TARGET,
        show_default=False,
        help="The same as token ids: 504,2471.",
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        rich_help_panel=TARGET,
        show_default=False,
        help="An option of the target function: top_k=20. Repeatable; see `apportion targets show NAME`.",
    ),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=TARGET,
        show_default="25",
        help="The most tokens of the model's own continuation.",
    ),
]
Generate = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        rich_help_panel=TARGET,
        show_default="greedy",
        help="An option of the model's generation, such as do_sample=true. Repeatable.",
    ),
]

# --- Method --------------------------------------------------------------------------------------------------------

Method = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=METHOD,
        help="See `apportion methods`. 'auto' takes exact Shapley values while the budget allows, else sampled ones.",
    ),
]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="KEY=VALUE",
        rich_help_panel=METHOD,
        show_default=False,
        help="An option of the method; see `apportion methods show NAME`. Values are JSON (10, true, [1, 2]) or else "
        "text. Repeatable.",
    ),
]
Budget = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        rich_help_panel=METHOD,
        show_default="the method's choice",
        help="The most distinct model evaluations.",
    ),
]
Until = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        rich_help_panel=METHOD,
        show_default=False,
        help="Go on until every standard error is at most this (nats for log_prob), or the budget ends.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar=NO_VALUE,
        rich_help_panel=METHOD,
        help="Only say what the run would cost: evaluations, tokens, time and memory.",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, rich_help_panel=METHOD, help="Of every random draw.")]

# --- Output --------------------------------------------------------------------------------------------------------

AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        metavar=NO_VALUE,
        rich_help_panel=OUTPUT,
        help="Print the result as JSON on stdout, and nothing else there.",
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Save the result; `apportion show` reads it. A file that is there is replaced.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Draw the result into a .png, .svg, .pdf or .html file. A file that is there is replaced.",
    ),
]
View = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel=OUTPUT,
        show_default="terminal; with --plot: heatmap, or html for .html",
        help="What --plot draws, or what is printed without it: heatmap, bar, html, terminal, or what a plugin adds.",
    ),
]
ViewOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="An option of the view. Values are JSON or else text. Repeatable.",
    ),
]
RunLog = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        rich_help_panel=OUTPUT,
        show_default=False,
        help="Append one line of JSON about the run to this file: what was asked, what it cost, how it ended.",
    ),
]
NoProgress = Annotated[
    bool,
    typer.Option(
        "--no-progress",
        metavar=NO_VALUE,
        rich_help_panel=OUTPUT,
        help="No progress bar on stderr; it shows in terminals only anyway.",
    ),
]
