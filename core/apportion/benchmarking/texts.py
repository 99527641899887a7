"""Prompts for benchmarks, written for this purpose. Their content is fictional."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ANSWER", "BASELINES_5", "BASELINES_12", "DIAGNOSIS", "FEW_SHOT", "LABEL", "QUESTION", "SENTENCE", "SLOTS_5",
    "SLOTS_12", "TARGET", "VALUES_5", "VALUES_12", "document", "examples", "words",
]  # fmt: skip

SENTENCE = "Dave lives in Palm Coast, FL and is a lawyer. His personal interests include"
TARGET = " playing golf, hiking, and cooking."
SLOTS_5 = "{name} lives in {city}, {state} and is a {job}. {pronoun} personal interests include"
VALUES_5 = {"name": "Dave", "city": "Palm Coast", "state": "FL", "job": "lawyer", "pronoun": "His"}
BASELINES_5: Mapping[str | tuple[str, ...], object] = {
    "name": "Sarah",
    "city": "Seattle",
    "state": "WA",
    "job": "doctor",
    "pronoun": "Her",
}

SLOTS_12 = (
    "Patient: {age}, {sex}, works as a {job} in {city}. Smokes: {smoking}. Drinks: {drinking}. Complains of {symptom} "
    "for {duration}, worse {when}. Temperature {temperature}. History: {history}. Takes {drug}.\nMost likely diagnosis:"
)
VALUES_12 = {
    "age": "67 years", "sex": "male", "job": "miner", "city": "Denver", "smoking": "a pack a day", "drinking": "rarely",
    "symptom": "coughing and weight loss", "duration": "three months", "when": "at night", "temperature": "37.9",
    "history": "asbestos exposure", "drug": "aspirin",
}  # fmt: skip
BASELINES_12: Mapping[str | tuple[str, ...], object] = {
    "age": "25 years", "sex": "female", "job": "teacher", "city": "Boston", "smoking": "never", "drinking": "daily",
    "symptom": "a runny nose", "duration": "two days", "when": "in spring", "temperature": "36.6",
    "history": "none", "drug": "nothing",
}  # fmt: skip
DIAGNOSIS = " lung cancer."

QUESTION = "What is made in the mill at Alder?"
ANSWER = " The mill at Alder makes paper for maps."
_TOWNS = ("Alder", "Birkfell", "Corran", "Dunmere", "Eskholt", "Farrow", "Garth", "Hollin", "Inver", "Jarrow")
_GOODS = (
    "paper for maps", "rope for ships", "glass for lamps", "felt for hats", "nails for boats", "ink for printers",
    "wax for candles", "wool for coats", "salt for fish", "tiles for roofs",
)  # fmt: skip
_FAMILIES = ("Ash", "Brand", "Cole", "Dale", "Egan", "Frost", "Gale", "Hart", "Irwin", "Jessop")
_PATTERNS = (
    "The town of {town} lies on the northern bank of the river, {far} miles from the sea, among hills and orchards.",
    "Its old mill, which the {family} family built in {year}, makes {goods} and employs about {many} people.",
    "In the spring of {later} a flood carried the wooden bridge at {town} away, and it took {far} weeks to mend it.",
    "Visitors come to {town} for the market on the first Saturday of the month, where {goods} can be bought.",
    "The school at {town} has {many} pupils, and its library was given by a son of the {family} family in {later}.",
    "Since {later} a narrow railway has joined {town} to the coast, and the journey takes a little over {far} minutes.",
)


def document() -> str:
    """Sixty sentences about ten towns."""
    sentences = []
    for i, (town, goods, family) in enumerate(zip(_TOWNS, _GOODS, _FAMILIES, strict=True)):
        facts = {"town": town, "goods": goods, "family": family, "far": 12 + 3 * i, "many": 90 + 17 * i}
        facts |= {"year": 1770 + 7 * i, "later": 1881 + 5 * i}
        sentences += [pattern.format(**facts) for pattern in _PATTERNS]
    return " ".join(sentences)


def words(count: int) -> str:
    """The first ``count`` words of the document, which is repeated if necessary."""
    there = document().split()
    return " ".join((there * (count // len(there) + 1))[:count])


_INSTRUCTIONS = """\
You sort letters that customers write to a company that sells garden furniture. Read the letter to its end
before you decide, and answer with one word, which is the name of the department that should reply.

Delivery is for everything on the way between the warehouse and the customer's door: parcels that are late,
lost, left with a neighbour or sent to an old address, and drivers who were rude or very kind. Billing is for
invoices, refunds, discounts that were promised and not given, cards that were refused, and taxes. A letter
that asks for money back because something broke belongs to Repairs and not to Billing. Repairs is for
whatever is broken, bent, faded, rusty or leaking, for missing screws, for guarantees, and for questions on
how something is put together or taken apart. Sales is for people who have not bought anything yet, for
questions about colours, sizes, prices and stock, and for companies that would like to order many pieces at
once. Praise is for letters that want nothing but to say thank you.

Some letters are about two things. Then take the one that the customer is waiting for: somebody who thanks the
driver and asks for an invoice is waiting for the invoice. If the customer threatens to go to a lawyer or to a
newspaper, the department stays the same; the manager reads every letter at the end of the day anyway. Do not
be misled by the tone. An angry letter may ask for a price, and a friendly one may hide a broken chair.
Numbers in a letter are often wrong, so do not rely on order numbers, dates or sums. Letters in other
languages are sorted in the same way. If a letter is empty, or was meant for somebody else, answer with Sales,
where a person will have a look at it. Never explain your choice, never write more than the one word, and
never invent a department that is not in this list.
"""
_EXAMPLES = (
    ("My bench was to come on Monday, and now it is Thursday. I took two days off for nothing.", "Delivery"),
    ("One leg of the table is bent, and the screws for the other three are not in the box.", "Repairs"),
    ("The voucher took ten percent off in the shop, but not on the bill that I got by post.", "Billing"),
    ("Do you have the green parasol in three metres as well, and what would twenty of them cost?", "Sales"),
    ("We have sat on your chairs every evening this summer. Thank you for making them so well!", "Praise"),
    ("Your driver put the boxes on my roses, although I had asked him twice to use the garage.", "Delivery"),
    ("The cushions were red in May, and by August they had become pink. Is that what you call a guarantee?", "Repairs"),
    ("I have sent the lounger back three weeks ago, and I still do not see the money on my card.", "Billing"),
)
_ASKED = "The swing arrived in good time, but since the first rain it squeaks and there is rust on the chain."

FEW_SHOT = (
    _INSTRUCTIONS
    + "".join(f"{{example_{i}}}" for i in range(1, len(_EXAMPLES) + 1))
    + f"\nLetter: {_ASKED}\nDepartment:"
)
LABEL = " Repairs"


def examples() -> dict[str, str]:
    """The examples, by the names of their slots in ``FEW_SHOT``."""
    return {
        f"example_{i}": f"\nLetter: {letter}\nDepartment: {label}\n"
        for i, (letter, label) in enumerate(_EXAMPLES, start=1)
    }
