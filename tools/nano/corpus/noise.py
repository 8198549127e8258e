"""Other ways to say the same: frames for common beginnings, politeness, lower case, missing marks, typing errors.

A wording of the corpus passes through here each time it is drawn, so that the model meets most facts in a new form
each time and learns what matters in a question.
"""

from __future__ import annotations

import random
import re

from tools.nano.corpus.reader import wordings

# Beginning -> other sentences with the rest of it in place of {x}.
FRAMES = {
    "How do I ": wordings(
        "How can I {x}?|How to {x}?|How do you {x}?|How does one {x}?|Show me how to {x}.|Tell me how to {x}."
        "|I want to {x}.|I would like to {x}.|Explain how to {x}.|How should I {x}?|What do I need to do to {x}?"
        "|Is there a way to {x}?|I need to {x}.|Help me {x}.|Can you tell me how to {x}?|How do we {x}?"
        "|I do not know how to {x}."
        "|What is the best way to {x}?|Can I {x}?|How could I {x}?|Do you know how to {x}?|I am trying to {x}."
        "|What must I do to {x}?"
    ),
    "Write ": wordings(
        "Can you write {x}?|I need {x}.|Give me {x}.|Show me {x}.|Please write {x}.|Create {x}.|I want {x}.|Make {x}."
        "|Code for {x}|Could I have {x}?|Write me {x}.|Produce {x}.|Generate {x}."
    ),
    "What is ": wordings(
        "What exactly is {x}?|Tell me: what is {x}?|Do you know what is {x}?|what's {x}|I ask: what is {x}?"
        "|So what is {x}?"
        "|May I ask what is {x}?|Please tell me what is {x}.|What, please, is {x}?"
    ),
    "Which command ": wordings(
        "What command {x}?|Which atmo command {x}?|Is there a command that {x}?|Tell me which command {x}."
        "|I need the command that {x}.|Name the command that {x}."
    ),
    "How does ": wordings("Explain how {x}.|Tell me how {x}.|In what manner does {x}?|Do you know how {x}?"),
    "Explain ": wordings("Can you explain {x}?|Please explain {x}.|Could you explain {x}?|I need you to explain {x}."),
    "Show me ": wordings("Can you show me {x}?|Let me see {x}.|Please show me {x}.|I want to see {x}.|Display {x}."),
    "What happens ": wordings(
        "Tell me what happens {x}.|What will happen {x}?|Explain what happens {x}.|What takes place {x}?"
    ),
    "Is ": wordings("Tell me, is {x}?|Do you think: is {x}?|I wonder: is {x}?|Say, is {x}?"),
    "Can I ": wordings("May I {x}?|Is it possible to {x}?|Could I {x}?|Am I able to {x}?|Can one {x}?|Can we {x}?"),
    "What does ": wordings("Tell me what does {x}?|Do you know what does {x}?"),
}
FIRST = wordings(
    "Please |Hey, |Hi, |Hello, |Hi! |Hello! |Quick question: |Question: |Tell me, |Can you tell me: |So, |Ok, |And "
    "|Well, "
    "|I have a question. |One more question: |Atmo, |Now: |Say, |Excuse me, |Could you help me? |Sorry, "
)
LAST = wordings(" please| Please.| Thanks.| Thank you!| Thanks in advance.|, please| ok?| Can you help?| now")


class Noise:
    """Draws another form of a wording; equal random states give equal forms."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def framed(self, text: str) -> str:
        """The wording in another frame, where its beginning has one."""
        for begin, frames in FRAMES.items():
            rest = text[len(begin) :].rstrip("?.!")
            if text.startswith(begin) and not re.search(r"[.?!\n]", rest):
                return self._rng.choice(frames).format(x=rest)
        return text

    def surface(self, text: str, polite: bool, keep_case: bool = False) -> str:
        """Politeness around the wording, other case and marks, now and then a typing error or stray spaces."""
        rng = self._rng
        if polite and rng.random() < 0.12:
            text = rng.choice(FIRST) + (text if rng.random() < 0.5 else text[0].lower() + text[1:])
        if polite and rng.random() < 0.05:
            text = text + rng.choice(LAST)
        if rng.random() < 0.08:
            text = text.replace("What is ", rng.choice(("What's ", "whats ")))
        text = self._marks(text)
        if not keep_case:
            text = self._case(text)
        if rng.random() < 0.03:
            text = self._slip(text)
        if rng.random() < 0.02:
            text = rng.choice((" ", "", "  ")) + text + rng.choice((" ", "  ", ""))
        return text

    def _marks(self, text: str) -> str:
        chance = self._rng.random()
        if chance < 0.22:
            return text.rstrip("?.!")
        if chance < 0.25:
            return text.rstrip("?.!") + self._rng.choice(("??", " ?", "!", "...", ".", "?!"))
        return text

    def _case(self, text: str) -> str:
        chance = self._rng.random()
        if chance < 0.2:
            return text.lower()
        return text.upper() if chance < 0.22 else text

    def _slip(self, text: str) -> str:
        """One typing error: two neighbouring letters of a long word swapped, or one left out."""
        places = [m.start() + 1 for m in re.finditer(r"[A-Za-z]{5,}", text)]
        if not places:
            return text
        at = self._rng.choice(places) + self._rng.randrange(2)
        swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return swapped if self._rng.random() < 0.5 else text[:at] + text[at + 1 :]
