"""Sentences with slot tags: the template language, and the two tagging data sets over a small grammar and over the real ones."""

import collections

import pytest

from cogkit.data import atis_like, home_assistant
from cogkit.data.folder import open_folder
from cogkit.data.tagging import write_tagged
from cogkit.data.templates import Grammar, parse_template, pick, stream
from cogkit.errors import DataError


def test_parsing():
    assert parse_template("turn [it] (on|off)") == (
        "all",
        (("text", "turn "), ("any", ("text", "it")), ("text", " "), ("one", (("text", "on"), ("text", "off")))),
    )
    assert parse_template("{a:b}{c}<d>") == ("all", (("slot", "a", "b"), ("slot", "c", "c"), ("rule", "d")))
    assert parse_template("(a|b;c)") == ("mixed", (("one", (("text", "a"), ("text", "b"))), ("text", "c")))
    for text, place in (("(a", "'\\)' at 2, got 'the end'"), ("a]", "at 1, got '\\]'"), ("{a", "an end of '{' at 0")):
        with pytest.raises(ValueError, match=place):
            parse_template(text)


def test_tags_follow_the_values():
    values = {"place": "new york", "share": "(fifty|50)", "size": "big"}
    grammar = Grammar({"go": "(fly|go)", "to": "to {place:to.city}"}, lambda name, draw: values[name], share=1.0)
    said = grammar.sample("<go> <to>, [please] from {place:from.city} {place:to.city} at {share}%[ percent]", stream(0, 0))
    assert said[1:] == [
        ("to", "O"),
        ("new", "B-to.city"),
        ("york", "I-to.city"),
        ("please", "O"),
        ("from", "O"),
        ("new", "B-from.city"),
        ("york", "I-from.city"),
        ("new", "B-to.city"),
        ("york", "I-to.city"),
        ("at", "O"),
        (said[-3][0], "B-share"),
        ("%", "O"),
        ("percent", "O"),
    ]
    assert [w for w, _ in grammar.sample("{size}-{size} light[s]", stream(0, 0))] == ["big", "big", "lights"]
    orders = {" ".join(w for w, _ in grammar.sample("(a b;c;d)", stream(0, 0, 0, k))) for k in range(99)}
    assert orders == {"a b c d", "a b d c", "c a b d", "c d a b", "d a b c", "d c a b"}
    with pytest.raises(DataError, match="expected a rule of go, to, got <nothing>"):
        grammar.sample("<nothing>", stream(0, 0))


def test_streams_are_apart():
    firsts = [stream(*place)() for place in ((0, 0), (1, 0), (0, 1), (0, 0, 1), (0, 0, 0, 1))]
    assert len(set(firsts)) == 5 and stream(0, 0)() == firsts[0]
    assert pick(lambda: 0.999999, "abc") == "c" and pick(lambda: 0.0, "abc") == "a"


def test_files(tmp_path):
    pairs = [("flight", [("to", "O"), ("boston", "B-city"), ("to", "O")]), ("fare", [("from", "O"), ("boston", "B-city")])]
    about = write_tagged(tmp_path, {"train": pairs, "test": [("code", [("to", "O"), ("new", "B-x"), ("york", "I-x")])]})
    assert (tmp_path / "query.wl").read_text().split() == ["<unk>", "BOS", "EOS", "boston", "to"]
    assert (tmp_path / "intent.wl").read_text().split() == ["code", "fare", "flight"]
    assert (tmp_path / "slots.wl").read_text().split() == ["O", "B-city", "B-x", "I-x"]
    assert (tmp_path / "train.ctf").read_text().splitlines()[:3] == [
        "0 |S0 1:1 |S1 2:1 |S2 0:1",
        "0 |S0 4:1 |S2 0:1",
        "0 |S0 3:1 |S2 1:1",
    ]
    assert (tmp_path / "test.ctf").read_text().splitlines()[2] == "0 |S0 0:1 |S2 2:1"
    assert about["test"] == {"sentences": 1, "tokens": 5, "unknown_words": 0.6667}


@pytest.fixture(scope="module", params=[atis_like, home_assistant], ids=["atis_like", "home_assistant"])
def task(request):
    try:
        return request.param, request.param.RECIPE.fetch(quiet=True)
    except DataError as error:
        pytest.skip(str(error))


def some(module, files, split, count, seed=0, part=0):
    source = module.sentences(files, seed, split, part)
    return [next(source) for _ in range(count)]


def test_real_grammars(task):
    module, files = task
    train, test = some(module, files, 0, 800), some(module, files, 1, 400)
    assert some(module, files, 0, 5) == train[:5]
    for other in (some(module, files, 0, 5, seed=1), some(module, files, 0, 5, part=1), test[:5]):
        assert other != train[:5]
    tags = collections.Counter(tag for _, sentence in train for _, tag in sentence)
    assert len(tags) > 25 and tags["O"] < 0.8 * tags.total()
    for _, sentence in train + test:
        assert sentence and all(word and word == word.lower() for word, _ in sentence)
        for (_, before), (_, tag) in zip([("", "O"), *sentence], sentence, strict=False):
            assert tag[0] != "I" or before[1:] == tag[1:]  # an inside continues its own slot


def test_cities_are_held_out():
    try:
        files = atis_like.RECIPE.fetch(quiet=True)
    except DataError as error:
        pytest.skip(str(error))

    def cities(split, count):
        return {
            word
            for _, sentence in some(atis_like, files, split, count)
            for word, tag in sentence
            if tag == "B-fromloc.airport_code"
        }

    train, test = cities(0, 3000), cities(1, 3000)
    assert 0.2 < len(test - train) / len(test) < 0.4 and len(train - test) < 0.1 * len(train)


def test_prepared_again_it_is_the_same(task, tmp_path):
    module, _ = task
    paths = [module.RECIPE.prepare(tmp_path / f"{k}.d", size, quiet=True) for k, size in enumerate(((60, 9), (60, 9), (50, 9)))]
    first, second, third = (open_folder(p, verify=True) for p in paths)
    assert first.hash == second.hash and first.about["train"]["sentences"] == 60
    assert third.about["train"]["sentences"] == 50


def test_templates_are_used_up():
    try:
        files = home_assistant.RECIPE.fetch(quiet=True)
    except DataError as error:
        pytest.skip(str(error))
    texts = [" ".join(w for w, _ in s) for _, s in some(home_assistant, files, 1, 2000)]
    assert len(set(texts)) == len(texts)
