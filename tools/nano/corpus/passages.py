"""Random short passages with a key sentence, for one-sentence summaries.

A passage is a key sentence (who does what, where or when, why) followed by one to three sentences of detail. The
summary is the key sentence without its reason, so the model must find it, copy names and numbers from it, and stop.
"""

from __future__ import annotations

import random

from tools.nano.corpus.reader import wordings

WHO = wordings(
    "The city|The school|Our team|The company|The museum|The hospital|The library|The village|A small bakery"
    "|The airport"
    "|The university|A farmer|The mayor|The new teacher|A group of students|The football club|The theatre"
    "|A young doctor"
    "|The police|My neighbour|The research group|The railway|A local shop|The council|The zoo|Anna|Tom|Maria|Peter|Lena"
    "|The lab|The office|Our group|The bank|The hotel|The post office|The fire brigade|The orchestra|The gardener"
)
DOES = wordings(
    "will open a new hall|has bought ten bicycles|will close for repairs|has planted a hundred trees|started a course"
    "|has hired two engineers|won a prize|will move to a bigger house|has built a small bridge|found an old map"
    "|will sell its old machines|has changed the timetable|gave away free books|will repair the roof|wrote a report"
    "|has painted the walls blue|bought a faster server|will hold a meeting|has cancelled the concert|made a new plan"
    "|will test a smaller model|has lost an important key|will raise the prices|has lowered the prices|opened a garden"
    "|will stop using paper|has saved a lot of energy|will move its data to another machine|has trained a new model"
    "|will show a film|has found a mistake in the program|released a new version|will replace the old computers"
    "|has doubled the number of nodes|will hire more drivers|has collected old toys|will build a playground"
)
WHEN = wordings(
    "in May|in June|on Monday|on Friday|next week|next year|this summer|in the spring|at the end of the year|tomorrow"
    "|near the river|in the old town|at the station|in the north|by the sea|on the first floor|in the main street"
    "|in October|on Sunday|this winter|behind the church|in the park|in Berlin|in Rome|in London|for the third time"
)
WHY = wordings(
    "because many people asked for it|because the old one was too small|after a long discussion|to save money"
    "|because of the weather|to help young people|since nobody had time before|because the rules have changed"
    "|after a vote|to make room for more visitors|because energy has become expensive|as planned"
)
DETAIL = wordings(
    "It took a long time to agree on this.|Most people are happy about it.|The costs are not yet known."
    "|Some people do not like the idea.|More news will follow soon.|It is the first time that this happens."
    "|The local paper wrote about it.|Nobody had expected it.|Visitors are welcome.|The work was done by volunteers."
    "|A friend told me about it yesterday.|There was cake for everyone.|It rained all day.|The doors open at nine."
    "|About {n} people were there.|It cost {n} euros.|Tickets cost {n} euros.|It took {n} days."
    "|{n} people signed a letter."
    "|Everyone can help.|There are still some questions.|The old plan was dropped.|Experts say that it is a good step."
    "|Children get in for free.|The music was loud.|Two people had to wait outside.|No one was hurt."
)

ASKED = wordings(
    "Summarise this: {t}|Summarize this: {t}|Summarise this in one sentence: {t}|Summarize in one sentence: {t}"
    "|Give me a short summary: {t}|Sum this up: {t}|Write a summary of this text: {t}|{t}\nSummarise this.|TL;DR: {t}"
    "|{t}\nSummarize this in one sentence.|What is the main point of this text? {t}|Shorten this: {t}|Summary of: {t}"
    "|Summarise the following text:\n{t}|Summarize the following text in one sentence:\n{t}|Summarise: {t}"
    "|Summarize: {t}"
    "|What does this text say in short? {t}|Summarise this.\n{t}|Summarise this text. {t}|{t}\nGive me a summary."
)
HELD_OUT = wordings(
    "Please give a one-sentence summary of this text: {t}|Can you sum up the following? {t}"
    "|In one sentence, what does this say? {t}"
)


def draw(rng: random.Random) -> tuple[str, str]:
    """A random passage and its summary."""
    core = f"{rng.choice(WHO)} {rng.choice(DOES)} {rng.choice(WHEN)}"
    reason = f" {rng.choice(WHY)}" if rng.random() < 0.6 else ""
    details = [d.format(n=rng.randrange(2, 1000)) for d in rng.sample(DETAIL, rng.randrange(1, 4))]
    return " ".join([f"{core}{reason}.", *details]), f"{core}."


def question(rng: random.Random, templates: tuple[str, ...] = ASKED) -> tuple[str, str]:
    """(prompt that asks for a summary of a random passage, the summary)."""
    text, summary = draw(rng)
    return rng.choice(templates).format(t=text), summary
