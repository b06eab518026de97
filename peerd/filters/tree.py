"""What an expression is: comparisons of some subject, joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, Union


class Leaf(Protocol):
    """One comparison."""

    def holds(self, subject: Any, /) -> bool:
        """Whether the subject has what is asked."""
        ...


C = TypeVar("C", bound=Leaf, covariant=True)


@dataclass(frozen=True, slots=True)
class Not(Generic[C]):
    """The opposite."""

    of: Expression[C]

    def holds(self, subject: Any, /) -> bool:
        return not self.of.holds(subject)

    def __str__(self) -> str:
        return f"NOT {_wrapped(self.of)}"


@dataclass(frozen=True, slots=True)
class And(Generic[C]):
    """All of them."""

    parts: tuple[Expression[C], ...]

    def holds(self, subject: Any, /) -> bool:
        return all(part.holds(subject) for part in self.parts)

    def __str__(self) -> str:
        return " AND ".join(_wrapped(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Or(Generic[C]):
    """Any of them."""

    parts: tuple[Expression[C], ...]

    def holds(self, subject: Any, /) -> bool:
        return any(part.holds(subject) for part in self.parts)

    def __str__(self) -> str:
        return " OR ".join(_wrapped(part) for part in self.parts)


Expression = Union[C, Not[C], And[C], Or[C]]  # noqa: UP007 - a generic alias of a type variable has no other spelling


def _wrapped(expression: Leaf) -> str:
    return f"({expression})" if isinstance(expression, And | Or) else str(expression)
