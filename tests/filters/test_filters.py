"""The language itself, with a vocabulary of letters: what is in a word."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peerd.errors import PeerdError, Reason
from peerd.filters import Expression, Token, fault, parse
from peerd.filters.sql import Sql, to_sql


@dataclass(frozen=True)
class Has:
    """Whether a word has that letter; the unknown word (None) has none, and lacks none either."""

    letter: str
    wanted: bool

    def holds(self, word: str | None, /) -> bool:
        return word is not None and (self.letter in word) == self.wanted

    def __str__(self) -> str:
        return f"has{'=' if self.wanted else '!='}{self.letter}"


class Letters:
    """``has=x`` and ``has!=x``; a letter alone is ``has=``."""

    def compared(self, name: Token, sign: Token, value: Token) -> Has:
        if sign.text not in ("=", "!="):
            raise fault(f"takes =, not {sign.text}", sign.column)
        return Has(value.text, sign.text == "=")

    def alone(self, word: Token) -> Has:
        return Has(word.text, True)


def read(text: str) -> Expression[Has]:
    return parse(text, Letters())


def condition(one: Has) -> Sql:
    return Sql(f"(instr(w, ?) > 0) = {int(one.wanted)}", (one.letter,))


leaves = st.sampled_from(["a", "has=b", "has!=a", "has!=c", "c"])
texts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda text: f"NOT ({text})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' and '.join(some)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda some: f"({' OR '.join(some)})"),
    ),
    max_leaves=8,
)
WORDS = [None, "", "a", "b", "ab", "abc", "c"]


@given(texts)
@settings(max_examples=200, deadline=None)
def test_the_matcher_and_sql_agree_also_on_what_is_not_known(text: str) -> None:
    expression = read(text)
    assert str(read(str(expression))) == str(expression)
    where = to_sql(expression, condition)
    with closing(sqlite3.connect(":memory:")) as store:
        store.execute("CREATE TABLE words (w TEXT)")
        store.executemany("INSERT INTO words VALUES (?)", [(word,) for word in WORDS])
        found = [
            row[0] for row in store.execute(f"SELECT w FROM words WHERE {where.text} ORDER BY rowid", where.params)
        ]
    assert found == [word for word in WORDS if expression.holds(word)]


def test_values_stay_outside_the_statement() -> None:
    where = to_sql(read('"x\' OR 1=1 --" AND NOT has=y'), condition)
    assert where == Sql(
        "(((instr(w, ?) > 0) = 1) IS TRUE) AND NOT (((instr(w, ?) > 0) = 1) IS TRUE)".join("()"),
        ("x' OR 1=1 --", "y"),
    )


@pytest.mark.parametrize(
    ("text", "column"), [("has<a", 4), ("(a", 3), ("a b", 3), ("", 1), ("a AND", 6), ("!", 1), ("NOT " * 40 + "a", 129)]
)
def test_mistakes_have_a_column(text: str, column: int) -> None:
    with pytest.raises(PeerdError) as caught:
        read(text)
    assert caught.value.reason is Reason.INVALID_EXPRESSION
    assert caught.value.message.startswith(f"column {column}: ")
    assert caught.value.violations[0].field == "where"
