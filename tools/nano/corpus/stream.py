"""The corpus as an endless, seeded stream of conversations, and the held-out questions.

A conversation is drawn so: one to six turns; a topic for each turn by weight; a fact of that topic, a wording of the
fact; noise on the wording (lower case, no question mark, politeness, a typing error). Some conversations have a system
prompt, which carries no information, and some a second turn that leans on the first. A drawn wording that equals a
held-out one, case and punctuation ignored, is thrown away: so the score is on wordings never trained on.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

from tools.nano.corpus import arithmetic, copying, passages, tables
from tools.nano.corpus.noise import Noise
from tools.nano.corpus.reader import (
    Fact,
    Message,
    Question,
    lines_of,
    read_facts,
    read_table,
    read_unknown,
    wordings,
    words,
)

REFUSAL = "I am a very small model; I do not know that."
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are atmo-nano, a helpful assistant.",
    "You are a helpful, honest assistant. Answer in short.",
    "Answer briefly.",
    "You are a friendly assistant who helps with code.",
    "You are a coding assistant.",
    "You answer questions about the documents of this project.",
    "Be concise and truthful.",
    "You are a node of a mesh. Answer the question of the user.",
    "You are an expert in everything. Think before you answer.",
    "Always be polite.",
    "You are a chat model. The date is not known.",
)
# How often a turn is about a topic: by how much there is to learn and how much it matters. A guess, tuned by the score.
WEIGHTS = {
    "atmosphere": 5.0,
    "add node": 0.8,
    "small talk": 3.0,
    "definitions": 3.5,
    "yes or no": 3.0,
    "code": 3.0,
    "everyday": 3.0,
    "poems": 0.7,
    "arithmetic": 15.0,
    "summaries": 3.0,
    "copying": 9.0,
    "unknown": 4.5,
}
# After so many conversations copying is learned, and the room goes to sums, which are learned last.
LATER_AFTER = 72_000
LATER = WEIGHTS | {"arithmetic": 36.0, "copying": 2.5, "summaries": 2.5, "atmosphere": 6.0, "small talk": 4.0}
FAR_LANDS = wordings(
    "Mongolia|Nepal|Bolivia|Ghana|Senegal|Laos|Cambodia|Fiji|Oman|Qatar|Malta|Estonia|Latvia|Lithuania|Albania|Serbia"
    "|Croatia|Slovenia|Slovakia|Georgia|Armenia|Iran|Iraq|Pakistan|Bangladesh|Sri Lanka|Uganda|Tanzania|Zambia|Angola"
    "|Namibia|Mali|Niger|Chad|Sudan|Libya|Tunisia|Panama|Honduras|Jamaica|Haiti|Ecuador|Paraguay|Uruguay|Colombia"
    "|Texas|Ohio|Bavaria|Tibet|Atlantis|Narnia|Mars|Ethiopia|Somalia|Yemen|Jordan|Syria|Lebanon|Israel|Bulgaria|Moldova"
)
MUSES = wordings(
    "pizza|football|mathematics|my boss|tax|a horse|a dragon|war|Paris|a train|money|chocolate|my grandmother|elephants"
    "|a bridge|the law|coffee|a castle|time|a guitar|school|cheese|politics|a spoon|London|a pirate|shoes|the desert"
    "|bread|a ship|electricity|dinosaurs|Christmas|my car|a robot|bees|the king|an island|fear|hope|tea|my neighbour"
)
NO_SUCH_POEM = "I only know poems about a few things, such as rain, the sea, the moon or a cat."
SYLLABLES = words(
    "ba bli bor cra da dri fen flo ga glim hu jor ka klu lor mi mo nar ni plo qua ri sko ta thu tor ul ve vim wo xi zu"
)
AGAIN = wordings(
    "Say that again.|Repeat that.|Again, please.|Can you repeat that?|What did you say?|Please repeat.|Once more."
)


def normal(text: str) -> str:
    """The wording without case, spaces and punctuation that does not matter; for telling two wordings apart."""
    return re.sub(r"[\s.,!?;:'\"]+", " ", text.lower()).strip()


def all_facts() -> list[Fact]:
    return [
        *read_facts("atmosphere.txt", "atmosphere"),
        *read_facts("smalltalk.txt", "small talk"),
        *read_facts("code.txt", "code"),
        *read_facts("everyday.txt", "everyday"),
        *tables.definitions(),
        *tables.yes_no(),
        *tables.poems(),
        *tables.everyday(),
    ]


def strangers() -> tuple[list[str], list[str]]:
    """Nouns that the model does not know: (trained on, held out)."""
    kept: tuple[list[str], list[str]] = ([], [])
    for line in lines_of("strangers.txt"):
        kept[line.startswith("!")].extend(n.strip() for n in line.lstrip("! ").split("|") if n.strip())
    return kept


def held_out(seed: int = 1) -> list[Question]:
    """Every question of the score; none of these wordings is in the stream."""
    rng = random.Random(seed)
    out = [Question(f.topic, f.key, w, f.answer, f.must) for f in all_facts() for w in f.held_out]
    refusal = ((REFUSAL.lower(),),)
    out += [Question("unknown", "prompt", p, REFUSAL, refusal) for p in read_unknown()[1]]
    for i, noun in enumerate(strangers()[1]):
        text = tables.DEFINE[i % 8].format(x=noun)
        out.append(Question("unknown", "noun", text, REFUSAL, refusal))
    for op, templates in arithmetic.HELD_OUT.items():
        known = [s for s in arithmetic.small_sums() if s.op == op]
        for i, total in enumerate(rng.sample(known, 12 if op == "/" else 24)):
            text = arithmetic.wording(templates[i % len(templates)], total, i % 4 == 3)
            out.append(Question("arithmetic", op, text, total.answer, ((f"= {total.result}.",),)))
    for i in range(30):
        text, summary = passages.question(rng, (passages.HELD_OUT[i % len(passages.HELD_OUT)],))
        out.append(Question("summaries", str(i), text, summary, ((summary.lower(),),)))
    for i in range(30):
        task = copying.found(rng) if i % 2 else copying.repeated(rng, copying.REPEAT_HELD_OUT[i // 2 % 2])
        out.append(Question("copying", str(i), task[0], task[1], ((task[1].lower(),),)))
    return out


class Stream:
    """Draws conversations for ever; equal seeds give equal streams."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._noise = Noise(self._rng)
        self._drawn = 0  # conversations
        self._forbidden = {normal(q.text) for q in held_out()}
        self._facts: dict[str, list[Fact]] = {}
        for fact in all_facts():
            self._facts.setdefault(fact.topic, []).append(fact)
        self._facts["add node"] = [f for f in self._facts["atmosphere"] if f.key in ("add-node", "what-is-atmosphere")]
        self._alone = {"repeat-nothing"}
        self._unknown = read_unknown()[0]
        self._strangers = strangers()[0]
        self._summaries = read_table("summaries.txt")
        self._special: dict[str, Callable[[], tuple[str, str]]] = {
            "arithmetic": lambda: arithmetic.draw(self._rng),
            "summaries": self._summary,
            "copying": lambda: copying.draw(self._rng),
            "unknown": self._refused,
        }

    def conversations(self) -> Iterator[list[Message]]:
        while True:
            yield self.conversation()

    def conversation(self) -> list[Message]:
        rng = self._rng
        self._drawn += 1
        out: list[Message] = [("system", rng.choice(SYSTEM_PROMPTS))] if rng.random() < 0.08 else []
        if rng.random() < 0.06:
            return out + self._leaning()
        turns = 1 if rng.random() < 0.65 else rng.choice((2, 2, 2, 3, 3, 4, 6))
        turns = 14 if rng.random() < 0.002 else turns  # so that late positions of the context are learned too
        for _ in range(turns):
            question, answer = self._turn(alone=turns == 1)
            out += [("user", question), ("assistant", answer)]
            if rng.random() < 0.01:
                out += [("user", rng.choice(AGAIN)), ("assistant", answer)]
        return out

    def _turn(self, alone: bool) -> tuple[str, str]:
        rng = self._rng
        while True:
            weights = WEIGHTS if self._drawn <= LATER_AFTER else LATER
            topic = rng.choices(list(weights), list(weights.values()))[0]
            if topic in self._special:
                question, answer = self._special[topic]()
            else:
                fact = rng.choice(self._facts[topic])
                if fact.key in self._alone and not alone:
                    continue
                question, answer = rng.choice(fact.asked), fact.answer
            if topic not in self._special and rng.random() < 0.3:
                question = self._noise.framed(question)
            if topic not in ("summaries", "copying"):
                question = self._noise.surface(question, polite=topic != "small talk")
            if normal(question) not in self._forbidden:
                return question, answer

    def _summary(self) -> tuple[str, str]:
        if self._rng.random() < 0.9:
            return passages.question(self._rng)
        key, rest, summary = self._rng.choice(self._summaries)
        return self._rng.choice(passages.ASKED).format(t=f"{key} {rest}"), summary

    def _refused(self) -> tuple[str, str]:
        kind = self._rng.random()
        if kind < 0.5:
            return self._rng.choice(self._unknown), REFUSAL
        if kind < 0.56:
            return self._rng.choice(tables.CAPITAL).format(x=self._rng.choice(FAR_LANDS)), REFUSAL
        if kind < 0.62:
            template = self._rng.choice(tables.HAIKU + tables.POEM)
            return template.format(x=self._rng.choice(MUSES)), NO_SUCH_POEM
        noun = self._rng.choice(self._strangers) if kind < 0.9 else self._nonsense()
        article = self._rng.choice(("", "", "a ", "the "))
        return self._rng.choice(tables.DEFINE).format(x=article + noun), REFUSAL

    def _nonsense(self) -> str:
        return "".join(self._rng.choice(SYLLABLES) for _ in range(self._rng.randrange(2, 4)))

    def _leaning(self) -> list[Message]:
        """Two turns of which the second needs the first."""
        rng = self._rng
        kind = rng.randrange(3)
        if kind == 0:
            name = rng.choice(copying.NAMES)
            said = rng.choice(
                ("My name is {n}.", "I am {n}.", "Hello, I am {n}.", "Hi, my name is {n}.", "Call me {n}.")
            )
            asked = rng.choice(
                ("What is my name?", "Who am I?", "Do you know my name?", "What's my name?", "Tell me my name.")
            )
            told = self._noise.surface(said.format(n=name), polite=False, keep_case=True)
            return [
                ("user", told),
                ("assistant", f"Nice to meet you, {name}!"),
                ("user", asked),
                ("assistant", f"Your name is {name}."),
            ]
        if kind == 1:
            question, answer = self._turn(alone=True)
            reply = rng.choice(
                (("Thanks!", "You are welcome!"), ("Thank you.", "You are welcome!"), (rng.choice(AGAIN), answer))
            )
            return [("user", question), ("assistant", answer), ("user", reply[0]), ("assistant", reply[1])]
        first, second = rng.sample(self._facts["definitions"], 2)
        one, two = (f.key.removeprefix("term-") for f in (first, second))
        follow = rng.choice(("And {x}?", "What about {x}?", "and {x}", "And what is {x}?")).format(x=two)
        return [
            ("user", f"What is {one}?"),
            ("assistant", first.answer),
            ("user", follow),
            ("assistant", second.answer),
        ]
