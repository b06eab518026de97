"""The same expression as a condition in SQL. Values are bound, never written into the text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from peerd.filters.tree import And, Expression, Leaf, Not, Or

C = TypeVar("C", bound=Leaf)


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition with ``?`` where its parameters belong."""

    text: str
    params: tuple[object, ...] = ()


def to_sql(expression: Expression[C], leaf: Callable[[C], Sql]) -> Sql:
    """The condition. Each comparison is true or false, never NULL, so that NOT means the same as in Python."""
    if isinstance(expression, Not):
        inside = to_sql(expression.of, leaf)
        return Sql(f"NOT {inside.text}", inside.params)
    if isinstance(expression, And | Or):
        parts = [to_sql(part, leaf) for part in expression.parts]
        word = " AND " if isinstance(expression, And) else " OR "
        return Sql(
            f"({word.join(part.text for part in parts)})", tuple(value for part in parts for value in part.params)
        )
    found = leaf(expression)
    return Sql(f"(({found.text}) IS TRUE)", found.params)
