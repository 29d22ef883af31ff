// Commands, events and live streams with the `ws` library: somebody rings at a flat, is spoken to, and is let in.
'use strict';

const assert = require('node:assert/strict');
const { after, afterEach, before, describe, it } = require('node:test');
const { Peer, Server, liveFrame } = require('./harness.js');

describe('a door on one edge and a phone on another', { timeout: 60_000 }, () => {
  let server;
  let open = [];
  let count = 0;

  before(async () => { server = await Server.start(); });
  after(async () => { assert.equal(await server.stop(), 0); });
  afterEach(() => {
    for (const peer of open) peer.socket.terminate();
    open = [];
  });

  const keep = (peer) => { open.push(peer); return peer; };
  const gateway = async (address, edge = 0) => keep(
    await Peer.session(server.ready.ws[edge], await server.gatewayToken(address)));
  const client = async (edge = 1) => keep(
    await Peer.session(server.ready.ws[edge], await server.clientToken()));
  const fresh = () => `x${++count}/g1`;
  const order = (to, more = {}) => ({ t: 'command', to, path: 'hall/lock', action: 'unlock', ...more });

  // Whatever came, there is one final outcome, and the record says the same at both edges.
  const decided = async (phone, cmd) => {
    const told = phone.outcomes(cmd);
    assert.deepEqual(told.map((f) => f.final), told.map((_, at) => at === told.length - 1));
    for (const edge of [0, 1]) {
      const record = await (await server.api('GET', `/v1/commands/${cmd}`, { edge })).json();
      assert.deepEqual(record.outcomes.map((o) => o.status), told.map((f) => f.status));
    }
    return told.map((f) => f.status);
  };

  it('ring, talk and unlock', async () => {
    const address = fresh();
    const [door, phone] = [await gateway(address), await client()];
    await phone.subscribe(address, ['event', 'live']);

    const rung = await door.ok({ t: 'event', id: `ring-${address}`, path: 'hall/bell', type: 'ring', data: { button: 1 } });
    const ring = await phone.receive((f) => f.t === 'event', 'the ring');
    assert.equal(ring.cursor, rung.cursor);
    assert.equal(ring.of, address);
    assert.deepEqual(ring.data, { button: 1 });

    const { stream } = await door.ok({ t: 'open', path: 'talk/door', kind: 'opus', params: { rate: 24000 } });
    const opened = await phone.receive((f) => f.t === 'opened', 'opened');
    assert.equal(opened.stream, stream);
    assert.deepEqual(opened.params, { rate: 24000 });
    for (let seq = 0; seq < 50; seq += 1) {
      door.send(liveFrame(stream, seq, Buffer.alloc(60, seq), { flags: seq === 49 ? 1 : 0, clock: seq * 20 }));
    }
    const answer = await phone.ok({ t: 'open', to: address, path: 'talk/door', kind: 'opus' });
    await door.receive((f) => f.t === 'opened' && f.stream === answer.stream, 'the answer');
    phone.send(liveFrame(answer.stream, 0, 'who is there?'));
    const said = await door.until(() => door.heard(answer.stream)[0], 'what the phone said');
    assert.equal(said.payload.toString(), 'who is there?');

    const { cmd } = await phone.ok(order(address, { args: { for_s: 5 } }));
    const command = await door.receive((f) => f.t === 'command', 'the command');
    assert.equal(command.cmd, cmd);
    assert.equal(command.by, 'client:alice');
    assert.deepEqual(command.args, { for_s: 5 });
    await door.ok({ t: 'result', cmd, status: 'running' });
    await door.ok({ t: 'result', cmd, status: 'succeeded', data: { opened: true } });
    assert.deepEqual((await phone.final(cmd)).data, { opened: true });
    assert.deepEqual(await decided(phone, cmd), ['sent', 'running', 'succeeded']);

    await door.ok({ t: 'close', stream });
    const closed = await phone.receive((f) => f.t === 'closed' && f.stream === stream, 'closed');
    assert.equal(closed.reason, 'closed');
    assert.deepEqual(phone.heard(stream).map((f) => f.seq), [...Array(50).keys()]);
    assert.deepEqual(phone.heard(stream)[49].payload, Buffer.alloc(60, 49));
    assert.equal(phone.heard(answer.stream).length, 0);
    phone.socket.terminate();
    const lost = await door.receive((f) => f.t === 'closed' && f.stream === answer.stream, 'lost', { limit: 15_000 });
    assert.equal(lost.reason, 'lost');
  });

  it('hold what was said while the door was away, and do it when it is back at the other edge', async () => {
    const address = fresh();
    const phone = await client();
    const cmds = [];
    for (let turn = 0; turn < 3; turn += 1) {
      cmds.push((await phone.ok(order(address, { if_offline: 'hold', args: turn }))).cmd);
    }
    const { cmd: never } = await phone.ok(order(address));
    assert.equal((await phone.final(never)).status, 'offline');
    const door = await gateway(address);
    await door.until(() => door.frames.filter((f) => f.t === 'command').length === 3, 'three commands');
    assert.deepEqual(door.frames.filter((f) => f.t === 'command').map((f) => f.args), [0, 1, 2]);
    for (const cmd of cmds) {
      await door.ok({ t: 'result', cmd, status: 'succeeded' });
      await phone.final(cmd);
      assert.deepEqual(await decided(phone, cmd), ['held', 'sent', 'succeeded']);
    }
    assert.deepEqual(await decided(phone, never), ['offline']);
  });

  it('have one command for one key, whoever repeats it', async () => {
    const address = fresh();
    const [door, phone, tablet] = [await gateway(address), await client(1), await client(0)];
    const replies = await Promise.all([phone, tablet].map((one) => one.ok(order(address, { key: 'k' }))));
    assert.equal(replies[0].cmd, replies[1].cmd);
    const { cmd } = replies[0];
    await door.receive((f) => f.t === 'command', 'the command');
    await door.ok({ t: 'result', cmd, status: 'rejected', code: 'child_lock' });
    for (const one of [phone, tablet]) {
      assert.equal((await one.final(cmd)).code, 'child_lock');
      assert.deepEqual(await decided(one, cmd), ['sent', 'rejected']);
    }
    const refused = await phone.ask(order(address, { key: 'k', action: 'lock' }));
    assert.equal(refused.code, 'conflict');
    await door.ping();
    assert.equal(door.frames.filter((f) => f.t === 'command').length, 1);
  });

  it('miss no ring while the phone changes edges', async () => {
    const address = fresh();
    const door = await gateway(address);
    const ring = (number) => door.ok({ t: 'event', id: `${address}-${number}`, type: 'ring' });
    const rings = (phone) => phone.frames.filter((f) => f.t === 'event');
    let phone = await client(1);
    await phone.subscribe(address, ['event']);
    await ring(0);
    await phone.until(() => rings(phone).length === 1, 'a ring');
    for (let turn = 1; turn < 5; turn += 1) {
      const { cursor } = rings(phone).at(-1);
      phone.socket.terminate();
      await ring(turn * 2 - 1);
      phone = await client(turn % 2);
      await phone.subscribe(address, ['event'], { cursor });
      await ring(turn * 2);
      await phone.until(() => rings(phone).length >= 2, 'two rings');
      assert.deepEqual(rings(phone).map((f) => f.id), [`${address}-${turn * 2 - 1}`, `${address}-${turn * 2}`]);
    }
  });
});
