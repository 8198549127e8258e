"""What models are made for, told by their names: the texts the mesh is given for a model whose user wrote none.

Makers put the purpose into the name, so one table of patterns knows most models that are out there. The first purpose
whose pattern occurs wins; whatever is left is a general assistant. Each text is written to be told apart from the
others by its meaning, and each example as people would ask, because requests are compared with both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Purpose:
    """pattern: in a name in lower case, with `-` for any separator; what: goes on after the model's name; type: of the
    capability; general: takes whatever nothing else fits."""

    pattern: str
    what: str
    examples: tuple[str, ...]
    type: str = "chat"
    general: bool = False


EMBEDDING = Purpose(
    r"(^|-)(embed|embedding|embeddings|bge|gte|e5|minilm|mpnet|mxbai|arctic-embed|jina-embeddings|stella|labse)(-|$)",
    "turns text into vectors for semantic search, similarity, clustering, deduplication and retrieval.",
    (
        "Embed this sentence",
        "Vectors for these product titles",
        "How similar are these two texts, as a cosine",
        "Encode these passages for a search index",
        "Turn this question into an embedding",
    ),
    type="embedding",
)
GENERAL = Purpose(
    "",
    "a general assistant: questions and explanations, advice, everyday knowledge, summaries, drafting and rewriting, "
    "ideas and conversation.",
    (
        "Explain why the sky is blue",
        "What is the difference between a virus and a bacterium?",
        "Summarise this text in three sentences",
        "Write a polite e-mail that declines an invitation",
        "Help me plan a weekend in Lisbon",
        "Give me ten ideas for a birthday present",
        "what does inflation mean, in simple words",
        "Tell me something interesting",
    ),
    general=True,
)
CONTINUES = Purpose(
    "",
    "a base model without a chat format: it continues a text that is begun, and does not follow instructions.",
    (
        "Once upon a time, in a village by the sea,",
        "Continue this paragraph",
        "The three laws of thermodynamics are: 1.",
    ),
)
PURPOSES = (
    EMBEDDING,
    Purpose(
        r"(^|-)(guard|shieldgemma|moderation|safety|wildguard)",
        "judges whether a message or an answer is safe: violence, hate, self-harm, sexual content, crime, jailbreaks.",
        (
            "Is this message safe?",
            "Does this answer break the content policy?",
            "Check this prompt for a jailbreak attempt",
            "Moderate this comment",
        ),
    ),
    Purpose(
        r"sqlcoder|(^|-)(sql|text2sql|nsql)(-|$)",
        "turns questions about data into SQL, and explains, corrects and tunes queries.",
        (
            "Top ten customers by revenue last year, the tables are orders and customers",
            "Write a query that joins users with their last login",
            "Why is this SELECT so slow?",
            "Average order value per month in Postgres",
        ),
    ),
    Purpose(
        r"(^|-)(coder|code|codegen|starcoder\d*|codestral|devstral|codegemma|codellama|codeqwen|stable-code|refact|"
        r"opencoder|wizardcoder|deepcoder|yi-coder|granite-code|qwen\S*coder|swe)(-|$|\d)",
        "a programming assistant: writes, explains, debugs, reviews and refactors source code in Python, JavaScript, "
        "Java, C++, Go, Rust and other languages, reads stack traces and error messages, and writes tests and scripts.",
        (
            "Write a Python function that merges two sorted lists",
            "Why do I get a NullPointerException in this method?",
            "Refactor this class so that it can be tested",
            "My upload endpoint answers 413, what is wrong?",
            "Explain what this regular expression matches",
            "Write unit tests for this function",
            "how do I make this async in rust",
            "Review this diff",
        ),
    ),
    Purpose(
        r"(^|-)(math|mathstral|numina|acemath|deepseek-math|prover|wizardmath|rho-math|metamath|openmath)",
        "solves mathematics step by step: arithmetic, algebra, calculus, probability, geometry and proofs.",
        (
            "Solve 3x + 7 = 22",
            "Integrate x times e to the x",
            "What is the probability of two sixes in five throws?",
            "Prove that the square root of 2 is irrational",
            "17% of 2,340",
        ),
    ),
    Purpose(
        r"(^|-)(madlad|nllb|alma|tower|towerinstruct|translate|translategemma|translator|opus-mt|seamless|hunyuan-mt)",
        "translates texts between languages and keeps their meaning, tone and format.",
        (
            "Translate this to French: where is the station?",
            "How do you say thank you in Korean?",
            "Put this haiku into Finnish",
            "What does this Japanese sentence mean?",
            "Übersetze den folgenden Brief ins Englische",
        ),
    ),
    Purpose(
        r"(^|-)(med|meditron|biomistral|medgemma|biogpt|openbiollm|clinical|medical|apollo-med|meerkat)(-|$|\d)",
        "answers medical and biomedical questions: symptoms, diseases, medicines, clinical notes, exam questions.",
        (
            "What are the side effects of ibuprofen?",
            "Differential diagnosis of chest pain in a young adult",
            "Explain this lab report",
            "Summarise this discharge letter",
        ),
    ),
    Purpose(
        r"(^|-)(saul|law|legal|lawyer)(-|$|\d)",
        "answers legal questions and works with contracts, statutes and case law.",
        (
            "What does this clause oblige me to do?",
            "Notice period for a rented flat",
            "Summarise this court ruling",
            "Draft a non-disclosure agreement",
        ),
    ),
    Purpose(
        r"(^|-)(fin|finance|fingpt|finma|adaptllm-finance)(-|$|\d)",
        "answers questions about finance: markets, company reports, accounting, investments.",
        (
            "Explain the cash flow statement of this company",
            "What is a convertible bond?",
            "Sum up this earnings call",
            "Net present value of these payments",
        ),
    ),
    Purpose(
        r"functionary|gorilla|(^|-)(xlam|function|toolace|hammer|tool)(-|$|\d)",
        "calls functions and tools: picks the right one for a request and fills in its arguments as JSON.",
        (
            "Book a table for two tomorrow at eight, with these tools",
            "Which function answers this, and with what arguments?",
            "Call the weather tool for Oslo",
        ),
    ),
    Purpose(
        r"(^|-)(mytho|mythomax|stheno|storywriter|story|writer|roleplay|rp|lumimaid|fimbulvetr|novel|gutenberg|"
        r"tiefighter|psyfighter|nemomix|rocinante)",
        "writes fiction: stories, scenes, dialogue, characters, poems and role-play.",
        (
            "Write a haiku about autumn",
            "Continue my story from here",
            "Invent a villain with a motive one can understand",
            "A bedtime story about a brave snail",
            "Play an innkeeper in a fantasy town",
        ),
    ),
    Purpose(
        r"(^|-)(r1|qwq|reasoning|reasoner|thinking|magistral|marco-o1|deepthink|exaone-deep|skywork-o1|openthinker)"
        r"(-|$)",
        "a reasoning assistant that thinks before it answers: logic, planning, mathematics, science, code and hard "
        "questions of any kind.",
        (
            "Who owns the zebra? Five houses stand in a row",
            "Plan a schedule that meets all of these conditions",
            "Is this argument valid? Think it through",
            "How many trailing zeros has 100 factorial?",
            "What follows from these three premises?",
            "Explain a difficult concept in physics",
        ),
        general=True,
    ),
)
_COMPILED = tuple((re.compile(purpose.pattern), purpose) for purpose in PURPOSES)
# Names that say a model follows instructions, where its file has no chat template.
_INSTRUCTED = re.compile(
    r"(^|-)(instruct|chat|it|assistant|sft|dpo|hermes|vicuna|alpaca|zephyr|dolphin|openchat)(-|$|\d)"
)


def purpose_of(*names: str, embeds: bool = False, chats: bool = True) -> Purpose:
    """names: of the file and in its metadata; embeds: it only makes vectors; chats: it has a chat template."""
    if embeds:
        return EMBEDDING
    told = [re.sub(r"[^a-z0-9.]+", "-", name.lower()) for name in names if name]
    for pattern, purpose in _COMPILED:
        if any(pattern.search(name) for name in told):
            return purpose
    return GENERAL if chats or any(_INSTRUCTED.search(name) for name in told) else CONTINUES
