"""The page for those who come from CNTK says of every name of CNTK what is so today, and why what is not here is not."""

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
spec = importlib.util.spec_from_file_location("coming_from_cntk", DOCS / "coming_from_cntk.py")
coming = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coming)


@pytest.fixture(scope="module")
def entries():
    return coming.entries()


def test_the_page_is_what_the_code_says(entries):
    assert coming.PAGE.read_text(encoding="utf-8") == coming.page(entries), "make docs writes it anew"


def test_what_is_not_here_has_a_reason(entries):
    assert not [e.name.full for e in entries if e.status == "not here" and not e.note]


def test_notes_are_of_names_that_cntk_has(entries):
    known = {e.name.full for e in entries}
    groups = {f"{e.name.module}.*" for e in entries} | {f"{e.name.module}.{e.name.name.split('.')[0]}.*" for e in entries}
    assert not [n for n in coming.read_notes() if n not in known | groups]


def test_notes_that_say_not_here_are_right(entries):
    there = [e for e in entries if e.status == "not here" and coming.find(e.name) is not coming._NOTHING]
    assert not [e.name.full for e in there]


@pytest.mark.parametrize(
    ("signature", "ours", "note"),
    [
        ("(x, name='')", lambda x, name="": 0, ""),
        ("(x, name='')", lambda x, name="", more=1: 0, ""),
        ("(x, name='')", lambda y, name="": 0, "arguments: `(y, name='')`"),
        ("(x, axis=None)", lambda x, axis=0: 0, "default of `axis`: `0`, CNTK's `None`"),
        ("(x, strides=(1,))", lambda x, strides=1: 0, ""),
        ("(x)", lambda x, more: 0, "arguments: `(x, more)`"),
        ("(x, y=2)", lambda x, y: 0, "`y` must be given"),
        ("(*args, **kwargs)", lambda x: 0, ""),
        ("(x, init=<Dictionary>, shape=[1, 2])", lambda x, init=None, shape=(1, 2): 0, ""),
    ],
)
def test_arguments_are_compared(signature, ours, note):
    assert coming.compare(coming.Name("cntk", "f", "function", signature), ours) == note
