// What the Node tests stand on: a broker process of their own, and peers on the `ws` library that know
// only the protocol page. The library is found through NODE_PATH, so that nothing is installed in the tree.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const WebSocket = require('ws');

const ROOT = path.resolve(__dirname, '../../..');
const START_LIMIT_MS = 30_000;
const STOP_LIMIT_MS = 30_000;
// How often something that sends no event is looked at again.
const LOOK_AGAIN_MS = 20;
const EVERYTHING = [{ to: '*/*', may: ['read', 'command', 'event', 'listen', 'speak'] }];

// Absolute, since the broker runs in a folder of its own.
function binary() {
  if (process.env.RISER_BIN) return path.resolve(process.env.RISER_BIN);
  return path.resolve(process.env.CARGO_TARGET_DIR ?? path.join(ROOT, 'target'), 'release', 'riser');
}

// Returns the first true value of `condition`, or throws after `limit` milliseconds.
async function eventually(condition, what, limit = 5_000) {
  const deadline = Date.now() + limit;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${limit} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
  }
}

// `riser dev` with two edges on free ports.
class Server {
  static async start() {
    const server = new Server();
    server.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'riser-outside-'));
    const readyFile = path.join(server.folder, 'ready.json');
    const log = fs.openSync(path.join(server.folder, 'log.txt'), 'w');
    server.process = spawn(binary(), ['dev', '--edges', '2', '--flats', '0', '--listen', '127.0.0.1:0',
      '--admin', '127.0.0.1:0', '--heartbeat', '2s', '--ready-file', readyFile],
    { cwd: server.folder, stdio: ['ignore', log, log] });
    fs.closeSync(log);
    server.exit = new Promise((resolve, reject) => {
      server.process.once('exit', (code, signal) => { server.ended = true; resolve(code ?? signal); });
      server.process.once('error', reject);
    });
    // The rejection is awaited below or in stop(); without a listener meanwhile it would end this process.
    server.exit.catch(() => { server.ended = true; });
    server.ready = await eventually(() => {
      if (server.ended) throw new Error(`riser dev ended:\n${server.logs()}`);
      try {
        return JSON.parse(fs.readFileSync(readyFile, 'utf8'));
      } catch {
        return null;
      }
    }, 'the ready file', START_LIMIT_MS);
    return server;
  }

  logs() {
    return fs.readFileSync(path.join(this.folder, 'log.txt'), 'utf8');
  }

  // Ends the broker by its own process; resolves to its exit status.
  async stop() {
    if (!this.ended) this.process.kill('SIGTERM');
    const timer = setTimeout(() => this.process.kill('SIGKILL'), STOP_LIMIT_MS);
    const status = await this.exit;
    clearTimeout(timer);
    fs.rmSync(this.folder, { recursive: true });
    return status;
  }

  async api(method, target, { edge = 0, body, key = this.ready.api_key } = {}) {
    const headers = { authorization: `Bearer ${key}` };
    if (body !== undefined) headers['content-type'] = 'application/json';
    return fetch(this.ready.http[edge] + target, {
      method, headers, body: body === undefined ? undefined : JSON.stringify(body),
    });
  }

  async token(wanted) {
    const answer = await this.api('POST', '/v1/tokens', { body: wanted });
    if (answer.status !== 201) throw new Error(`token: ${answer.status} ${await answer.text()}`);
    return (await answer.json()).token;
  }

  gatewayToken(address) {
    return this.token({ peer: 'gateway', address, ttl_s: 3600 });
  }

  clientToken(grants = EVERYTHING) {
    return this.token({ peer: 'client', subject: 'alice', grants, ttl_s: 900 });
  }
}

// The type under which a live stream's binary frame stands among a session's frames: none of the protocol has it.
const BINARY = '(binary)';
const HEADER_BYTES = 16;

// A live stream's binary frame: the header of 16 bytes, big-endian, and the payload.
function liveFrame(stream, seq, payload, { kind = 1, flags = 0, clock = 0 } = {}) {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt8(kind, 0);
  header.writeUInt8(flags, 1);
  header.writeUInt32BE(stream, 4);
  header.writeUInt32BE(seq, 8);
  header.writeUInt32BE(clock, 12);
  return Buffer.concat([header, Buffer.from(payload)]);
}

function parsedBinary(message) {
  if (message.length < HEADER_BYTES || message.readUInt16BE(2) !== 0) throw new Error(`no header: ${message.toString('hex')}`);
  return {
    t: BINARY, kind: message.readUInt8(0), flags: message.readUInt8(1), stream: message.readUInt32BE(4),
    seq: message.readUInt32BE(8), clock: message.readUInt32BE(12), payload: Buffer.from(message.subarray(HEADER_BYTES)),
  };
}

