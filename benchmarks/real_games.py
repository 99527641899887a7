"""Ten prompts of different kinds as games of 8–12 features; all coalitions are scored once and kept in a file."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

import apportion as ap
from apportion_plugins.methods.shapley import shapley_of_table
from apportion_plugins.samplers.tables import all_coalitions

MODEL = "smollm2"


@dataclass(frozen=True)
class Case:
    """A prompt, and the target whose log-probability is the game's value.

    Attributes:
        name: name in tables and of files.
        kind: kind of the features.
        prompt: prompt for ``Explainer.attribute``.
        target: target for ``Explainer.attribute``.
    """

    name: str
    kind: str
    prompt: object
    target: str


@dataclass(frozen=True)
class TableGame:
    """A game given by its table of values, in the order of ``all_coalitions``."""

    case: Case
    table: Float[np.ndarray, " S"]

    @property
    def n(self) -> int:
        """Number of features."""
        return len(self.table).bit_length() - 1

    def __call__(self, mask: Bool[Tensor, "S F"]) -> Float[Tensor, " S"]:
        """Look up v of each coalition."""
        return torch.from_numpy(self.table)[(mask.long() << torch.arange(self.n)).sum(1)]

    @property
    def shapley(self) -> Float[np.ndarray, " F"]:
        """Exact Shapley values, from the whole table."""
        return shapley_of_table(torch.from_numpy(self.table)[:, None])[:, 0].numpy()

    def orders(self) -> list[float]:
        """Shares of single features, pairs, triples, … in the variance over all coalitions (Walsh spectrum)."""
        spectrum = self.table.copy()
        for i in range(self.n):
            halves = spectrum.reshape(-1, 2, 2**i)
            spectrum = np.stack([halves[:, 0] + halves[:, 1], halves[:, 0] - halves[:, 1]], 1).reshape(-1) / 2
        sizes = all_coalitions(self.n).sum(1).numpy()
        power = np.array([(spectrum[sizes == order] ** 2).sum() for order in range(1, self.n + 1)])
        return list(power / power.sum())


class WholeTable:
    """A method that evaluates every coalition and keeps the values."""

    estimand, requires = "none", frozenset()

    def run(self, game: ap.Game, *, budget: int | None, rng: torch.Generator) -> ap.Estimate:
        values = game.values(all_coalitions(game.n_features))
        return ap.Estimate(torch.zeros(game.n_features, game.n_outputs), extras={"table": values[:, 0].numpy()})


def real_games(folder: Path) -> list[TableGame]:
    """All games; those without a file in ``folder`` are scored first (about 20 minutes for all ten on 2 cores)."""
    folder.mkdir(parents=True, exist_ok=True)
    explainer: ap.Explainer | None = None
    games = []
    for case in cases():
        path = folder / f"{case.name}.npz"
        if not path.exists():
            explainer = explainer or ap.Explainer(MODEL, progress=False)
            started = time.perf_counter()
            result = explainer.attribute(case.prompt, case.target, method=WholeTable())
            np.savez(path, table=result.extras["table"], prompt=repr(case.prompt), target=case.target)
            seconds = time.perf_counter() - started
            print(f"{case.name}: {result.provenance.evaluations} evaluations, {seconds:.0f} s", file=sys.stderr)
        with np.load(path) as stored:
            if str(stored["prompt"]) != repr(case.prompt) or str(stored["target"]) != case.target:
                raise SystemExit(f"{path} was made with another prompt or target for {case.name}; delete it.")
            games.append(TableGame(case, stored["table"]))
    return games


def cases() -> list[Case]:
    """Cases with slots, words, tokens, few-shot examples, sentences of documents, and groups of slots."""
    return [
        Case("person", "slots of a template", _person(), " playing golf, hiking, and cooking."),
        Case("trip", "groups of slots", _trip(), " fly to Paris, France."),
        Case("capital", "words, removed", ap.Text("The capital city of the country of France is called"), " Paris."),
        Case("story", "words, replaced", ap.Text(STORY, baseline="something"), " the dragon was sleeping."),
        Case("sentiment", "few-shot examples", ap.Text(SENTIMENT, by="paragraphs", keep=[-1]), " negative"),
        Case("french", "few-shot examples", ap.Text(FRENCH, by=str.splitlines, keep=[-1]), " pomme"),
        Case("company", "sentences of a document", ap.Text(COMPANY, by="sentences", keep=[-1]), " Maria Lopez"),
        Case("apollo", "sentences of a document", ap.Text(APOLLO, by="sentences", keep=[-1]), " Neil Armstrong"),
        Case("proverb", "tokens, replaced", ap.Text(PROVERB, by="tokens", baseline=0), " wealthy and wise."),
        Case("order", "groups of slots", _order(), " refund"),
    ]


STORY = "When the young knight finally entered the dark cave, he saw"
PROVERB = "Early to bed and early to rise makes a man healthy,"
SENTIMENT = "\n\n".join(
    (
        "Review: The food was cold. Sentiment: negative",
        "Review: I loved every minute. Sentiment: positive",
        "Review: What a waste of money. Sentiment: negative",
        "Review: Friendly staff, great view. Sentiment: positive",
        "Review: It broke after a day. Sentiment: negative",
        "Review: My kids adore it. Sentiment: positive",
        "Review: Boring and far too long. Sentiment: negative",
        "Review: Best purchase this year. Sentiment: positive",
        "Review: The room was dirty and loud. Sentiment:",
    )
)
FRENCH = "\n".join(
    (
        "dog = chien",
        "house = maison",
        "water = eau",
        "bread = pain",
        "book = livre",
        "cheese = fromage",
        "tree = arbre",
        "milk = lait",
        "sun = soleil",
        "apple =",
    )
)
COMPANY = (
    "Acme was founded in 1990. It makes pumps. Its head office is in Denver. The first boss was John Smith. "
    "He left in 2015. Maria Lopez took over. She had led sales before. Profits rose at once. Today Acme is run by"
)
APOLLO = (
    "Apollo 11 flew in July 1969. It left from Florida. Three men were on board. Neil Armstrong was the commander. "
    "Buzz Aldrin flew the lander. Michael Collins stayed in orbit. They landed on the Moon. "
    "Armstrong stepped out first. They came home safely. The first man on the Moon was"
)


def _person() -> ap.Template:
    return ap.Template(
        "{name}, {age}, lives in {city}, {state} with {family} and is a {job}. On {day} {pronoun} likes",
        {"name": "Dave", "age": "61", "city": "Palm Coast", "state": "FL", "family": "his wife", "job": "lawyer",
         "day": "Sundays", "pronoun": "he"},
        {"name": "Sarah", "age": "23", "city": "Seattle", "state": "WA", "family": "two dogs", "job": "doctor",
         "day": "weekdays", "pronoun": "she"},
    )  # fmt: skip


def _trip() -> ap.Template:
    return ap.Template(
        "{who} and {whose} {kin} {go} to {city}, {country} by {vehicle} in {month} for {days} days. {they} love "
        "{love}. The {sort} plan {verb} to",
        {"who": "Anna", "whose": "her", "kin": "sister", "go": "fly", "city": "Paris", "country": "France",
         "vehicle": "plane", "month": "May", "days": "three", "they": "They", "love": "art", "sort": "first",
         "verb": "is"},
        {"who": "Tom", "whose": "his", "kin": "boss", "go": "drive", "city": "Rome", "country": "Italy",
         "vehicle": "car", "month": "January", "days": "ten", "they": "Both", "love": "food", "sort": "second",
         "verb": "was"},
        groups=[("who", "whose"), ("go", "vehicle"), ("city", "country")],
    )  # fmt: skip


def _order() -> ap.Template:
    slots = {
        "tone": "polite", "when": "Yesterday", "what": "laptop", "shop": "TechWorld", "price": "900", "state": "broken",
        "part": "screen", "called": "twice", "answer": "nobody answered", "mood": "angry", "want": "my money back",
    }  # fmt: skip
    others = {
        "tone": "short", "when": "Today", "what": "book", "shop": "Readers", "price": "12", "state": "fine",
        "part": "cover", "called": "once", "answer": "they helped", "mood": "happy", "want": "to say thanks",
    }  # fmt: skip
    text = (
        "A {tone} letter. {when} my {what} from {shop} (${price}) came {state}: the {part}. I called {called}, "
        "{answer}. I am {mood} and want {want}. Subject: request for a"
    )
    return ap.Template(text, slots, others, groups=[("state", "part"), ("mood", "want")])
