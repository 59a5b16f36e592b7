// A client that speaks explicit gating as the ContextVM SDK 0.13 does, which the registry does not have yet: written from
// the conformance list (N-30, N-37, N-49, N-50, N-97 to N-101, T-01, T-07, T-22 to T-28), not from its code. It keeps the
// habits that a server has to live with: it repeats the same request object, so that within one second the event is the
// same one, and it pays for every demand.
//
// usage: node explicit.mjs '{"server":"<hex>","relay":"ws://…","encryption":"optional","pmis":["fake"],
//                            "interaction":"explicit_gating","callback":"pay","pays":200,"sameSecond":true}'
//        callback: "pay" (after `pays` ms), "decline", "fail", or absent: the error is the caller's
// in:    {"id":1,"method":"tools/call","params":{…}}
// out:   {"event":"ready","pubkey":"…"}, {"event":"sent","event_id":"…"}, {"event":"paid","pay_req":"…"},
//        {"event":"pending","retry_after":N,"options":N}, {"event":"tags","tags":[…]}, {"event":"accepted"}, and
//        {"event":"done","id":N,"result":…} or {"event":"done","id":N,"error":…} for each line
import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
const { finalizeEvent, generateSecretKey, getPublicKey, nip44, verifyEvent } = load('nostr-tools');
const WebSocket = load('ws');

const MESSAGE = 25910;
const WRAPS = { persistent: 1059, ephemeral: 21059 };
const MOST_RETRIES = 10;

const config = JSON.parse(process.argv[2]);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const now = () => Math.floor(Date.now() / 1000);
const error = (code, message, data) => ({ code, message, ...(data !== undefined && { data }) });

const secret = generateSecretKey();
const pubkey = getPublicKey(secret);
const encrypts = (config.encryption ?? 'optional') !== 'disabled';
const pending = new Map();
const published = new Map();
const seen = new Set();
let introduced = false;
let wrapKind = WRAPS.persistent;
let effective;

const socket = new WebSocket(config.relay);
await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject));
socket.on('message', (data) => {
  const [kind, ...rest] = JSON.parse(data);
  if (kind === 'OK') published.get(rest[0])?.(rest[1]);
  if (kind === 'EOSE') ready();
  if (kind === 'EVENT') receive(rest[1]);
});
let ready;
const subscribed = new Promise((resolve) => (ready = resolve));
const filter = { '#p': [pubkey], kinds: [MESSAGE, WRAPS.persistent, WRAPS.ephemeral], since: now() };
socket.send(JSON.stringify(['REQ', 'explicit', filter]));
await subscribed;

/** Dedups, unwraps, verifies; then matches by the `e` tag alone. */
function receive(outer) {
  if (seen.has(outer.id)) return;
  seen.add(outer.id);
  let event = outer;
  if (outer.kind !== MESSAGE) {
    const key = nip44.v2.utils.getConversationKey(secret, outer.pubkey);
    event = JSON.parse(nip44.v2.decrypt(outer.content, key));
    if (seen.has(event.id)) return;
    seen.add(event.id);
  }
  if (event.pubkey !== config.server || !verifyEvent(event)) return;
  const flag = (name) => event.tags.some((tag) => tag.length === 1 && tag[0] === name);
  if (flag('support_encryption_ephemeral')) wrapKind = WRAPS.ephemeral;
  const about = event.tags.find(([name]) => name === 'e')?.[1];
  const interaction = event.tags.find(([name]) => name === 'payment_interaction')?.[1];
  // What the server offers is not what is in effect, unless this client asked for it (N-27).
  if (interaction && config.interaction) effective ??= interaction;
  say({ event: 'tags', kind: outer.kind, tags: event.tags.map(([name]) => name) });
  const message = JSON.parse(event.content);
  if (message.method === 'notifications/payment_accepted') say({ event: 'accepted' });
  const request = pending.get(about);
  if (!request) return;
  if (message.method === 'notifications/payment_required') {
    if (config.interaction !== 'explicit_gating') return;
    pending.delete(about);
    const text = 'Payment declined: explicit_gating was not accepted by the server';
    request.answer({ error: error(-32000, text) });
  } else if (message.id !== undefined) {
    pending.delete(about);
    request.answer(message);
  }
}

function tags() {
  const own = [['p', config.server]];
  if (!introduced) {
    if (encrypts) own.push(['support_encryption'], ['support_encryption_ephemeral']);
    own.push(['support_oversized_transfer'], ['support_open_stream']);
  }
  own.push(...config.pmis.map((pmi) => ['pmi', pmi]));
  // Once, on the first message of the session (N-37).
  if (!introduced && config.interaction) own.push(['payment_interaction', config.interaction]);
  return own;
}

/** Registered, then published; what the relay says is waited for. */
async function send(request) {
  const event =
    (config.sameSecond && request.event) ||
    finalizeEvent({ kind: MESSAGE, created_at: now(), tags: tags(), content: request.text }, secret);
  request.event = event;
  const answered = new Promise((answer) => pending.set(event.id, { ...request, answer }));
  let carrier = event;
  if (encrypts) {
    const once = generateSecretKey();
    const key = nip44.v2.utils.getConversationKey(once, config.server);
    const content = nip44.v2.encrypt(JSON.stringify(event), key);
    carrier = finalizeEvent({ kind: wrapKind, created_at: now(), tags: [['p', config.server]], content }, once);
  }
  say({ event: 'sent', event_id: event.id, kind: carrier.kind });
  const ok = new Promise((resolve) => published.set(carrier.id, resolve));
  socket.send(JSON.stringify(['EVENT', carrier]));
  await ok;
  introduced = true;
  return answered;
}

async function call({ id, method, params }) {
  const request = { text: JSON.stringify({ jsonrpc: '2.0', id, method, ...(params && { params }) }) };
  for (let retries = 0; ; ) {
    const answer = await send(request);
    const { code, data } = answer.error ?? {};
    if (code === -32042 && data?.payment_options?.length > 0 && config.callback) {
      const [option] = data.payment_options;
      if (config.callback === 'decline') return { error: error(-32042, 'Payment Required', { reason: 'declined' }) };
      if (config.callback === 'fail') {
        return { error: error(-32042, 'Payment Required', { reason: 'no wallet', type: 'payment_handler_error' }) };
      }
      await pause(config.pays ?? 0);
      say({ event: 'paid', pay_req: option.pay_req, amount: option.amount, pmi: option.pmi, ttl: option.ttl });
      continue;
    }
    if (code === -32043 && typeof data?.retry_after === 'number' && config.callback && retries < MOST_RETRIES) {
      say({ event: 'pending', retry_after: data.retry_after, options: data.payment_options?.length ?? 0, message: answer.error.message });
      await pause(Math.min(10, data.retry_after * 1.5 ** retries) * 1000);
      retries += 1;
      continue;
    }
    return answer;
  }
}

say({ event: 'ready', pubkey });
for await (const text of readline.createInterface({ input: process.stdin })) {
  const line = JSON.parse(text);
  call(line).then(({ result, error: failed, id }) =>
    say({ event: 'done', id: line.id, body_id: id, effective, ...(failed ? { error: failed } : { result }) }),
  );
}
process.exit(0);
