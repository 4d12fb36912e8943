"""The words of `where`: a small grammar, read into conditions and never evaluated as code.

    or:        and ("or" and)*
    and:       not ("and" not)*
    not:       "not" not | "(" or ")" | condition
    condition: COLUMN | value OP value | COLUMN ["not"] "in" "(" LITERAL ("," LITERAL)* ")" | COLUMN "is" ["not"] "null"
               | COLUMN ["not"] "between" LITERAL "and" LITERAL | COLUMN ["not"] "like" TEXT

Pure. The invariant: a text is read as a whole or refused with the character at which it stops making sense, and no text
is too long or too deep for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Context, Decimal
from functools import lru_cache
from typing import Literal as OneOf
from typing import NamedTuple, NoReturn, cast

from jobs.rows.condition import (
    KEYWORDS,
    MIRRORED,
    Column,
    Compare,
    Comparing,
    Condition,
    Instant,
    IsNull,
    Like,
    Literal,
    Member,
    Not,
    Truth,
    all_of,
    any_of,
    instant,
)

_MOST_CHARACTERS = 65_536
_DEEPEST = 32  # parentheses and `not` in each other
_MOST_DIGITS, _MOST_EXPONENT = 80, 400  # of a number
_INTEGER_EXPONENT = 40  # what is whole and below 10 to this power is an integer, however it is written
_AROUND = 40  # characters shown before and behind the place of an error

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)(?![A-Za-z_0-9.])
      | (?P<word>[^\W\d]\w*)
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<sign><>|!=|<=|>=|[=<>(),.+-])""",
    re.X,
)
_HALF_NUMBER = re.compile(r"\d[\w.]*")
_OPERATORS: dict[str, Comparing] = {"=": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_INSTEAD = {"==": "=", "&&": "and", "&": "and", "||": "or", "|": "or", "!": "not", "~": "like"}

Kind = OneOf["number", "word", "text", "quoted", "sign", "end"]


class WhereError(ValueError):
    """What keeps a `where` from being used, with its place."""


class _Token(NamedTuple):
    kind: Kind
    text: str
    at: int

    @property
    def keyword(self) -> str:
        """In small letters; "" where it is none."""
        word = self.text.lower()
        return word if self.kind == "word" and word in KEYWORDS else ""

    @property
    def shown(self) -> str:
        return "the end" if self.kind == "end" else repr(self.text[:_AROUND])


@lru_cache(maxsize=64)
def parse(text: str) -> Condition:
    """raises: WhereError with the character at which the text makes no sense, and what would."""
    if len(text) > _MOST_CHARACTERS:
        raise WhereError(f"it has {len(text):,} characters; up to {_MOST_CHARACTERS:,} are read")
    return _Parser(text).whole()


def canonical(text: str) -> str:
    """The same condition in one spelling: of spaces, capitals, needless parentheses and quotes."""
    return parse(text).text


def marked(text: str, at: int, story: str) -> str:
    """`story`, and the character `at` of `text`, from 0, that it speaks of."""
    line = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    first, stop = max(line, at - _AROUND), min(len(text) if end < 0 else end, at + _AROUND)
    shown = f"{'...' if first > line else ''}{text[first:stop]}"
    before = len("..." if first > line else "") + at - first
    return f"{story}, at character {at + 1}:\n    {shown}\n    {' ' * before}^"


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise WhereError(marked(text, at, _unread(text, at)))
        if match.lastgroup != "space":
            yield _Token(cast(Kind, match.lastgroup), match[0], at)
        at = match.end()
    yield _Token("end", "", len(text))


def _unread(text: str, at: int) -> str:
    found = text[at]
    if found in "'\"":
        what = "a text" if found == "'" else "the name of a column"
        return f"found {what} that does not end; expected another {found} behind it"
    sign = next((sign for sign in _INSTEAD if text.startswith(sign, at)), "")
    if sign:
        return f"found {sign!r}; expected {_INSTEAD[sign]!r}"
    if match := _HALF_NUMBER.match(text, at):
        return f"found {match[0][:_AROUND]!r}; expected a number, or a name in double quotes"
    return f"found {found!r}; expected a column, a value or an operator"


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._tokens = text, list(_tokens(text))
        self._index = self._depth = 0

    def whole(self) -> Condition:
        condition = self._or()
        if self._next.kind != "end":
            self._refuse("'and', 'or' or the end")
        return condition

    # the pieces of the grammar

    def _or(self) -> Condition:
        conditions = [self._and()]
        while self._skip("or"):
            conditions.append(self._and())
        return any_of(conditions)

    def _and(self) -> Condition:
        conditions = [self._not()]
        while self._skip("and"):
            conditions.append(self._not())
        return all_of(conditions)

    def _not(self) -> Condition:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(self._next, f"found more than {_DEEPEST} parentheses and `not` in each other; expected fewer")
        if self._skip("not"):
            inner = self._not()
            made: Condition = inner.condition if isinstance(inner, Not) else Not(inner)
        elif self._skip("("):
            made = self._or()
            self._expect(")", "'and', 'or' or ')'")
        else:
            made = self._condition()
        self._depth -= 1
        return made

    def _condition(self) -> Condition:
        start = self._next
        first = self._value()
        op = self._operator()
        if isinstance(first, Literal):
            if op is None:
                self._refuse("a comparison: = != < <= > >=")
            other = self._value()
            if isinstance(other, Literal):
                self._fail(start, f"found {first.text} {op} {other.text}; expected a column on one side at least")
            return Compare(other, MIRRORED[op], first)
        if op is not None:
            return Compare(first, op, self._value())
        if self._skip("is"):
            negated = self._skip("not")
            self._expect("null", "'null'" if negated else "'null' or 'not null'")
            return Not(IsNull(first)) if negated else IsNull(first)
        negated = self._skip("not")
        made = self._of_column(first)
        if made is None:
            if negated:
                self._refuse("'in', 'between' or 'like'")
            return Truth(first)
        return Not(made) if negated else made

    def _of_column(self, column: Column) -> Condition | None:
        if self._skip("in"):
            return Member(column, tuple(self._list()))
        if self._skip("between"):
            low = self._literal("a value")
            self._expect("and", "'and'")
            return all_of([Compare(column, ">=", low), Compare(column, "<=", self._literal("a value"))])
        if self._skip("like"):
            if self._next.kind != "text":
                self._refuse("a text, with % for any text and _ for any character")
            return Like(column, self._literal("a text"))
        return None

    def _operator(self) -> Comparing | None:
        if self._next.kind == "sign" and (op := _OPERATORS.get(self._next.text)):
            taken = self._take()
            if op == "=" and (self._next.kind, self._next.text) == ("sign", "=") and self._next.at == taken.at + 1:
                self._fail(taken, "found '=='; expected '='")
            return op
        return None

    def _list(self) -> Iterator[Literal]:
        self._expect("(", "'('")
        yield self._literal("a value")
        while self._skip(","):
            yield self._literal("a value")
        self._expect(")", "',' or ')'")

    def _value(self) -> Column | Literal:
        if self._next.kind == "quoted" or (self._next.kind == "word" and not self._next.keyword):
            return self._column()
        if self._next.keyword in ("date", "timestamp") and self._tokens[self._index + 1].kind != "text":
            return self._column()  # a column of that name
        return self._literal("a column or a value")

    def _column(self) -> Column:
        at, parts = self._next.at, [self._part()]
        while self._skip("."):
            if self._next.kind not in ("word", "quoted"):
                self._refuse("the name of a field")
            parts.append(self._part())
        return Column(tuple(parts), at)

    def _part(self) -> str:
        token = self._take()
        return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text

    def _literal(self, expected: str) -> Literal:
        token = self._next
        if token.kind == "text":
            return Literal(_unquoted(self._take()), token.at)
        if token.kind == "number" or token.text in ("-", "+"):
            return self._number()
        if token.keyword in ("true", "false"):
            return Literal(self._take().text.lower() == "true", token.at)
        if token.keyword == "null":
            self._fail(token, "found null, which nothing is equal to; expected a value, or `is null`")
        if token.keyword not in ("date", "timestamp"):
            self._refuse(expected)
        return Literal(self._moment(self._take().keyword), token.at)

    def _moment(self, keyword: str) -> date | Instant:
        if self._next.kind != "text":
            self._refuse(f"a text behind {keyword!r}")
        made = moment(_unquoted(self._next), day=keyword == "date")
        if made is None:
            self._refuse(EXPECTED_DAY if keyword == "date" else EXPECTED_MOMENT)
        self._take()
        return made

    def _number(self) -> Literal:
        at, sign = self._next.at, ""
        if self._next.text in ("-", "+"):
            sign = self._take().text
        token = self._next
        if token.kind != "number":
            self._refuse("a number")
        digits, _, exponent = token.text.lower().partition("e")
        if len(digits) > _MOST_DIGITS or abs(int(exponent[:6] or 0)) > _MOST_EXPONENT:
            self._refuse(f"a number of up to {_MOST_DIGITS} digits and an exponent up to {_MOST_EXPONENT}")
        value = Decimal(sign + self._take().text)
        whole = value.adjusted() < _INTEGER_EXPONENT and value == value.to_integral_value()
        return Literal(int(value) if whole else value.normalize(Context(2 * _MOST_DIGITS)), at)

    # tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    def _take(self) -> _Token:
        token = self._next
        self._index += token.kind != "end"
        return token

    def _skip(self, word: str) -> bool:
        token = self._next
        found = token.keyword == word or (token.kind == "sign" and token.text == word)
        self._index += found
        return found

    def _expect(self, word: str, expected: str) -> None:
        if not self._skip(word):
            self._refuse(expected)

    def _refuse(self, expected: str) -> NoReturn:
        token = self._next
        hint = " (the name of a column stands in double quotes there)" if token.keyword and "column" in expected else ""
        self._fail(token, f"found {token.shown}; expected {expected}{hint}")

    def _fail(self, token: _Token, story: str) -> NoReturn:
        raise WhereError(marked(self._text, token.at, story))


def _unquoted(token: _Token) -> str:
    return token.text[1:-1].replace("''", "'")


EXPECTED_DAY = "a day as '2026-11-01'"
EXPECTED_MOMENT = "a moment as '2026-11-01 12:30:00', with a fraction and a zone ('Z', '+01:00') where needed"

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.A)
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(?:(:\d\d)(?:\.(\d{1,9}))?)?)?\s?(Z|[+-]\d\d:\d\d)?", re.A | re.I
)


def moment(text: str, *, day: bool) -> date | Instant | None:
    """The day, or the point in time, that an ISO text names; None where it names none."""
    read: Callable[[str], date] = date.fromisoformat if day else datetime.fromisoformat
    match = (_DAY if day else _MOMENT).fullmatch(text.strip())
    if match is None:
        return None
    try:
        if day:
            return read(match[0])
        whole = f"{match[1]}T{match[2] or '00:00'}{match[3] or ':00'}{(match[5] or '').upper()}"
        return instant(datetime.fromisoformat(whole), int((match[4] or "0").ljust(9, "0")))
    except (ValueError, OverflowError):
        return None
