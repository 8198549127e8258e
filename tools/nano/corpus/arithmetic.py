"""Small sums: every pair 0..20 for plus and minus, 0..12 for times, exact quotients, and two-digit plus and minus.

The answer is the whole equation, `2 + 2 = 4.`, also when the question is in words: so the model writes the operands
down as digits before it computes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.nano.corpus.reader import wordings, words

UNITS = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
    " eighteen nineteen"
)
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")

ASKED = {
    "+": wordings(
        "What is {a}+{b}?|What is {a} + {b}?|{a}+{b}|{a} + {b}|{a}+{b}=|{a} + {b} = ?|{a}+{b}?|What's {a}+{b}?"
        "|What's {a} + {b}?|How much is {a}+{b}?|How much is {a} + {b}?|Compute {a} + {b}.|Calculate {a}+{b}."
        "|What is {a} plus {b}?|How much is {a} plus {b}?|{a} plus {b}|Add {a} and {b}.|What is the sum of {a} and {b}?"
        "|What do you get if you add {a} and {b}?|What does {a} + {b} equal?|What does {a}+{b} make?|Solve {a} + {b}."
        "|Can you add {a} and {b}?|{a} and {b} makes?|Tell me {a} + {b}.|what is {a}+{b}|Sum of {a} and {b}"
        "|I have {a} apples and get {b} more. How many apples do I have?|What is the result of {a} + {b}?"
        "|There are {a} cats and {b} more come. How many cats are there?|Do you know what {a}+{b} is?|{a} + {b} is?"
    ),
    "-": wordings(
        "What is {a}-{b}?|What is {a} - {b}?|{a}-{b}|{a} - {b}|{a}-{b}=|{a} - {b} = ?|{a}-{b}?|What's {a}-{b}?"
        "|What's {a} - {b}?|How much is {a}-{b}?|How much is {a} - {b}?|Compute {a} - {b}.|Calculate {a}-{b}."
        "|What is {a} minus {b}?|How much is {a} minus {b}?|{a} minus {b}|Subtract {b} from {a}.|Take {b} from {a}."
        "|What is the difference of {a} and {b}?|What does {a} - {b} equal?|Solve {a} - {b}.|Tell me {a} - {b}."
        "|What is the result of {a} - {b}?|Do you know what {a}-{b} is?|{a} - {b} is?|What is {a} less {b}?"
        "|I have {a} apples and eat {b}. How many apples are left?"
    ),
    "*": wordings(
        "What is {a}*{b}?|What is {a} * {b}?|{a}*{b}|{a} * {b}|{a}*{b}=|{a} * {b} = ?|{a}*{b}?|What's {a}*{b}?"
        "|What's {a} * {b}?|How much is {a}*{b}?|How much is {a} * {b}?|Compute {a} * {b}.|Calculate {a}*{b}."
        "|What is {a} times {b}?|How much is {a} times {b}?|{a} times {b}|Multiply {a} by {b}.|Multiply {a} and {b}."
        "|What is the product of {a} and {b}?|What does {a} * {b} equal?|Solve {a} * {b}.|Tell me {a} * {b}."
        "|What is {a}x{b}?|What is {a} x {b}?|{a}x{b}|{a} × {b}|What is the result of {a} * {b}?|{a} * {b} is?"
        "|What is {a} multiplied by {b}?|I have {a} bags with {b} apples each. How many apples do I have?"
    ),
    "/": wordings(
        "What is {a}/{b}?|What is {a} / {b}?|{a}/{b}|{a} / {b}|{a}/{b}=|What's {a}/{b}?|How much is {a}/{b}?"
        "|What is {a} divided by {b}?|How much is {a} divided by {b}?|{a} divided by {b}|Divide {a} by {b}."
        "|Compute {a} / {b}.|What is the quotient of {a} and {b}?|What is {a} : {b}?|{a} ÷ {b}"
    ),
}
HELD_OUT = {
    "+": wordings(
        "Could you work out {a} plus {b} for me?|If I add {b} to {a}, what do I get?|Please compute the sum {a}+{b}."
        "|I want to know how much {a} + {b} is.|Give me the sum of {a} and {b}."
    ),
    "-": wordings(
        "Could you work out {a} minus {b} for me?|If I take {b} away from {a}, what is left?"
        "|Please compute the difference {a}-{b}.|I want to know how much {a} - {b} is."
    ),
    "*": wordings(
        "Could you work out {a} times {b} for me?|If I multiply {a} by {b}, what do I get?"
        "|Please compute the product {a}*{b}.|I want to know how much {a} * {b} is."
    ),
    "/": wordings("Could you work out {a} divided by {b} for me?|If I divide {a} by {b}, what do I get?"),
}
BIGGER = wordings(
    "Is {a} bigger than {b}?|Is {a} greater than {b}?|Is {a} more than {b}?|Is {a} larger than {b}?|Is {a} > {b}?"
    "|Yes or no: is {a} bigger than {b}?"
)
WHICH = wordings(
    "Which is bigger, {a} or {b}?|Which number is bigger, {a} or {b}?|What is more, {a} or {b}?"
    "|{a} or {b}, which is bigger?"
    "|Which is larger, {a} or {b}?|Which number is greater: {a} or {b}?"
)
EVEN = wordings(
    "Is {a} even?|Is {a} an even number?|Is the number {a} even?|Even or odd: {a}?|Is {a} even or odd?"
    "|Is {a} odd or even?"
)
TOO_BIG = "That is too hard for me. I am a very small model and only do small sums."
_COMPUTE = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


@dataclass(frozen=True)
class Sum:
    a: int
    op: str
    b: int

    @property
    def result(self) -> int:
        return _COMPUTE[self.op](self.a, self.b)

    @property
    def answer(self) -> str:
        return f"{self.a} {self.op} {self.b} = {self.result}."


def in_words(n: int) -> str:
    """0..99 in English: 21 -> `twenty-one`."""
    if n < 20:
        return UNITS[n]
    tens, unit = divmod(n, 10)
    return TENS[tens - 2] + (f"-{UNITS[unit]}" if unit else "")


def small_sums() -> list[Sum]:
    """Every small sum that the model is meant to know."""
    twenty, twelve = range(21), range(13)
    sums = [Sum(a, op, b) for op in "+-" for a in twenty for b in twenty]
    sums += [Sum(a, "*", b) for a in twelve for b in twelve]
    return sums + [Sum(a * b, "/", b) for a in twelve for b in range(1, 13)]


_SMALL = small_sums()


def draw(rng: random.Random) -> tuple[str, str]:
    """A random question and its answer: mostly a small sum, else two digits, rarely one that is too big."""
    kind = rng.random()
    if kind < 0.05:
        return _too_big(rng)
    if kind < 0.13:
        return _compared(rng)
    if kind < 0.42:
        a, b = rng.randrange(100), rng.randrange(100)
        op = rng.choice("++-")
        total = Sum(max(a, b), op, min(a, b)) if op == "-" else Sum(a, op, b)
    else:
        total = rng.choice(_SMALL)
    return wording(rng.choice(ASKED[total.op]), total, rng.random() < 0.2), total.answer


def _compared(rng: random.Random) -> tuple[str, str]:
    """Which of two numbers below 100 is bigger, or whether one is even."""
    a, b = rng.sample(range(rng.choice((21, 100))), 2)
    kind = rng.randrange(3)
    if kind == 0:
        answer = f"Yes, {a} is bigger than {b}." if a > b else f"No, {a} is smaller than {b}."
        return rng.choice(BIGGER).format(a=a, b=b), answer
    if kind == 1:
        return rng.choice(WHICH).format(a=a, b=b), f"{max(a, b)} is bigger than {min(a, b)}."
    template = rng.choice(EVEN)
    open_question = "odd" in template
    if a % 2 == 0:
        return template.format(a=a), f"{a} is even." if open_question else f"Yes, {a} is even."
    return template.format(a=a), f"{a} is odd." if open_question else f"No, {a} is odd."


def wording(template: str, total: Sum, words: bool) -> str:
    """The question; `words` writes the operands as words where the template has no sign between them."""
    bare = (
        not any(sign in template.replace("{a}", "").replace("{b}", "") for sign in "+-*/=:÷×")
        and "{a}x" not in template
    )
    if words and bare and max(total.a, total.b) < 100:
        return template.format(a=in_words(total.a), b=in_words(total.b))
    return template.format(a=total.a, b=total.b)


def _too_big(rng: random.Random) -> tuple[str, str]:
    """A sum outside of what the model knows: more than two digits, factors above 12, quotients that are not whole."""
    op = rng.choice("+-**/")
    a, b = rng.randrange(100, 10 ** rng.randrange(3, 6) + 1), rng.randrange(1, 10_000)
    if op == "*" and rng.random() < 0.6:
        a, b = rng.randrange(13, 100), rng.randrange(2, 100)
    if op == "/" and rng.random() < 0.6:
        b = rng.randrange(2, 13)
        a = b * rng.randrange(1, 13) + rng.randrange(1, b)
    if op != "/" and rng.random() < 0.3:
        a, b = b, a
    return rng.choice(ASKED[op]).format(a=a, b=b), TOO_BIG
