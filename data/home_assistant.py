"""Home Assistant's intents: what people say to a house, sampled from its human-written templates, with slots and intents.

Generated sentences over real templates (PyPI package home-assistant-intents, English; 42 intents, 862 templates). A fifth of each
intent's templates is held out of train and makes up the test set, so a test sentence has a form that training never showed. Names of
rooms, devices and things are ours: the package leaves them to each house.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cogkit.data.recipe import Item, Recipe, Tick, WheelPackage
from cogkit.data.tagging import build_tagged
from cogkit.data.templates import Grammar, Tagged, pick, stream
from cogkit.errors import DataError

__all__ = ["RECIPE", "sentences"]

VERSION = 1  # of the generator: any change of what is drawn counts it up
TEMPLATES = Item("en.json", "0b9d606a216b1712409a3d822a8edfb9ff4458e51e421792882ea24e0ce1d456", 176965)
LONGEST = 24  # words
LISTS = {
    "area": "living room,kitchen,bedroom,master bedroom,bathroom,guest bathroom,garage,office,hallway,attic,basement,dining room,"
    "nursery,laundry room,patio,front yard,back yard,kids room,entrance,guest room,workshop,home theater,porch,balcony,study,pantry,"
    "library,music room,sun room,closet",
    "floor": "first,second,third,ground,upper,lower,top,bottom",
    "zone": "home,work,school,the gym,the office,the airport,downtown",
    "shopping_list_item": "milk,bread,eggs,olive oil,apples,peanut butter,coffee,paper towels,toilet paper,rice,green tea,cheese,"
    "tomatoes,chicken breast,orange juice,dish soap,dog food,frozen pizza,batteries,birthday card",
    "todo_list_item": "call the plumber,pay rent,water the plants,walk the dog,clean the oven,book a table,renew the passport,"
    "fix the bike,return library books,send the report",
    "message": "dinner is ready,time to go,the bus leaves in ten minutes,come downstairs,i am home,movie night starts now,"
    "lunch is on the table,please be quiet",
    "search_query": "the beatles,miles davis,abba,johnny cash,nina simone,pink floyd,bach,taylor swift,fleetwood mac,daft punk",
    "timer_name": "pizza,laundry,egg,tea,homework,workout,pasta,nap",
    "timer_command": "turn off the lights,open the blinds,start the vacuum,lock the front door,close the garage door",
}
PLACES = """left right ceiling floor desk reading night main small big old front back upper lower corner tall red tv bed stair garden
pool window"""
DEVICES = """lamp light fan blinds curtain door lock heater thermostat sprinkler speaker television switch outlet vacuum shutter valve
camera sensor radiator strip chandelier coffee_machine air_conditioner"""
NUMBERS = """one two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty sixty seventy eighty
ninety"""


def _values(lists: dict[str, Any]) -> Callable[[str, Callable[[], float]], str]:
    ours = {name: text.split(",") for name, text in LISTS.items()}
    places, devices, numbers = PLACES.split(), [d.replace("_", " ") for d in DEVICES.split()], NUMBERS.split()

    def value(name: str, draw: Callable[[], float]) -> str:
        if name in ours:
            return pick(draw, ours[name])
        if name == "name":
            area = pick(draw, ours["area"]) + " " if draw() < 0.3 else ""
            return area + (pick(draw, places) + " " if draw() < 0.6 else "") + pick(draw, devices)
        known = lists.get(name)
        if not isinstance(known, dict) or not {"values", "range"} & set(known):
            raise DataError(f"home_assistant: expected a list of the package or of LISTS, got '{name}'")
        if "values" in known:
            chosen = pick(draw, known["values"])
            return chosen["in"] if isinstance(chosen, dict) else chosen
        r = known["range"]
        number = pick(draw, range(r["from"], r["to"] + 1, r.get("step", 1)))
        return str(number) if draw() < 0.6 else pick(draw, numbers)

    return value


def sentences(files: dict[str, Path], seed: int, split: int, part: int = 0) -> Iterator[tuple[str, Tagged]]:
    """(intent, sentence) without end, none twice; split 0 train, 1 test; another `part`, other sentences of the split."""
    known = json.loads(files[TEMPLATES.name].read_text(encoding="utf-8"))
    grammar = Grammar(known["expansion_rules"], _values(known["lists"]))
    held = stream(seed, 2, 0)
    templates: dict[str, list[str]] = {}
    for intent, body in sorted(known["intents"].items()):
        of_intent = sorted(sorted({t for block in body["data"] for t in block["sentences"]}), key=lambda _: held())
        cut = len(of_intent) - len(of_intent) // 5
        templates[intent] = of_intent[:cut] if split == 0 else of_intent[cut:]
    # Intents by the root of their templates: some have a hundred, some one.
    names = [name for name in templates if templates[name]]
    weights = [len(templates[name]) ** 0.5 for name in names]
    draw, seen, idle = stream(seed, split, 1 + part), set(), 0
    while idle < 10000:
        at, intent = draw() * sum(weights), names[-1]
        for name, weight in zip(names, weights, strict=True):
            at -= weight
            if at < 0:
                intent = name
                break
        sentence = grammar.sample(pick(draw, templates[intent]), draw)
        text = " ".join(word for word, _ in sentence)
        idle += 1
        if 2 <= len(sentence) <= LONGEST and text not in seen:
            seen.add(text)
            idle = 0
            yield intent, sentence
    raise DataError(f"home_assistant: expected more than {len(seen)} sentences, but the templates have no more to give")


def build(files: dict[str, Path], out: Path, train: int, test: int, generator: dict[str, Any], tick: Tick) -> None:
    build_tagged(RECIPE, sentences, files, out, train, test, generator, tick)


RECIPE = Recipe(
    name="home_assistant",
    title="Sentences sampled from Home Assistant's human-written templates, slots and intents (generated)",
    licence="templates Apache-2.0 (Home Assistant)",
    items=(TEMPLATES,),
    routes=(WheelPackage(("home-assistant-intents==2026.10.27",)),),
    sizes={"quick": (4978, 893), "full": (20000, 2000)},
    build=build,
    version=VERSION,
    folder=True,
)
