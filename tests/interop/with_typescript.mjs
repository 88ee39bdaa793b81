// The TypeScript SDK's client at its default time limit; the host is this program, whose model asks
// for one picture, repeats what failed, and follows `pending`. Prints what it read, as one JSON object.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const { command, env, cwd } = JSON.parse(process.argv[2]);
const client = new Client({ name: "interop", version: "1" });
await client.connect(new StdioClientTransport({ command, env, cwd, stderr: "inherit" }));
const { tools } = await client.listTools();

const calls = [];
let step = { name: "generate_image", arguments: { prompt: "a red fox in snow", aspect_ratio: "16:9" } };
while (step && calls.length < 12) {
  const result = await client.callTool(step).catch((error) => ({ error: String(error) }));
  calls.push({ ...step, result: JSON.stringify(result) });
  const { status, record_id } = result.structuredContent ?? {};
  if (status === "done") step = null;
  else if (status === "pending") step = { name: "get_generation", arguments: { record_id } };
}
await client.close();

const read = tools.map(({ name, description, inputSchema }) => ({ name, description, parameters: inputSchema }));
console.log(JSON.stringify({ tools: read, calls }));
