"""Facts that come from a table and a list of wordings: definitions, yes/no, poems, everyday facts."""

from __future__ import annotations

from collections.abc import Iterable

from tools.nano.corpus.reader import Fact, parse_must, read_table, wordings, words

DEFINE = wordings(
    "What is {x}?|What's {x}?|Define {x}.|Explain {x}.|What does {x} mean?|Tell me about {x}.|Can you explain {x}?"
    "|Can you explain {x} to me?|What do you mean by {x}?|Tell me what {x} is.|Explain what {x} is."
    "|What is {x} exactly?"
    "|Give me a definition of {x}.|Describe {x}.|I want to know what {x} is.|What is meant by {x}?|{x}?|{x}"
    "|What is the definition of {x}?|Do you know what {x} is?|Explain {x} in one sentence.|In short, what is {x}?"
    "|Explain {x} simply.|What is {x} in simple words?|I do not understand {x}.|Help me understand {x}."
    "|What is the meaning of {x}?|Please define {x}.|How would you define {x}?|Teach me about {x}."
    "|Give a short explanation of {x}.|What should I know about {x}?|Say what {x} is.|Explain the term {x}."
)
DEFINE_HELD_OUT = wordings(
    "Could you tell me what {x} is?|How would you explain {x} to a beginner?|I wonder what {x} is."
    "|Please explain the meaning of {x} to me.|What exactly does {x} stand for?|So, what is {x}?"
)

YESNO = wordings(
    "{q}|{q}|{q}|{q} Yes or no?|Yes or no: {q}|Answer yes or no. {q}|Tell me: {q}|Do you know? {q}|Say yes or no: {q}"
    "|I have a question. {q}|Please answer: {q}"
)
YESNO_HELD_OUT = wordings("{q} Please say yes or no.|Answer with yes or no: {q}|I would like to know: {q}")

HAIKU = wordings(
    "Write a haiku about {x}.|A haiku about {x}|Write me a haiku about {x}.|Give me a haiku about {x}.|Haiku about {x}"
    "|Can you write a haiku about {x}?|Compose a haiku on {x}.|I want a haiku about {x}.|Make a haiku about {x}."
)
HAIKU_HELD_OUT = wordings("I would like a haiku about {x}.|Could you compose a haiku about {x}?")
POEM = wordings(
    "Write a poem about {x}.|A poem about {x}|Write me a poem about {x}.|Give me a poem about {x}.|Poem about {x}"
    "|Can you write a poem about {x}?|Compose a poem on {x}.|I want a poem about {x}.|Write a short poem about {x}."
    "|Write some verses about {x}.|Write four lines about {x}."
)
POEM_HELD_OUT = wordings("I would like a poem about {x}.|Could you compose a short poem about {x}?")

CAPITALS = (
    "France:Paris;Germany:Berlin;Italy:Rome;Spain:Madrid;Portugal:Lisbon;England:London;Ireland:Dublin;Austria:Vienna"
    ";Switzerland:Bern;Belgium:Brussels;the Netherlands:Amsterdam;Denmark:Copenhagen;Sweden:Stockholm;Norway:Oslo"
    ";Finland:Helsinki;Poland:Warsaw;Hungary:Budapest;Greece:Athens;Turkey:Ankara;Russia:Moscow;Ukraine:Kyiv"
    ";China:Beijing;Japan:Tokyo;India:New Delhi;Australia:Canberra;Canada:Ottawa;Mexico:Mexico City"
    ";Brazil:Brasília;Argentina:Buenos Aires;Chile:Santiago;Peru:Lima;Egypt:Cairo;Kenya:Nairobi;Morocco:Rabat"
    ";the United States:Washington;South Korea:Seoul;Thailand:Bangkok;Vietnam:Hanoi;Cuba:Havana;Iceland:Reykjavik"
    ";Scotland:Edinburgh;Romania:Bucharest"
)
CAPITAL = wordings(
    "What is the capital of {x}?|Capital of {x}|What's the capital of {x}?|Name the capital of {x}."
    "|Which city is the capital of {x}?|Tell me the capital of {x}.|The capital of {x}?|Do you know the capital of {x}?"
    "|What is {x}'s capital?|What is the capital city of {x}?|I need the capital of {x}."
)
CAPITAL_HELD_OUT = wordings("Which capital does {x} have?|Could you name the capital of {x}?")

OPPOSITES = (
    "hot:cold;big:small;high:low;fast:slow;old:new;young:old;day:night;black:white;good:bad;happy:sad;light:dark"
    ";long:short;rich:poor;strong:weak;full:empty;open:closed;up:down;left:right;in:out;early:late;hard:soft;wet:dry"
    ";warm:cool;cold:hot;small:big;slow:fast;night:day;sad:happy;dark:light;short:long;poor:rich;weak:strong"
    ";empty:full;down:up;right:left;late:early;soft:hard;dry:wet;bad:good;white:black;near:far;far:near;yes:no;no:yes"
    ";true:false;false:true;first:last;last:first;love:hate;begin:end;win:lose;clean:dirty;thick:thin;loud:quiet"
    ";easy:difficult;cheap:expensive;safe:dangerous;sweet:sour;question:answer;friend:enemy;north:south;east:west"
)
OPPOSITE = wordings(
    "What is the opposite of {x}?|Opposite of {x}|The opposite of {x}?|What's the opposite of {x}?"
    "|Tell me the opposite of {x}.|Name the opposite of {x}.|Give me the opposite of {x}."
    "|Which word is the opposite of {x}?"
)
OPPOSITE_HELD_OUT = wordings("Do you know the opposite of {x}?|Say the opposite of {x}.")

DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
AFTER = wordings(
    "What comes after {x}?|Which {u} comes after {x}?|What {u} is after {x}?|What {u} follows {x}?|After {x} comes?"
    "|Name the {u} after {x}.|Which {u} follows {x}?"
)
AFTER_HELD_OUT = ("Tell me the {u} that comes after {x}.",)
BEFORE = wordings(
    "What comes before {x}?|Which {u} comes before {x}?|What {u} is before {x}?|Before {x} comes?"
    "|Name the {u} before {x}.|Which {u} is before {x}?"
)
BEFORE_HELD_OUT = ("Tell me the {u} that comes before {x}.",)


def _slots(templates: Iterable[str], names: Iterable[str], **more: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(t.format(x=n, **more) for t in templates for n in names))


def _with_article(name: str) -> list[str]:
    """`peer` -> `peer`, `a peer`; `LLM` -> `LLM`, `an LLM`; plural and longer names stay as they are."""
    sounds_like_vowel = name[0].lower() in "aeiou" or (name[:3].isupper() and name[0] in "LNRSMFHX")
    return [name, f"{'an' if sounds_like_vowel else 'a'} {name}"]


def definitions() -> list[Fact]:
    facts = []
    for i, (term, others, must, answer) in enumerate(read_table("terms.txt")):
        plural = [o.strip() for o in others.split(";") if o.strip()]
        names = list(dict.fromkeys(_with_article(term) + plural + [f"the {term}"]))
        main = _main_name(term, answer)
        held = [DEFINE_HELD_OUT[(i + k) % len(DEFINE_HELD_OUT)].format(x=main) for k in (0, 3)]
        facts.append(Fact("definitions", f"term-{term}", _slots(DEFINE, names), tuple(held), answer, parse_must(must)))
    return facts


def _main_name(term: str, answer: str) -> str:
    """The term with the article that its answer begins with: `An LLM is` -> `an LLM`."""
    first, _, rest = answer.partition(" ")
    return f"{first.lower()} {term}" if first in ("A", "An", "The") and rest.startswith(term.split()[0]) else term


def yes_no() -> list[Fact]:
    facts = []
    for i, (verdict, question, statement) in enumerate(read_table("yesno.txt")):
        answer = f"{verdict.capitalize()}, {statement}."
        asked = tuple(dict.fromkeys(t.format(q=question) for t in YESNO))
        held = (YESNO_HELD_OUT[i % len(YESNO_HELD_OUT)].format(q=question),) if i % 3 == 0 else ()
        facts.append(Fact("yes or no", f"yesno-{question}", asked, held, answer, parse_must(f"{verdict}, ")))
    return facts


def poems() -> list[Fact]:
    facts = []
    for i, (topic, others, haiku, poem) in enumerate(read_table("poems.txt")):
        names = [topic, *[o.strip() for o in others.split(";")]]
        for kind, asked, held, text in (
            ("haiku", HAIKU, HAIKU_HELD_OUT, haiku),
            ("poem", POEM, POEM_HELD_OUT, poem),
        ):
            lines = "\n".join(line.strip() for line in text.split(" / "))
            kept = (held[i % len(held)].format(x=topic),)
            must = ((lines.splitlines()[0].lower(),), (lines.splitlines()[-1].lower(),))
            facts.append(Fact("poems", f"{kind}-{topic}", _slots(asked, names), kept, lines, must))
    return facts


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(a, b) for a, _, b in (p.partition(":") for p in text.split(";"))]


def _simple(i: int, kind: str, x: str, y: str, answer: str, asked: tuple[str, ...], held: tuple[str, ...]) -> Fact:
    kept = (held[i % len(held)].format(x=x),) if i % 4 == 0 else ()
    return Fact("everyday", f"{kind}-{x}", _slots(asked, [x]), kept, answer, ((y.lower(),),))


def _in_order(unit: str, items: tuple[str, ...]) -> list[Fact]:
    facts = []
    for i, x in enumerate(items):
        nxt, prev = items[(i + 1) % len(items)], items[i - 1]
        for word, y, asked, held in (("after", nxt, AFTER, AFTER_HELD_OUT), ("before", prev, BEFORE, BEFORE_HELD_OUT)):
            kept = _slots(held, [x], u=unit) if i % 3 == 0 else ()
            answer = f"{y} comes {word} {x}."
            facts.append(Fact("everyday", f"{word}-{x}", _slots(asked, [x], u=unit), kept, answer, ((y.lower(),),)))
    return facts


def everyday() -> list[Fact]:
    facts = _in_order("day", DAYS) + _in_order("month", MONTHS)
    for i, (land, city) in enumerate(_pairs(CAPITALS)):
        facts.append(_simple(i, "capital", land, city, f"The capital of {land} is {city}.", CAPITAL, CAPITAL_HELD_OUT))
    for i, (a, b) in enumerate(_pairs(OPPOSITES)):
        facts.append(_simple(i, "opposite", a, b, f"The opposite of {a} is {b}.", OPPOSITE, OPPOSITE_HELD_OUT))
    return facts
