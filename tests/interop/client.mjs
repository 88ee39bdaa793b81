// The TypeScript SDK's client on a server of ours: `node client.mjs '{"command", "env", "cwd", ...}'`.
// Prints what it was told and what it found at the addresses, as one JSON object.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const { command, env, cwd, calls, options } = JSON.parse(process.argv[2]);
const client = new Client({ name: "interop", version: "1" });
await client.connect(new StdioClientTransport({ command, env, cwd, stderr: "inherit" }));

// an SDK's client validates structured content once it has seen the schema
const { tools } = await client.listTools();
const results = [];
for (const { name, arguments: given } of calls) {
  const heard = [];
  const onprogress = ({ progress, message }) => heard.push({ progress, message });
  const result = await client.callTool({ name, arguments: given }, undefined, {
    ...options,
    onprogress,
  });
  results.push({ result, heard });
}

const pictures = [];
for (const { result } of results) {
  for (const { url } of result.structuredContent?.images ?? []) {
    const answer = await fetch(url);
    const body = Buffer.from(await answer.arrayBuffer());
    pictures.push({ status: answer.status, body: body.toString("base64") });
  }
}
const server = client.getServerVersion();
await client.close();
console.log(JSON.stringify({ server, tools, results, pictures }));
