"""Which capabilities would serve an intent as well as the one that it names: such a pair is neither right nor wrong.

`OVERLAPS` holds both ways. `SPECIALISTS` holds one way: an intent written for a general type may as well go to a
specialist that was written later, but an intent of the specialist asks for just that, and the general type is wrong.
"""

from __future__ import annotations

GENERAL_CHAT = "general-chat"

OVERLAPS: dict[str, tuple[str, ...]] = {
    # Type of a model -> capabilities of organisations.
    GENERAL_CHAT: ("travel-planner", "deep-research-agent", "negotiation-coach", "maths-tutor", "saffron-rye-recipes"),
    "coding": (
        *("code-review-agent", "unit-test-runner", "tallyo-source"),
        *("regex-building", "unit-test-writing", "code-porting", "api-docs-writing"),
    ),
    "maths-reasoning": ("maths-tutor",),
    "geospatial": ("route-planner",),
    "forecasting": ("nordgrund-yield-forecast", "aldermere-roof-weather", "metrics-query"),
    "chemistry": ("kessler-safety-sheets", "marlow-lab-protocols"),
    "legal-drafting": ("court-rulings",),
    "rewriting": ("mail-drafts", "kestrel-style-guide"),
    "creative-writing": ("mail-drafts", "emberfall-lore-bible", "ad-copy"),
    "image-understanding": ("site-cameras", "image-captioning"),
    "image-generation": ("emberfall-asset-vault",),
    "sql-data": ("metrics-query", "log-search", "schema-design"),
    "data-visualisation": ("metrics-query",),
    "yes-no": ("kestrel-fact-checker",),
    "medical-coding": ("pathology-archive",),
    "shell-sysadmin": ("ci-pipelines", "log-search"),
    # Later types and tools -> capabilities of organisations, and one another.
    "email-writing": ("mail-drafts", "payment-reminders"),
    "inbox-triage": ("mail-drafts",),
    "reply-suggestion": ("mail-drafts", "email-writing"),
    "calendar-booking": ("team-calendar",),
    "heating-control": ("home-automation",),
    "light-scenes": ("home-automation",),
    "access-control": ("home-automation", "service-desk-tickets"),
    "indoor-climate": ("home-automation", "hollin-vault-climate"),
    "power-metering": ("home-automation", "moorau-meter-readings"),
    "water-leak-detection": ("moorau-meter-readings",),
    "solar-monitoring": ("moorau-meter-readings",),
    "electricity-prices": ("moorau-tariffs",),
    "ticket-routing": ("service-desk-tickets",),
    "route-timetable": ("route-planner", "travel-planner", "talbahn-train-status"),
    "hotel-search": ("travel-planner",),
    "flight-status": ("fennmoor-flight-board", "travel-planner"),
    "kubernetes-operations": ("ci-pipelines", "metrics-query", "log-search"),
    "network-monitoring": ("metrics-query",),
    "anomaly-detection": ("metrics-query",),
    "code-review": ("code-review-agent",),
    "web-search": ("deep-research-agent", "news-digest", "sports-results", "product-search"),
    "citation-finding": ("deep-research-agent", "battery-papers", "castellan-theses"),
    "news-digest": ("deep-research-agent", "kestrel-wire-monitor"),
    "interview-preparation": ("negotiation-coach",),
    "quiz-making": ("maths-tutor",),
    "people-counting": ("site-cameras",),
    "doorbell-camera": ("site-cameras",),
    "safety-gear-detection": ("site-cameras",),
    "parking-finder": ("site-cameras",),
    "statute-lookup": ("court-rulings", "building-regulations", "tax-guidance", "citizen-services"),
    "structural-analysis": ("building-regulations",),
    "bookkeeping": ("tax-guidance",),
    "payroll-run": ("tax-guidance",),
    "policy-handbook-qa": ("nordwell-hr-handbook",),
    "contract-archive-qa": ("rheintal-purchase-contracts",),
    "medical-guideline-qa": ("st-brannoc-clinical-guidelines", "aurel-interaction-checker", "patient-leaflets"),
    "product-manual-qa": ("machinery-ring-manuals", "veltra-appliance-manuals", "skerry-aircraft-manuals"),
    "ticket-archive-qa": ("tallyo-support-history",),
    "weather-forecast": ("aldermere-roof-weather",),
    "irrigation-control": ("birkenau-soil-probes",),
    "recipe-finding": ("saffron-rye-recipes",),
    "allergen-check": ("saffron-rye-recipes",),
    "deepfake-detection": ("kestrel-fact-checker",),
    "complaint-handling": ("talbahn-delay-claims",),
    "form-filling": ("eichstedt-return-assistant",),
    "symptom-triage": ("skin-lesion-check",),
    "gift-advice": ("product-search",),
}

