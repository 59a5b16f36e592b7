// The buyer's Lightning wallet, over NIP-47 with the library of Alby.
//
// As a program: node wallet.mjs pay INVOICE prints the preimage, node wallet.mjs balance prints what is left, in sats.
// The connection is in NWC_CONNECTION.
import WebSocket from 'ws'
import { NWCClient } from '@getalby/sdk/nwc'

globalThis.WebSocket ??= WebSocket

export const wallet = () => new NWCClient({ nostrWalletConnectUrl: process.env.NWC_CONNECTION })

export async function pay(invoice) {
  const client = wallet()
  try {
    return (await client.payInvoice({ invoice })).preimage
  } finally {
    client.close()
  }
}

export async function balance() {
  const client = wallet()
  try {
    return Math.floor((await client.getBalance()).balance / 1000)
  } finally {
    client.close()
  }
}

if (process.argv[1] === import.meta.filename || process.argv[1]?.endsWith('/wallet.mjs')) {
  const [, , what, invoice] = process.argv
  console.log(what === 'pay' ? await pay(invoice) : await balance())
  process.exit(0)
}
