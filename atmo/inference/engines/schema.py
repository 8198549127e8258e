"""JSON schema as a grammar, so that a model can write nothing else than what fits.

Theory of operation. Each place of the schema becomes a rule; a place that is referred to becomes one rule, however
often it is, so recursive schemas work. Properties come in the schema's order. A grammar cannot count or compare, so
some keywords are known but not held: `pattern`, `format`, bounds of numbers, `uniqueItems`, `not`, `if`. What is no
JSON schema at all is refused. Both engines are given the grammar that is made here: their own converters differ, and
one of them takes a schema it does not understand for none.

Keywords: json-schema.org/draft/2020-12, core and validation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from atmo.errors import UsageError
from atmo.inference.engines.gbnf import MAX_REPEATS

MAX_SCHEMA_CHARS = 128 << 10  # a guess: large generated schemas have 20,000
_MAX_NESTING = 64  # a guess
# Between the parts a model may put one blank, or start a line: without bounds small models write blanks for ever.
_COMMON = {
    "ws": r'" "? | "\n" [ \t]{0,40}',
    "char": r'[^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\""',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": r'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?',
    "boolean": r'"true" | "false"',
    "null": r'"null"',
    "value": "object | array | string | number | boolean | null",
    "object": r'"{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"',
    "array": r'"[" ws (value ws ("," ws value ws)*)? "]"',
}
_TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")


def schema_grammar(schema: str) -> str:
    """The grammar of a JSON schema; `{}` means any JSON object. Raises UsageError with what is wrong and where."""
    parsed = read_json(schema, "schema")
    rules = SchemaRules()
    root = "object" if parsed == {} else rules.rule(parsed, parsed, "schema")
    return rules.grammar(root)


def read_json(text: str, what: str) -> Any:
    """JSON of bounded size and depth. what: its name in errors, such as `schema`. Raises UsageError."""
    if len(text) > MAX_SCHEMA_CHARS:
        raise UsageError(f"The {what} has {len(text)} characters; {MAX_SCHEMA_CHARS} are allowed.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise UsageError(f"The {what} is not JSON: {said}.") from error


class SchemaRules:
    """Rules of one grammar, made from one schema or several."""

    def __init__(self) -> None:
        self._rules = dict(_COMMON)
        self._known: dict[tuple[int, str], str] = {}  # (which schema, reference) -> its rule
        self._depth = 0

    def grammar(self, root: str) -> str:
        """All rules as text. root: what the whole answer is, in the notation of grammars."""
        return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._rules.items())])

    def rule(self, schema: Any, document: Any, where: str) -> str:
        """The name of a rule for `schema`, a part of `document`, in which its references are looked up."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise UsageError(f"In the JSON schema {where} is {json.dumps(schema)[:40]}, and an object is needed.")
        self._depth += 1
        if self._depth > _MAX_NESTING:
            raise UsageError(f"The JSON schema is nested deeper than {_MAX_NESTING}.")
        body = self._body(schema, document, where)
        self._depth -= 1
        return body if body in self._rules else self._named(body)

    def _named(self, body: str) -> str:
        name = f"s{len(self._rules)}"
        self._rules[name] = body
        return name

    def _body(self, schema: dict[str, Any], document: Any, where: str) -> str:
        for keyword, make in self._FORMS.items():
            if keyword in schema:
                return make(self, schema, document, where)
        kind = schema.get("type", _type_implied(schema))
        if isinstance(kind, list) and kind:
            each = [self.rule({**schema, "type": one}, document, where) for one in kind]
            return " | ".join(each)
        if kind not in _TYPES:
            raise UsageError(f"In the JSON schema {where}.type is {json.dumps(kind)[:40]}, which is no type.")
        shaped = {"object": self._object, "array": self._array, "string": self._string}
        body = shaped[kind](schema, document, where) if kind in shaped else str(kind)
        return f"{body} | null" if schema.get("nullable") is True else body

    def _reference(self, schema: dict[str, Any], document: Any, where: str) -> str:
        reference = schema["$ref"]
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise UsageError(
                f"In the JSON schema {where} refers to {json.dumps(reference)[:60]}.",
                hint="Only references into the schema itself are followed, such as #/$defs/name.",
            )
        key = (id(document), reference)
        if key not in self._known:
            self._known[key] = name = f"r{len(self._known)}"
            self._rules[name] = "value"  # its place, should it refer to itself
            self._rules[name] = self.rule(_looked_up(document, reference), document, reference)
        return self._known[key]

    def _any(self, schema: dict[str, Any], document: Any, where: str) -> str:
        key = "anyOf" if "anyOf" in schema else "oneOf"
        choices = _some(schema, key, where)
        common = {name: value for name, value in schema.items() if name not in ("anyOf", "oneOf", "$defs")}
        each = [_merged(common, one) if "type" in common or "properties" in common else one for one in choices]
        return " | ".join(self.rule(one, document, f"{where}.{key}[{at}]") for at, one in enumerate(each))

    def _all(self, schema: dict[str, Any], document: Any, where: str) -> str:
        merged = {name: value for name, value in schema.items() if name != "allOf"}
        for part in _some(schema, "allOf", where):
            if isinstance(part, dict) and "$ref" in part:
                part = _looked_up(document, str(part["$ref"]))
            merged = _merged(merged, part)
        if "allOf" in merged:
            raise UsageError(f"In the JSON schema {where}.allOf holds another allOf.", hint="Write it as one.")
        return self.rule(merged, document, where)

    def _enum(self, schema: dict[str, Any], document: Any, where: str) -> str:
        return " | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in _some(schema, "enum", where))

    def _const(self, schema: dict[str, Any], document: Any, where: str) -> str:
        return literal(json.dumps(schema["const"], ensure_ascii=False))

    def _object(self, schema: dict[str, Any], document: Any, where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise UsageError(f"In the JSON schema {where}.properties must be an object and {where}.required a list.")
        unknown = [name for name in required if name not in properties]
        properties = {**properties, **{str(name): True for name in unknown}}
        pairs = [
            (self._pair(name, part, document, f"{where}.{name}"), name in required) for name, part in properties.items()
        ]
        extra = schema.get("additionalProperties", "properties" not in schema)
        if extra is not False:
            self._extra(pairs, self.rule(extra, document, f"{where}.additionalProperties"))
        return rf'"{{" ws {_members(pairs)} "}}"' if pairs else '"{" ws "}"'

    def _pair(self, name: str, schema: Any, document: Any, where: str) -> str:
        value = self.rule(schema, document, where)
        return self._named(f'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws {value} ws')

    def _extra(self, pairs: list[tuple[str, bool]], value: str) -> None:
        one = self._named(f'string ws ":" ws {value} ws')
        pairs.append((self._named(f'{one} ("," ws {one})*'), False))

    def _array(self, schema: dict[str, Any], document: Any, where: str) -> str:
        fixed = schema.get("prefixItems", [])
        if not isinstance(fixed, list):
            raise UsageError(f"In the JSON schema {where}.prefixItems must be a list.")
        if fixed:
            each = [self.rule(part, document, f"{where}.prefixItems[{at}]") for at, part in enumerate(fixed)]
            return '"[" ws ' + ' ws "," ws '.join(each) + ' ws "]"'
        item = self.rule(schema.get("items", True), document, f"{where}.items")
        least, most = _bounds(schema, "minItems", "maxItems", where)
        if most == 0:
            return '"[" ws "]"'
        more = f'("," ws {item} ws){_times(max(0, least - 1), None if most is None else most - 1)}'
        inner = f"{item} ws {more}"
        return f'"[" ws {inner} "]"' if least else f'"[" ws ({inner})? "]"'

    def _string(self, schema: dict[str, Any], document: Any, where: str) -> str:
        least, most = _bounds(schema, "minLength", "maxLength", where)
        return "string" if (least, most) == (0, None) else rf'"\"" char{_times(least, most)} "\""'

    # What decides a place's form before its type does, in this order.
    _FORMS: dict[str, Callable[[SchemaRules, dict[str, Any], Any, str], str]] = {  # noqa: RUF012
        "$ref": _reference,
        "enum": _enum,
        "const": _const,
        "allOf": _all,
        "anyOf": _any,
        "oneOf": _any,
    }


def literal(text: str) -> str:
    """A text as a grammar takes it literally."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _members(pairs: list[tuple[str, bool]]) -> str:
    """Pairs of (rule, is required), in order, with commas between those that are there."""
    first = next((at for at, (_, required) in enumerate(pairs) if required), None)
    if first is None:
        starts = [" ".join([pairs[at][0], *_later(pairs[at + 1 :])]) for at in range(len(pairs))]
        return f"({' | '.join(starts)})?"
    before = [f'({rule} "," ws)?' for rule, _ in pairs[:first]]
    return " ".join([*before, pairs[first][0], *_later(pairs[first + 1 :])])


def _later(pairs: list[tuple[str, bool]]) -> list[str]:
    return [f'"," ws {rule}' if required else f'("," ws {rule})?' for rule, required in pairs]


def _times(least: int, most: int | None) -> str:
    return "*" if (least, most) == (0, None) else f"{{{least},{'' if most is None else most}}}"


def _bounds(schema: dict[str, Any], low: str, high: str, where: str) -> tuple[int, int | None]:
    """Counts beyond what a grammar can hold are not held."""
    least, most = schema.get(low, 0), schema.get(high)
    for name, value in ((low, least), (high, most if most is not None else 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UsageError(f"In the JSON schema {where}.{name} must be a count.")
    if most is not None and most < least:
        raise UsageError(f"In the JSON schema {where}.{high} is less than {low}.")
    return min(least, MAX_REPEATS), most if most is not None and most <= MAX_REPEATS else None


def _some(schema: dict[str, Any], key: str, where: str) -> list[Any]:
    found = schema[key]
    if not isinstance(found, list) or not found:
        raise UsageError(f"In the JSON schema {where}.{key} must be a list that is not empty.")
    return found


def _merged(ours: dict[str, Any], theirs: Any) -> dict[str, Any]:
    """Both at once: their properties and required ones together, else the latter's word."""
    if not isinstance(theirs, dict):
        return ours
    merged = {**ours, **theirs}
    if "properties" in ours and "properties" in theirs:
        merged["properties"] = {**ours["properties"], **theirs["properties"]}
    if "required" in ours and "required" in theirs:
        merged["required"] = [*ours["required"], *theirs["required"]]
    return merged


def _type_implied(schema: dict[str, Any]) -> Any:
    """For a schema without a type: the one its keywords speak of, any where they speak of none."""
    if "properties" in schema or "required" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return list(_TYPES)


def _looked_up(document: Any, reference: str) -> Any:
    found = document
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict) and step in found:
            found = found[step]
        else:
            raise UsageError(f"The JSON schema refers to {reference[:80]!r}, which is not in it.")
    return found
