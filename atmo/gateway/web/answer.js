// One answer, from the question that is sent to its last word.

import { call, chunks } from "./api.js";

/**
 * Ask, and tell `turn` and `heard` what comes. turn: the assistant's turn, which is filled in; asked: model, type,
 * constraints, messages; explain: have the whole decision in the reply. Raises Trouble; stopping ends it quietly.
 */
export async function answer(turn, asked, signal, heard) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  try {
    const response = await call("/v1/chat/completions", { body: bodyOf(asked), signal, patient: true });
    turn.node = response.headers.get("x-atmo-node") ?? "";
    turn.capability = response.headers.get("x-atmo-capability") ?? "";
    turn.requestId = response.headers.get("x-atmo-request-id") ?? "";
    for await (const chunk of chunks(response, signal)) hear(turn, chunk, since, heard);
  } catch (error) {
    if (!signal.aborted) throw error;
    turn.stopped = true;
  } finally {
    turn.totalS = since();
  }
}

function bodyOf({ model, type, constraints, messages, explain, temperature }) {
  const atmo = { constraints, explain };
  if (type) atmo.type = type;
  return { model: model || "auto", messages, stream: true, stream_options: { include_usage: true }, temperature, atmo };
}

function hear(turn, chunk, since, heard) {
  const [choice] = chunk.choices;
  if (chunk.atmo?.decision) turn.decision = chunk.atmo.decision;
  if (chunk.usage) turn.tokens = chunk.usage.completion_tokens;
  const moved = chunk.atmo ?? choice?.atmo;
  if (moved?.resumed) Object.assign(turn, { resumed: moved.resumed, otherModel: Boolean(moved.other_model) });
  if (choice?.finish_reason) turn.finish = choice.finish_reason;
  const text = choice?.delta?.content;
  if (!text) return;
  turn.firstS ??= since();
  turn.content += text;
  heard();
}
