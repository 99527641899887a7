"""Prompts on which the fidelity of an export is measured: facts, instructions, stories, letters. All are invented."""

from __future__ import annotations

__all__ = ["PROMPTS"]

PROMPTS = (
    ("Dave lives in Palm Coast and is a lawyer. In his free time he likes to play", " golf and tennis."),
    ("The old lighthouse stands on a cliff above the village, and at night its lamp warns", " the ships."),
    ("Question: What do bees collect from flowers to make honey? Answer: Bees collect", " nectar."),
    ("My grandmother bakes bread every Sunday morning, so her kitchen always smells of", " fresh bread."),
    ("The patient has a fever, a sore throat and a cough. The doctor thinks that it is", " the flu."),
    ("Translate into French: the cat sleeps on the chair. The French word for cat is", " chat."),
    ("Anna bought three apples, two pears and a melon at the market, and paid with", " a ten euro note."),
    ("The capital of Norway is Oslo, and the capital of Sweden is", " Stockholm."),
    ("Because the bridge was closed for repairs, the bus had to take another", " route through the town."),
    ("Review: The room was dirty, the staff were rude and the food was cold. Sentiment:", " negative"),
    ("Review: A warm, funny film with wonderful actors that I will see again. Sentiment:", " positive"),
    ("In winter the lake freezes, and the children of the village go there to", " skate on the ice."),
    ("To make tea, boil some water, pour it over the leaves, and wait for", " five minutes."),
    ("The violin, the cello and the harp are instruments with strings, but the trumpet is made of", " brass."),
    ("Tom forgot his umbrella at home, and when the rain began he became completely", " wet."),
    ("A farmer has ten sheep, and four of them run away, so now he has only", " six sheep."),
    ("The recipe needs flour, butter, sugar and four eggs to make a", " cake."),
    ("Our train leaves from platform nine at noon, so we should be at the station before", " twelve."),
    ("Water freezes at zero degrees Celsius and boils at one hundred", " degrees."),
    ("The museum is open every day except Monday, when all its doors are", " closed."),
    ("She studied medicine for six years and now works in a hospital as a", " doctor."),
    ("Dear Sir, the chair that you sent me last week is broken. I would like to have my money", " back."),
    ("The spider built its web between two branches and waited for a", " fly."),
    ("Red, blue and yellow are colours; circle, square and triangle are", " shapes."),
    ("Peter speaks English at work, Polish with his mother and Spanish with his wife, who comes from", " Spain."),
    ("The knife is sharp, so be careful when you cut the", " vegetables."),
    ("After the long drought the river was almost dry, and the fish had begun to", " die."),
    ("The moon moves around the earth, and the earth moves around the", " sun."),
    ("He opened the letter, read the first line, and began to", " cry."),
    ("Instruction: Name an animal that lives in the sea and has eight arms. Answer: The", " octopus."),
    ("The ship had lost its mast in the storm, and the sailors rowed it slowly into the", " harbour."),
    ("The teacher asked the class to open their books at page twelve and to read the first", " paragraph."),
    ("If you mix blue paint with yellow paint, the colour that you get is", " green."),
    ("The company sells garden furniture, and most of its customers buy tables and", " chairs."),
    ("The dog barked at the postman, who dropped his bag and ran down the", " street."),
    ("Gold is a metal, oak is a kind of wood, and silk is a kind of", " cloth."),
    ("The orchestra was silent until the conductor raised his", " hands."),
    ("They planted tomatoes in the spring and picked them in the", " summer."),
    ("The thief broke a window, took the jewels, and escaped before the police", " arrived."),
    ("In the morning I drink coffee with milk, and in the evening a cup of", " tea."),
)
"""Prompts and how they go on."""