SPECIALISTS: dict[str, tuple[str, ...]] = {
    GENERAL_CHAT: (
        *("symptom-triage", "lab-explaining", "recipe-finding", "meal-planning", "nutrition-facts", "gift-advice"),
        *("trivia-quiz", "quiz-making", "language-tutor", "workout-planning", "interview-preparation", "email-writing"),
        *("budget-planning", "unit-conversion", "plant-disease", "playlist-curation", "web-search", "citizen-services"),
        *("sports-results", "event-planning", "materials-lookup", "product-search", "statute-lookup", "ad-copy"),
        *("lesson-planning", "text-simplification", "product-manual-qa", "crossword-solving"),
    ),
    "coding": ("code-review", "commit-messages", "vulnerability-scan", "schema-design", "kubernetes-operations"),
    "summarisation": ("meeting-minutes", "text-simplification", "clinical-letters", "keyword-extraction"),
    "translation": ("speech-translation", "language-identification", "language-tutor", "glossary-building"),
    "rewriting": ("text-simplification", "email-writing", "ad-copy", "job-ad-writing", "language-tutor"),
    "creative-writing": ("game-master", "email-writing", "event-planning"),
    "maths-reasoning": (
        *("mortgage-calculation", "unit-conversion", "ab-test-statistics", "structural-analysis", "circuit-design"),
    ),
    "sql-data": ("data-cleaning", "anomaly-detection", "ab-test-statistics", "tabular-prediction", "duplicate-finding"),
    "spreadsheet-formulas": ("data-cleaning",),
    "forecasting": ("tabular-prediction", "anomaly-detection"),
    "json-extraction": ("invoice-capture", "cv-parsing", "table-extraction", "named-entities"),
    "text-embedding": ("duplicate-finding", "visual-search", "faq-matching"),
    "reranking": ("candidate-matching", "faq-matching"),
    "yes-no": ("content-moderation", "spam-phishing-detection", "allergen-check", "topic-classification"),
    "sentiment-toxicity": ("content-moderation", "survey-analysis", "call-scoring", "spam-phishing-detection"),
    "image-understanding": (
        *("table-extraction", "handwriting-reading", "barcode-reading", "pdf-to-markdown", "plant-identification"),
        *("skin-lesion-check", "radiology-reading", "plant-disease", "wildlife-camera", "people-counting"),
        *("safety-gear-detection", "doorbell-camera", "invoice-capture", "satellite-imagery", "parking-finder"),
    ),
    "image-generation": ("photo-editing", "logo-vectorising"),
    "speech-to-text": ("speech-translation", "speaker-diarisation", "subtitle-timing"),
    "text-to-speech": ("voice-cloning",),
    "sound-recognition": ("bird-song-identification", "vibration-monitoring"),
    "geospatial": ("route-timetable", "parking-finder", "ev-charging", "satellite-imagery"),
    "chemistry": ("materials-lookup",),
    "legal-drafting": ("contract-review", "email-writing"),
    "shell-sysadmin": ("network-monitoring", "backup-control", "kubernetes-operations", "regex-building"),
    "music-theory": ("chord-recognition",),
    "mail-drafts": ("email-writing",),
}


def overlapping(asked: str, other: str) -> bool:
    """Whether `other` may serve the intents of `asked` as well."""
    both = other in OVERLAPS.get(asked, ()) or asked in OVERLAPS.get(other, ())
    return both or other in SPECIALISTS.get(asked, ())
