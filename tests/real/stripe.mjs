// The official library of Stripe drives the fake Stripe of our tests: what it cannot read, or does not recognise as the error that
// it is, Stripe would not answer. Arguments: the address of the fake, its key, a body and the header that the fake signed it
// with, and the secret. Prints one JSON object.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import path from 'node:path'

const require = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'))
const { default: Stripe } = await import(require.resolve('stripe'))
const [base, key, body, header, secret] = process.argv.slice(2)
const { hostname, port } = new URL(base)
const at = (apiKey) => new Stripe(apiKey, { host: hostname, port, protocol: 'http', maxNetworkRetries: 0 })
const stripe = at(key)

const fails = async (promise, type, code) => {
  const error = await promise.then(() => undefined, (error) => error)
  assert.ok(error, `${type} was to be thrown`)
  assert.equal(error.type, type, error.message)
  if (code) assert.equal(error.code, code)
  return error
}

// Prices and customers.
const product = await stripe.products.create({ name: 'search' })
const once = await stripe.prices.create({ product: product.id, currency: 'usd', unit_amount: 999 })
const monthly = await stripe.prices.create({ product: product.id, currency: 'usd', unit_amount: 500, recurring: { interval: 'month' } })
assert.equal((await stripe.prices.retrieve(once.id)).unit_amount, 999)
const customer = await stripe.customers.create({ metadata: { nostr_pubkey: 'ab'.repeat(32) } })

// Pages of Checkout.
const order = {
  mode: 'payment', customer: customer.id, success_url: 'https://example.com/success',
  line_items: [{ price: once.id, quantity: 1 }], metadata: { tollkeeper_purchase: 'p1' },
  expires_at: Math.floor(Date.now() / 1000) + 3600,
}
const made = await stripe.checkout.sessions.create(order, { idempotencyKey: 'a' })
assert.equal(made.object, 'checkout.session')
assert.equal(made.status, 'open')
assert.equal(made.amount_total, 999)
assert.equal((await stripe.checkout.sessions.create(order, { idempotencyKey: 'a' })).id, made.id)
await fails(
  stripe.checkout.sessions.create({ ...order, expires_at: order.expires_at + 1 }, { idempotencyKey: 'a' }),
  'StripeIdempotencyError')
await fails(stripe.checkout.sessions.create({ ...order, mode: 'subscription' }), 'StripeInvalidRequestError')
await fails(stripe.checkout.sessions.create({ ...order, expires_at: 1 }), 'StripeInvalidRequestError')
const small = [{ quantity: 1, price_data: { currency: 'usd', unit_amount: 49, product_data: { name: 'x' } } }]
await fails(stripe.checkout.sessions.create({ ...order, line_items: small }), 'StripeInvalidRequestError', 'amount_too_small')
const shown = await stripe.checkout.sessions.retrieve(made.id, { expand: ['payment_intent.latest_charge', 'subscription'] })
assert.equal(shown.metadata.tollkeeper_purchase, 'p1')
const subscribed = await stripe.checkout.sessions.create({ ...order, mode: 'subscription', line_items: [{ price: monthly.id, quantity: 1 }] })
assert.equal((await stripe.checkout.sessions.expire(subscribed.id)).status, 'expired')
let listed = 0
for await (const session of stripe.checkout.sessions.list({ limit: 1 })) {
  assert.equal(session.object, 'checkout.session')
  listed++
}
assert.equal(listed, 2)

// Shared payment tokens: a parameter that the library passes on without knowing it.
const grant = async (payment_method) => (await stripe.rawRequest('POST', '/v1/test_helpers/shared_payment/granted_tokens',
  { payment_method, usage_limits: { currency: 'usd', max_amount: 1000 } })).id
const charge = async (card, amount) => stripe.paymentIntents.create({
  amount, currency: 'usd', confirm: true, automatic_payment_methods: { enabled: true, allow_redirects: 'never' },
  shared_payment_granted_token: await grant(card), metadata: { tollkeeper_order: 'o1' },
})
const charged = await charge('pm_card_visa', 50)
assert.equal(charged.status, 'succeeded')
const declined = await fails(charge('pm_card_chargeDeclined', 50), 'StripeCardError', 'card_declined')
assert.equal(declined.statusCode, 402)
assert.equal(declined.payment_intent.status, 'requires_payment_method')
assert.equal((await charge('pm_card_processing', 50)).status, 'processing')
await fails(charge('pm_card_visa', 49), 'StripeInvalidRequestError', 'amount_too_small')
const found = await stripe.paymentIntents.search({ query: "metadata['tollkeeper_order']:'o1'" })
assert.ok(found.data.some((intent) => intent.id === charged.id))
assert.equal((await stripe.refunds.create({ payment_intent: charged.id })).object, 'refund')
const back = await stripe.paymentIntents.retrieve(charged.id, { expand: ['latest_charge'] })
assert.equal(back.latest_charge.refunded, true)

// Meters.
await stripe.billing.meters.create({
  display_name: 'use', event_name: 'api_usage', default_aggregation: { formula: 'sum' },
})
const use = { event_name: 'api_usage', identifier: 'ab'.repeat(32), payload: { stripe_customer_id: customer.id, value: '3' } }
assert.equal((await stripe.billing.meterEvents.create(use)).identifier, use.identifier)
await fails(stripe.billing.meterEvents.create(use), 'StripeInvalidRequestError', 'duplicate_meter_event')
await fails(stripe.billing.meterEvents.create({ ...use, event_name: 'none', identifier: 'x' }), 'StripeInvalidRequestError')

// Errors.
await fails(at('sk_test_unknown').customers.list(), 'StripeAuthenticationError')
await fails(stripe.prices.retrieve('price_nowhere'), 'StripeInvalidRequestError', 'resource_missing')
await fails(stripe.subscriptions.retrieve('sub_nowhere'), 'StripeInvalidRequestError', 'resource_missing')

// Webhooks: what the fake signs the library accepts, and what the library signs is for our verifier to accept.
const event = stripe.webhooks.constructEvent(body, header, secret)
assert.throws(() => stripe.webhooks.constructEvent(body + ' ', header, secret))
const payload = JSON.stringify({ id: 'evt_of_the_library', object: 'event', type: 'checkout.session.completed',
  livemode: false, data: { object: { id: made.id, object: 'checkout.session' } } }, null, 2)
const signature = stripe.webhooks.generateTestHeaderString({ payload, secret })
console.log(JSON.stringify({ event: 'done', version: Stripe.PACKAGE_VERSION ?? null, kind: event.type, payload, signature }))
