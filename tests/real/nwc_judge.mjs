// Judges two NIP-47 wallets with the client of @getalby/sdk: does with them what a program does with its wallet, and says
// what came of it. The seller's wallet makes an invoice, the buyer's pays it.
//
// usage: SELLER=nostr+walletconnect://… BUYER=… node nwc_judge.mjs
// Prints one line: {"info":…,"service":…,"made":…,"open":…,"paid":…,"settled":…,"listed":[…],"notified":…,"balances":[…],"errors":{…}}
import { createRequire } from 'node:module';
import { createHash } from 'node:crypto';
import path from 'node:path';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
globalThis.WebSocket = load('ws').WebSocket;
const { NWCClient } = load('@getalby/sdk/nwc');
console.info = console.warn = console.error;

const client = (uri) => new NWCClient({ nostrWalletConnectUrl: uri });
const [seller, buyer] = [client(process.env.SELLER), client(process.env.BUYER)];

const service = await seller.getWalletServiceInfo();
const info = await seller.getInfo();
const notification = new Promise((resolve) => {
  seller.subscribeNotifications(resolve, ['payment_received']);
});
// The library does not say when the subscription is live; what a relay answers later was asked later.
await seller.getBalance();

const made = await seller.makeInvoice({ amount: 21_000, description: 'judged' });
const open = await seller.lookupInvoice({ payment_hash: made.payment_hash });
const paid = await buyer.payInvoice({ invoice: made.invoice });
const settled = await seller.lookupInvoice({ invoice: made.invoice });
const late = new Promise((resolve) => setTimeout(resolve, 20_000, null));
const notified = await Promise.race([notification, late]);
const { transactions: listed } = await seller.listTransactions({ limit: 10 });
const balances = [(await seller.getBalance()).balance, (await buyer.getBalance()).balance];

async function refused(asking) {
  try {
    await asking;
    return null;
  } catch (error) {
    return error.code ?? String(error);
  }
}
const dear = await seller.makeInvoice({ amount: 10_000_000_000 });
const errors = {
  twice: await refused(buyer.payInvoice({ invoice: made.invoice })),
  dear: await refused(buyer.payInvoice({ invoice: dear.invoice })),
  unknown: await refused(buyer.lookupInvoice({ payment_hash: '00'.repeat(32) })),
};
const proven = createHash('sha256').update(Buffer.from(paid.preimage, 'hex')).digest('hex') === made.payment_hash;
const encryption = seller.encryptionType;
console.log(
  JSON.stringify({ info, service, made, open, paid, proven, settled, listed, notified, balances, errors, encryption }),
);
process.exit(0);
