// A relay from the npm packages @nostr-relay/*, on 127.0.0.1 and a free port, for one test.
//
// Prints {"event":"ready","url":"ws://…"} and serves until stdin is closed, so it never outlives the test. The packages
// leave the storage to whoever runs them: here it is a map. Ephemeral events never reach it.
import { once } from 'node:events';
import { createRequire } from 'node:module';
import path from 'node:path';

const load = createRequire(path.join(process.env.TOLLKEEPER_SERVICES, 'node', 'package.json'));
const { EventRepository, EventUtils } = load('@nostr-relay/common');
const { NostrRelay } = load('@nostr-relay/core');
const { Validator } = load('@nostr-relay/validator');
const { WebSocketServer } = load('ws');

/** What a later event of the same author replaces. */
function slot({ id, kind, pubkey, tags }) {
  const replaceable = kind === 0 || kind === 3 || (kind >= 10000 && kind < 20000);
  const addressable = kind >= 30000 && kind < 40000;
  if (replaceable) return `${kind} ${pubkey}`;
  if (addressable) return `${kind} ${pubkey} ${tags.find(([name]) => name === 'd')?.[1] ?? ''}`;
  return id;
}

class MapRepository extends EventRepository {
  #events = new Map();

  isSearchSupported() {
    return false;
  }

  upsert(event) {
    const at = slot(event);
    const kept = this.#events.get(at);
    if (kept && (kept.id === event.id || kept.created_at > event.created_at)) return { isDuplicate: true };
    this.#events.set(at, event);
    return { isDuplicate: false };
  }

  find(filter) {
    const newestFirst = [...this.#events.values()].sort((a, b) => b.created_at - a.created_at);
    return newestFirst.filter((event) => EventUtils.isMatchingFilter(event, filter)).slice(0, filter.limit ?? 1000);
  }

  async destroy() {
    this.#events.clear();
  }
}

const silent = { setLogLevel() {}, debug() {}, info() {}, warn: console.error, error: console.error };
const relay = new NostrRelay(new MapRepository(), { logger: silent });
const validator = new Validator();

const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
server.on('connection', (socket) => {
  relay.handleConnection(socket);
  socket.on('message', async (data) => {
    try {
      await relay.handleMessage(socket, await validator.validateIncomingMessage(data));
    } catch (error) {
      socket.send(JSON.stringify(['NOTICE', String(error.message)]));
    }
  });
  socket.on('close', () => relay.handleDisconnect(socket));
  socket.on('error', () => socket.terminate());
});
await once(server, 'listening');
console.log(JSON.stringify({ event: 'ready', url: `ws://127.0.0.1:${server.address().port}` }));

process.stdin.resume();
await once(process.stdin, 'end');
process.exit(0);
