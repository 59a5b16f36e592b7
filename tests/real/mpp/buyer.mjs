// Buys with mppx, which wraps the official MCP client and pays what it is asked for.
//
// usage: node buyer.mjs '[{"name":"add","arguments":{…}}, …]' stdio CMD ARGS…
//        node buyer.mjs '[…]' http URL
// Prints one line: {"tools":[…],"calls":[{"result":{…},"receipt":{…}} or {"error":{…}}],"payments":N,"again":[…],"spent":N}
// where `again` is what comes back when the credential of the first call is sent again, and with another call.
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { CallToolResultSchema } from '@modelcontextprotocol/sdk/types.js'
import { McpClient } from 'mppx/mcp/client'
import { Credential, Method, z } from 'mppx'
import { balance, pay } from './wallet.mjs'

const [, , plan, kind, ...target] = process.argv
const transport = () =>
  kind === 'http'
    ? new StreamableHTTPClientTransport(new URL(target[0]))
    : new StdioClientTransport({ command: target[0], args: target.slice(1), stderr: 'inherit', env: process.env })
const capabilities = { experimental: { payment: { methods: { lightning: { intents: ['charge'] } } } } }
const connect = async () => {
  const client = new Client({ name: 'buyer', version: '0' }, { capabilities })
  await client.connect(transport())
  return client
}

const definition = Method.from({
  name: 'lightning',
  intent: 'charge',
  schema: {
    credential: { payload: z.object({ preimage: z.string() }) },
    request: z.object({
      amount: z.string(),
      currency: z.string(),
      methodDetails: z.object({
        invoice: z.string(),
        network: z.optional(z.string()),
        paymentHash: z.optional(z.string()),
      }),
    }),
  },
})
let payments = 0
let first
const method = Method.toClient(definition, {
  async createCredential({ challenge }) {
    payments++
    const preimage = await pay(challenge.request.methodDetails.invoice)
    first ??= { challenge, payload: { preimage } }
    return Credential.serialize({ challenge, payload: { preimage } })
  },
})

const shown = (error) => ({ error: { code: error.code, message: error.message, data: error.data } })
const before = await balance()
const client = await connect()
const tools = (await client.listTools()).tools
McpClient.wrap(client, { methods: [method] })
const calls = []
for (const call of JSON.parse(plan)) {
  try {
    const result = await client.callTool(call)
    calls.push({ result, receipt: result.receipt })
  } catch (error) {
    calls.push(shown(error))
  }
}

// The same credential again, in its own session and in a new one, and with a call that it is not for.
const again = []
const [call] = JSON.parse(plan)
const present = async (client, call) => {
  const params = { ...call, _meta: { 'org.paymentauth/credential': first } }
  try {
    again.push({ result: await client.request({ method: 'tools/call', params }, CallToolResultSchema) })
  } catch (error) {
    again.push(shown(error))
  }
}
if (first) {
  await present(client, call)
  await present(client, { ...call, arguments: { ...call.arguments, other: 1 } })
  if (kind === 'http') await present(await connect(), call)
}
const report = { tools, calls, payments, again, spent: before - (await balance()) }
console.log(JSON.stringify(report))
process.exit(0)
