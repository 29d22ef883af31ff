// The basic story with the `ws` library: a gateway on edge 0, a client on edge 1.
'use strict';

const assert = require('node:assert/strict');
const { after, afterEach, before, describe, it } = require('node:test');
const { isDeepStrictEqual } = require('node:util');
const { Peer, Server, eventually } = require('./harness.js');

describe('a gateway on one edge and a client on another', { timeout: 60_000 }, () => {
  let server;
  let building;
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
  const fresh = () => { building = `n${++count}`; return `${building}/g1`; };
  const knows = (peer, address, state) => peer.until(
    () => isDeepStrictEqual(peer.stateOf(address), state), `${address} being ${JSON.stringify(state)}`);

  it('are welcomed as what they are', async () => {
    const address = fresh();
    const [one, other] = [await gateway(address), await client()];
    assert.equal(one.welcome.peer, 'gateway');
    assert.equal(one.welcome.address, address);
    assert.ok(Number.isSafeInteger(one.welcome.epoch));
    assert.equal(other.welcome.peer, 'client');
    assert.equal(other.welcome.tenant, server.ready.tenant);
    assert.notEqual(one.welcome.edge, other.welcome.edge);
    assert.equal(one.socket.protocol, 'riser.v1');
  });

  it('exchange a snapshot and deltas', async () => {
    const address = fresh();
    const one = await gateway(address);
    await one.ok({ t: 'state', set: { 'kitchen/light': { on: true }, 'hall/lock': 'locked' }, full: true });
    const other = await client();
    await other.subscribe(`${building}/*`);
    const snapshot = other.frames.find((f) => f.t === 'snapshot');
    assert.deepEqual(snapshot.state, { 'kitchen/light': { on: true }, 'hall/lock': 'locked' });
    assert.equal(snapshot.online, true);
    await one.ok({ t: 'state', set: { 'kitchen/light': { on: false }, 'hall/lock': null } });
    await knows(other, address, { 'kitchen/light': { on: false } });
  });

  it('agree after a full state', async () => {
    const address = fresh();
    const [one, other] = [await gateway(address), await client()];
    await other.subscribe(address);
    await one.ok({ t: 'state', set: { a: 1, b: 2 } });
    await knows(other, address, { a: 1, b: 2 });
    await one.ok({ t: 'state', set: { c: 3 }, full: true });
    await knows(other, address, { c: 3 });
  });

  it('filter by path', async () => {
    const address = fresh();
    const [one, other, all] = [await gateway(address), await client(), await client()];
    await other.subscribe(address, ['state'], { path: ['kitchen/#'] });
    await all.subscribe(address);
    await one.ok({ t: 'state', set: { 'kitchen/light': 1, 'hall/lock': 2 } });
    await knows(all, address, { 'kitchen/light': 1, 'hall/lock': 2 });
    await knows(other, address, { 'kitchen/light': 1 });
  });

  it('see presence with its reason', async () => {
    const address = fresh();
    const other = await client();
    await other.subscribe(address);
    const one = await gateway(address);
    await other.until(() => other.presenceOf(address).some((f) => f.online), 'online');
    await one.close(1000, 'good night');
    const offline = await other.receive((f) => f.t === 'presence' && !f.online, 'offline');
    assert.equal(offline.reason, 'closed');
    assert.equal(offline.epoch, one.welcome.epoch);
    const shut = await gateway(address);
    shut.socket.terminate();
    const since = other.frames.indexOf(offline) + 1;
    const second = await other.receive((f) => f.t === 'presence' && !f.online, 'offline again', { since });
    assert.equal(second.epoch, shut.welcome.epoch);
  });

  it('see a takeover without an offline in between', async () => {
    const address = fresh();
    const other = await client();
    await other.subscribe(address);
    const old = await gateway(address, 0);
    const current = await gateway(address, 1);
    assert.equal(await old.end(), 4006);
    const shown = await other.receive((f) => f.t === 'presence' && f.epoch === current.welcome.epoch, 'takeover');
    assert.equal(shown.online, true);
    assert.equal(shown.reason, 'takeover');
    await current.ok({ t: 'state', set: { after: 1 }, full: true });
    await knows(other, address, { after: 1 });
    assert.deepEqual(other.presenceOf(address).filter((f) => !f.online), []);
  });

  it('make a device stale and fresh', async () => {
    const address = fresh();
    const [one, other] = [await gateway(address), await client()];
    await one.ok({ t: 'state', set: { 'kitchen/light': 1 } });
    await other.subscribe(address);
    await one.ok({ t: 'device', path: 'kitchen', up: false });
    await other.receive((f) => f.t !== 'ok' && (f.stale ?? []).some((p) => p.startsWith('kitchen')), 'stale');
    await one.ok({ t: 'state', set: { 'kitchen/light': 2 } });
    await knows(other, address, { 'kitchen/light': 2 });
    const answer = await server.api('GET', `/v1/state/${address}`, { edge: 1 });
    assert.deepEqual((await answer.json()).stale, []);
  });

  it('list who is there over HTTP', async () => {
    const address = fresh();
    const one = await gateway(address);
    const listed = async () => (await (await server.api('GET', `/v1/presence?building=${building}`)).json()).gateways;
    const [entry] = await listed();
    assert.equal(entry.of, address);
    assert.equal(entry.online, true);
    await one.close();
    await eventually(async () => (await listed()).every((e) => !e.online), 'offline in the list');
  });
});
