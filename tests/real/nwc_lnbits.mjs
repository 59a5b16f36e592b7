// Two NIP-47 wallets over LNbits: the wallet service of @getalby/sdk in front of a seller's and a buyer's LNbits wallet.
//
// usage: SELLER={"adminkey":…,"inkey":…} BUYER=… node nwc_lnbits.mjs RELAY LNBITS
// Prints {"event":"ready","seller":"nostr+walletconnect://…","buyer":"…"} and serves until stdin is closed.
//
// The protocol is Alby's and the money LNbits'; what is ours is the translation between them. Like many wallets in the
// field it sends no notifications and lists no transactions.
import { createRequire } from 'node:module';
import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
globalThis.WebSocket = load('ws').WebSocket;
const { NWCWalletService, NWCWalletServiceKeyPair, NWCClient } = load('@getalby/sdk/nwc');

// The library says on stdout what it does; stdout is for results.
console.info = console.warn = console.error;

const [relayUrl, lnbits] = process.argv.slice(2);

async function ask(method, where, headers, body) {
  const response = await fetch(lnbits + where, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(`${method} ${where}: ${response.status}`), { answer });
  return answer;
}

const secret = () => randomBytes(32).toString('hex');
const now = () => Math.floor(Date.now() / 1000);
const seconds = (time) => (time ? Math.floor(new Date(typeof time === 'number' ? time * 1000 : time) / 1000) : null);

/** A payment of LNbits as NIP-47 has it. */
function transaction({ details, paid, preimage }) {
  const settled = paid || details.status === 'success';
  return {
    type: details.amount < 0 ? 'outgoing' : 'incoming',
    state: settled ? 'settled' : details.status === 'failed' ? 'failed' : 'pending',
    invoice: details.bolt11,
    description: details.memo,
    preimage: settled ? preimage ?? details.preimage : null,
    payment_hash: details.payment_hash,
    amount: Math.abs(details.amount),
    fees_paid: Math.abs(details.fee),
    created_at: seconds(details.created_at ?? details.time),
    expires_at: seconds(details.expiry),
    settled_at: settled ? seconds(details.updated_at ?? details.time) ?? now() : null,
  };
}

const done = (result) => ({ result, error: undefined });
const failed = (code, message) => ({ result: undefined, error: { code, message } });

/** What a wallet can do, on the keys of an LNbits wallet. */
function handler({ adminkey, inkey }) {
  const read = { 'x-api-key': inkey };
  const spend = { 'x-api-key': adminkey };
  const look = (hash) => ask('GET', `/api/v1/payments/${hash}`, spend);
  const methods = ['get_info', 'get_balance', 'make_invoice', 'lookup_invoice', 'pay_invoice'];
  return {
    methods,
    async getInfo() {
      const info = { alias: 'LNbits', color: '#000000', pubkey: '02'.padEnd(66, '0'), network: 'mainnet' };
      return done({ ...info, block_height: 1, block_hash: '0'.repeat(64), methods, notifications: [] });
    },
    async getBalance() {
      return done({ balance: (await ask('GET', '/api/v1/wallet', read)).balance });
    },
    async makeInvoice({ amount, description, expiry }) {
      const order = { out: false, amount: amount / 1000, unit: 'sat', memo: description ?? '', expiry };
      const made = await ask('POST', '/api/v1/payments', read, order);
      return done(transaction(await look(made.payment_hash)));
    },
    async lookupInvoice({ payment_hash: hash, invoice }) {
      try {
        const known = hash ?? (await ask('POST', '/api/v1/payments/decode', read, { data: invoice })).payment_hash;
        return done(transaction(await look(known)));
      } catch {
        return failed('NOT_FOUND', 'no such payment');
      }
    },
    async payInvoice({ invoice }) {
      try {
        const paid = await ask('POST', '/api/v1/payments', spend, { out: true, bolt11: invoice });
        return done({ preimage: (await look(paid.payment_hash)).preimage, fees_paid: 0 });
      } catch (error) {
        const detail = error.answer?.detail ?? 'LNbits refused';
        return failed(/insufficient balance/i.test(detail) ? 'INSUFFICIENT_BALANCE' : 'PAYMENT_FAILED', detail);
      }
    },
  };
}

async function open(wallet) {
  const keys = new NWCWalletServiceKeyPair(secret(), '00');
  const clientSecret = secret();
  const client = new NWCClient({ relayUrls: [relayUrl], walletPubkey: keys.walletPubkey, secret: clientSecret });
  keys.clientPubkey = client.publicKey;
  client.close();
  const service = new NWCWalletService({ relayUrl });
  const calls = handler(wallet);
  await service.publishWalletServiceInfoEvent(keys.walletSecret, calls.methods, []);
  await service.subscribe(keys, calls);
  return `nostr+walletconnect://${keys.walletPubkey}?relay=${encodeURIComponent(relayUrl)}&secret=${clientSecret}`;
}

const [seller, buyer] = [await open(JSON.parse(process.env.SELLER)), await open(JSON.parse(process.env.BUYER))];
console.log(JSON.stringify({ event: 'ready', seller, buyer }));

process.stdin.resume();
await once(process.stdin, 'end');
process.exit(0);