// One session. Frames are kept in order; `until` looks at them again after each arrival.
class Peer {
  constructor(socket) {
    this.socket = socket;
    this.frames = [];
    this.closed = null;
    this.number = 0;
    this.waiting = new Set();
    socket.on('message', (data, isBinary) => {
      this.frames.push(isBinary ? parsedBinary(data) : JSON.parse(data.toString()));
      this.wake();
    });
    socket.on('close', (code, reason) => {
      this.closed = { code, reason: reason.toString() };
      this.wake();
    });
    // The end is told by `close`; an error before it is told by `opened`.
    socket.on('error', () => {});
  }

  static async connect(url, { token, protocols = ['riser.v1'], ...options } = {}) {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    const socket = new WebSocket(url, protocols, { headers, handshakeTimeout: 10_000, ...options });
    const peer = new Peer(socket);
    await new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
    });
    return peer;
  }

  static async session(url, token, options = {}) {
    const peer = await Peer.connect(url, options);
    peer.send({ t: 'hello', token, agent: 'outside-node/1.0' });
    peer.welcome = await peer.receive((f) => f.t === 'welcome', 'welcome');
    return peer;
  }

  wake() {
    for (const look of [...this.waiting]) look();
  }

  send(frame) {
    this.socket.send(typeof frame === 'object' && !Buffer.isBuffer(frame) ? JSON.stringify(frame) : frame);
  }

  // Resolves to the first true value of `condition`, asked again after every frame and at the end.
  until(condition, what, limit = 5_000) {
    return new Promise((resolve, reject) => {
      const done = (settle, value) => {
        clearTimeout(timer);
        this.waiting.delete(look);
        settle(value);
      };
      const look = () => {
        const value = condition();
        if (value) done(resolve, value);
        else if (this.closed) done(reject, new Error(`closed ${this.closed.code} while waiting for ${what}`));
      };
      const timer = setTimeout(() => done(reject, new Error(
        `not within ${limit} ms: ${what}; last: ${JSON.stringify(this.frames.slice(-6))}`)), limit);
      this.waiting.add(look);
      look();
    });
  }

  receive(matches, what, { limit = 5_000, since = 0 } = {}) {
    return this.until(() => this.frames.slice(since).find(matches), what, limit);
  }

  // Sends a frame with the next `n` and resolves to its one answer, `ok` or `error`.
  async ask(frame) {
    const n = ++this.number;
    this.send({ ...frame, n });
    return this.receive((f) => (f.t === 'ok' || f.t === 'error') && f.n === n, `an answer to ${frame.t}`);
  }

  async ok(frame) {
    const reply = await this.ask(frame);
    if (reply.t !== 'ok') throw new Error(`${frame.t}: ${JSON.stringify(reply)}`);
    return reply;
  }

  async subscribe(to, lanes = ['state', 'presence'], more = {}) {
    const since = this.frames.length;
    await this.ok({ t: 'subscribe', to, lanes, ...more });
    await this.receive((f) => f.t === 'synced' && f.to === to, `synced of ${to}`, { since });
  }

  async ping() {
    const since = this.frames.length;
    this.send({ t: 'ping' });
    return this.receive((f) => f.t === 'pong', 'pong', { since });
  }

  // The state of a gateway by the rules of section 4: snapshots replace, greater versions apply.
  stateOf(address) {
    let [version, state] = [[0, 0], {}];
    for (const frame of this.frames.filter((f) => f.of === address)) {
      const its = [frame.epoch, frame.rev];
      if (frame.t === 'snapshot') {
        [version, state] = [its, { ...frame.state }];
      } else if (frame.t === 'state' && (its[0] > version[0] || (its[0] === version[0] && its[1] > version[1]))) {
        version = its;
        for (const [name, value] of Object.entries(frame.set ?? {})) {
          if (value === null) delete state[name];
          else state[name] = value;
        }
      }
    }
    return state;
  }

  // The outcomes of a command so far; `final` waits for the last of them.
  outcomes(cmd) {
    return this.frames.filter((f) => f.t === 'outcome' && f.cmd === cmd);
  }

  final(cmd, limit = 20_000) {
    return this.receive((f) => f.t === 'outcome' && f.cmd === cmd && f.final, `the final outcome of ${cmd}`, { limit });
  }

  heard(stream) {
    return this.frames.filter((f) => f.t === BINARY && f.stream === stream);
  }

  presenceOf(address) {
    return this.frames.filter((f) => f.t === 'presence' && f.of === address);
  }

  async end(limit = 5_000) {
    await this.until(() => this.closed, 'the end', limit);
    return this.closed.code;
  }

  async close(code = 1000, reason = '') {
    this.socket.close(code, reason);
    return this.end();
  }
}

module.exports = { BINARY, EVERYTHING, Peer, Server, WebSocket, eventually, liveFrame };
