// Buys with the official npm client: launches an MCP server as a desktop host would, lists its tools and calls some.
//
// usage: node buyer.mjs '[{"name":"echo","arguments":{…}}, …]' CMD ARGS…
// Prints one line: {"server":{…},"tools":["…"],"calls":[{"result":{…}} or {"error":{"code":N,"message":"…"}}]}
import { createRequire } from 'node:module';
import path from 'node:path';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { StdioClientTransport } = load('@modelcontextprotocol/sdk/client/stdio.js');

const [plan, command, ...args] = process.argv.slice(2);
const client = new Client({ name: 'npm-buyer', version: '1.0.0' });
await client.connect(new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' }));

const { tools } = await client.listTools();
const calls = [];
for (const call of JSON.parse(plan)) {
  try {
    calls.push({ result: await client.callTool(call) });
  } catch (error) {
    calls.push({ error: { code: error.code, message: error.message } });
  }
}
const report = { server: client.getServerVersion(), tools: tools.map((tool) => tool.name), calls };
await client.close();
console.log(JSON.stringify(report));
