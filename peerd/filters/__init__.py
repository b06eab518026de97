"""One small language for asking: ``port=443 AND (product~nginx OR NOT hostname=*.example.com)``. Pure.

    or    := and ("OR" and)*
    and   := not ("AND" not)*
    not   := "NOT" not | "(" or ")" | comparison
    comparison := name operator value | word

What may be compared, and how, is a matter of whoever asks: see :class:`peerd.filters.parser.Vocabulary`.
"""

from peerd.filters.parser import MAX_DEPTH, MAX_LENGTH, Vocabulary, fault, parse
from peerd.filters.tokens import Token, quoted
from peerd.filters.tree import And, Expression, Leaf, Not, Or

__all__ = [
    "MAX_DEPTH",
    "MAX_LENGTH",
    "And",
    "Expression",
    "Leaf",
    "Not",
    "Or",
    "Token",
    "Vocabulary",
    "fault",
    "parse",
    "quoted",
]
