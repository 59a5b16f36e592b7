// The ContextVM SDK as a client, steered by JSON lines: what it is told on stdin it does, what comes of it is on stdout.
//
// usage: node client.mjs '{"server":"<hex>","relays":["ws://…"],"encryption":"optional","giftWrap":"optional",
//                          "stateless":false,"pay":{"pmi":"fake","limit":100},"secret":"<hex>"}'
//        "pay":{"nwc":true}: by the wallet of NWC_CONNECTION
// in:    {"id":1,"op":"connect"} {"id":2,"op":"call","name":"add","arguments":{…},"progress":true}
//        {"id":3,"op":"request","method":"prompts/get","params":{…}} {"id":4,"op":"tags","of":"tools"} {"id":5,"op":"close"}
// out:   {"event":"ready","pubkey":"…"}, one {"event":"done","id":N,"result":…} or {"event":"done","id":N,"error":…} for
//        each line, and between them {"event":"progress"|"paid"|"notification"|"fault", …}
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
const sdk = path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'node_modules', '@contextvm', 'sdk', 'dist', 'esm');
const { LnBolt11NwcPaymentHandler, NostrClientTransport, PrivateKeySigner, withClientPayments } = await import(pathToFileURL(path.join(sdk, 'index.js')));
const { Client } = load('@modelcontextprotocol/sdk/client/index.js');
const { z } = load('zod');

const config = JSON.parse(process.argv[2]);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const fault = (error) => say({ event: 'fault', message: String(error?.message ?? error) });

const signer = new PrivateKeySigner(config.secret);
const nostr = new NostrClientTransport({
  signer,
  relayHandler: config.relays,
  serverPubkey: config.server,
  encryptionMode: config.encryption ?? 'optional',
  giftWrapMode: config.giftWrap ?? 'optional',
  isStateless: config.stateless ?? false,
  discoveryRelayUrls: config.discovery ?? [],
  oversizedTransfer: config.oversized,
  openStream: { enabled: config.openStream ?? false },
  logLevel: process.env.LOG_LEVEL ?? 'error',
});

/** Pays by saying so, up to a limit; each payment is reported. */
class Wallet {
  constructor({ pmi, limit }) {
    this.pmi = pmi;
    this.limit = limit ?? Number.MAX_SAFE_INTEGER;
  }

  async handle({ amount, pmi, pay_req, ttl, requestEventId }) {
    say({ event: 'paid', amount, pmi, pay_req, ttl, request: requestEventId });
  }
}

/** Pays by the SDK's own handler, from the wallet of NWC_CONNECTION. */
class NwcWallet extends LnBolt11NwcPaymentHandler {
  constructor({ limit }) {
    super({ nwcConnectionString: process.env.NWC_CONNECTION });
    this.limit = limit ?? Number.MAX_SAFE_INTEGER;
  }

  async handle(request) {
    await super.handle(request);
    const { amount, pmi, ttl, requestEventId } = request;
    say({ event: 'paid', amount, pmi, ttl, request: requestEventId });
  }
}

let transport = nostr;
if (config.pay) {
  const wallet = config.pay.nwc ? new NwcWallet(config.pay) : new Wallet(config.pay);
  transport = withClientPayments(nostr, {
    handlers: [wallet],
    paymentPolicy: ({ amount }) => amount <= wallet.limit,
  });
}
// The raw stream beside the client: which notifications came, in order.
const client = new Client({ name: 'contextvm-client', version: '1.0.0' });
client.onerror = fault;
client.fallbackNotificationHandler = async ({ method, params }) => say({ event: 'notification', method, params });

const events = {
  initialize: () => nostr.getServerInitializeEvent(),
  tools: () => nostr.getServerToolsListEvent(),
  resources: () => nostr.getServerResourcesListEvent(),
  templates: () => nostr.getServerResourceTemplatesListEvent(),
  prompts: () => nostr.getServerPromptsListEvent(),
};

const options = (line) => ({
  timeout: line.timeout ?? 60_000,
  resetTimeoutOnProgress: true,
  ...(line.progress && { onprogress: (progress) => say({ event: 'progress', id: line.id, progress }) }),
});

async function act(line) {
  switch (line.op) {
    case 'connect':
      await client.connect(transport);
      return { server: client.getServerVersion(), capabilities: client.getServerCapabilities() };
    case 'call':
      return client.callTool({ name: line.name, arguments: line.arguments ?? {} }, undefined, options(line));
    case 'request':
      return client.request({ method: line.method, params: line.params }, z.any(), options(line));
    case 'tags':
      return events[line.of]()?.tags ?? null;
    case 'close':
      await client.close();
      return {};
    default:
      throw new Error(`unknown op ${line.op}`);
  }
}

say({ event: 'ready', pubkey: await signer.getPublicKey() });
for await (const text of readline.createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  // Side by side: two calls at once are two lines.
  act(line).then(
    (result) => say({ event: 'done', id: line.id, result }),
    (error) => say({ event: 'done', id: line.id, error: { code: error.code, message: error.message, data: error.data } }),
  );
}
process.exit(0);
