// The ContextVM SDK as a server for the load program: two tools, one of them priced, on a rail that settles at once.
//
// usage: node sdk_server.mjs '{"relay":"ws://…","encryption":"disabled|required"}', with the SDK in TOLLKEEPER_SERVICES
// out:   {"event":"ready","pubkey":"…"}; it ends with its standard input
import { createRequire } from 'node:module';
import path from 'node:path';
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';

const packages = path.join(process.env.TOLLKEEPER_SERVICES, 'node');
const load = createRequire(path.join(packages, 'package.json'));
const sdk = path.join(packages, 'node_modules', '@contextvm', 'sdk', 'dist', 'esm', 'index.js');
const { NostrServerTransport, PrivateKeySigner, withServerPayments } = await import(pathToFileURL(sdk));
const { Server } = load('@modelcontextprotocol/sdk/server/index.js');
const { CallToolRequestSchema } = load('@modelcontextprotocol/sdk/types.js');

const config = JSON.parse(process.argv[2]);
const signer = new PrivateKeySigner();
const transport = new NostrServerTransport({
  signer,
  relayHandler: [config.relay],
  encryptionMode: config.encryption,
  isAnnouncedServer: false,
  serverInfo: { name: 'load' },
  logLevel: 'error',
});

let made = 0;
withServerPayments(transport, {
  processors: [
    {
      pmi: 'fake',
      async createPaymentRequired({ amount, description }) {
        made += 1;
        return { amount, pay_req: `fake:${made}`, description, pmi: 'fake', ttl: 600 };
      },
      async verifyPayment() {
        return {};
      },
    },
  ],
  pricedCapabilities: [{ method: 'tools/call', name: 'paid', amount: 7, currencyUnit: 'sats' }],
});

const server = new Server({ name: 'load', version: '1' }, { capabilities: { tools: {} } });
server.setRequestHandler(CallToolRequestSchema, async () => ({ content: [{ type: 'text', text: 'done' }] }));
await server.connect(transport);
process.stdout.write(`${JSON.stringify({ event: 'ready', pubkey: await signer.getPublicKey() })}\n`);

process.stdin.resume();
await once(process.stdin, 'end');
process.exit(0);
