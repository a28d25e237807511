// OpenAI's SDK for Node.js against /v1/audio/transcriptions; prints what it found as JSON.
import fs from "node:fs";
import OpenAI, { APIError } from "openai";

const [baseURL, apiKey, path] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = (more) => client.audio.transcriptions.create({ file: fs.createReadStream(path), model: "whisper-1", ...more });

const found = {};
const plain = await ask({ language: "en", prompt: "Riva, NIM", temperature: 0 });
found.json = [plain.text, plain.usage];
for (const format of ["text", "srt", "vtt"]) found[format] = await ask({ response_format: format });
const verbose = await ask({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"] });
found.verbose = [verbose.language, verbose.words.length, verbose.segments.map((segment) => segment.text).join("")];
const diarized = await ask({ response_format: "diarized_json", chunking_strategy: { type: "server_vad", silence_duration_ms: 500 } });
found.diarized = diarized.segments[0].speaker;
const events = [];
for await (const event of await ask({ stream: true })) events.push(event);
found.stream = [events.slice(0, -1).map((event) => event.delta).join(""), events.at(-1)];
found.models = (await client.models.list()).data.map((model) => model.id);
try {
  await client.audio.transcriptions.create({ file: new File(["a letter"], "a.wav"), model: "whisper-1" });
} catch (error) {
  found.error = error instanceof APIError ? [error.status, error.code, error.param, error.type] : String(error);
}
console.log(JSON.stringify(found));
