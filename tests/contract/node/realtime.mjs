// One item on OpenAI's realtime API, of today ("ga") or of the beta: the client commits. Prints what it was told.
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS as Today } from "openai/realtime/ws";
import { OpenAIRealtimeWS as Beta } from "openai/beta/realtime/ws";

const [baseURL, file, kind] = process.argv.slice(2);
const audio = readFileSync(file);
const client = new OpenAI({ baseURL, apiKey: "sk-anything" });
const socket = kind === "ga"
  ? new Today({ model: "gpt-4o-transcribe" }, client)
  : new Beta({ model: "gpt-4o-transcribe" }, client);

const types = [];
let text = "";
const fail = setTimeout(() => { console.error(types.join("\n")); process.exit(2); }, 45_000);

socket.on("event", (event) => types.push(event.type));
socket.on("error", (error) => { console.error(error.message); process.exit(1); });

const update = kind === "ga"
  ? { type: "session.update", session: { type: "transcription", audio: { input: {
      format: { type: "audio/pcm", rate: 24000 },
      transcription: { model: "gpt-4o-transcribe", language: "en" },
      turn_detection: null } } } }
  : { type: "transcription_session.update", session: {
      input_audio_format: "pcm16",
      input_audio_transcription: { model: "gpt-4o-transcribe", language: "en" },
      turn_detection: null } };
const answers = kind === "ga" ? "session" : "transcription_session";

socket.on(`${answers}.created`, () => socket.send(update));
socket.on(`${answers}.updated`, () => {
  for (let at = 0; at < audio.length; at += 9600) {
    const piece = audio.subarray(at, at + 9600).toString("base64");
    socket.send({ type: "input_audio_buffer.append", audio: piece });
  }
  socket.send({ type: "input_audio_buffer.commit" });
});
socket.on("conversation.item.input_audio_transcription.delta", (event) => { text += event.delta; });
socket.on("conversation.item.input_audio_transcription.completed", (event) => {
  clearTimeout(fail);
  console.log(JSON.stringify({ types, text, transcript: event.transcript, usage: event.usage }));
  socket.close();
});
