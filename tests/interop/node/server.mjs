// The ContextVM SDK as a server, with tools that a test can count, paid for as the test says.
//
// usage: node server.mjs '{"relays":["ws://…"],"encryption":"optional","giftWrap":"optional","announced":true,
//                          "prices":[{"method":"tools/call","name":"add","amount":7,"currencyUnit":"sats"}],
//                          "pmis":["fake"],"settlesAfter":500,"ttl":300,"profile":{…},"oversized":{…}}'
// "nwc":true: paid into the wallet of NWC_CONNECTION. A priced tool called with {"reject":"why"} is rejected, with {"waive":true} waived.
// out:   {"event":"ready","pubkey":"…"}, then {"event":"executed","tool":"…"} and {"event":"minted"|"settled", …}
import { createRequire } from 'node:module';
import path from 'node:path';
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
const sdk = path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'node_modules', '@contextvm', 'sdk', 'dist', 'esm');
const { LnBolt11NwcPaymentProcessor, NostrServerTransport, PrivateKeySigner, withServerPayments } = await import(pathToFileURL(path.join(sdk, 'index.js')));
const { Server } = load('@modelcontextprotocol/sdk/server/index.js');
const types = load('@modelcontextprotocol/sdk/types.js');

const config = JSON.parse(process.argv[2]);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const signer = new PrivateKeySigner(config.secret);
const transport = new NostrServerTransport({
  signer,
  relayHandler: config.relays,
  encryptionMode: config.encryption ?? 'optional',
  giftWrapMode: config.giftWrap ?? 'optional',
  isAnnouncedServer: config.announced ?? false,
  serverInfo: { name: 'contextvm-server', about: 'for tests', website: 'https://example.com' },
  profileMetadata: config.profile,
  bootstrapRelayUrls: config.bootstrap ?? [],
  oversizedTransfer: config.oversized,
  openStream: { enabled: config.openStream ?? false },
  logLevel: process.env.LOG_LEVEL ?? 'error',
});

/** Makes payment requests and finds each settled a moment later, paid or not: a client has that long to write its payment down. */
class Till {
  #made = 0;

  constructor(pmi) {
    this.pmi = pmi;
  }

  async createPaymentRequired({ amount, description, requestEventId }) {
    this.#made += 1;
    say({ event: 'minted', amount, pmi: this.pmi, request: requestEventId });
    const pay_req = `fake:${requestEventId}:${this.#made}`;
    return { amount, pay_req, description, pmi: this.pmi, ttl: config.ttl ?? 300 };
  }

  async verifyPayment({ requestEventId }) {
    await pause(config.settlesAfter ?? 500);
    say({ event: 'settled', request: requestEventId });
    return { _meta: { settled: true } };
  }
}

const nwcConnectionString = process.env.NWC_CONNECTION;
if (config.prices) {
  withServerPayments(transport, {
    processors: config.nwc
      ? [new LnBolt11NwcPaymentProcessor({ nwcConnectionString })]
      : (config.pmis ?? ['fake']).map((pmi) => new Till(pmi)),
    pricedCapabilities: config.prices,
    resolvePrice: async ({ capability, request }) => {
      const { reject, waive, price } = request.params?.arguments ?? {};
      if (reject) return { reject: true, message: reject };
      if (waive) return { waive: true };
      return { amount: price ?? capability.amount, description: capability.description };
    },
  });
}

const text = (value) => ({ content: [{ type: 'text', text: String(value) }] });
const tools = {
  add: ({ a, b }) => text(a + b),
  echo: ({ text: said }) => text(said),
  size: ({ text: said }) => text(Buffer.byteLength(said)),
  big: ({ bytes }) => text('x'.repeat(bytes)),
  steps: async ({ steps }, extra) => {
    const progressToken = extra._meta?.progressToken;
    for (let step = 1; step <= steps; step += 1) {
      if (progressToken !== undefined) {
        await extra.sendNotification({
          method: 'notifications/progress',
          params: { progressToken, progress: step, total: steps },
        });
      }
      await pause(20);
    }
    return text(steps);
  },
  stream: async (_arguments, extra) => {
    const stream = extra._meta?.stream;
    if (!stream) return text('no stream');
    await stream.start?.();
    for (const part of ['one', 'two', 'three']) await stream.write(part);
    await stream.close();
    return text('streamed');
  },
};

const server = new Server(
  { name: 'contextvm-server', version: '1.0.0' },
  { capabilities: { tools: { listChanged: true }, prompts: {}, resources: {} } },
);
server.setRequestHandler(types.ListToolsRequestSchema, async () => ({
  tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })),
}));
server.setRequestHandler(types.CallToolRequestSchema, async ({ params }, extra) => {
  say({ event: 'executed', tool: params.name });
  const tool = tools[params.name];
  if (!tool) throw new types.McpError(types.ErrorCode.InvalidParams, `no tool ${params.name}`);
  return tool(params.arguments ?? {}, extra);
});
server.setRequestHandler(types.ListPromptsRequestSchema, async () => ({ prompts: [{ name: 'greet' }] }));
server.setRequestHandler(types.GetPromptRequestSchema, async ({ params }) => ({
  messages: [{ role: 'user', content: { type: 'text', text: `Greet ${params.arguments?.who}` } }],
}));
server.setRequestHandler(types.ListResourcesRequestSchema, async () => ({ resources: [{ uri: 'a://one', name: 'one' }] }));
server.setRequestHandler(types.ListResourceTemplatesRequestSchema, async () => ({ resourceTemplates: [] }));
server.setRequestHandler(types.ReadResourceRequestSchema, async ({ params }) => ({
  contents: [{ uri: params.uri, text: `read ${params.uri}` }],
}));

await server.connect(transport);
say({ event: 'ready', pubkey: await signer.getPublicKey() });

process.stdin.resume();
await once(process.stdin, 'end');
process.exit(0);
