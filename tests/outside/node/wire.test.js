// What the `ws` library shows of the handshake and of the ends of a session.
'use strict';

const assert = require('node:assert/strict');
const { after, before, describe, it } = require('node:test');
const { Peer, Server, WebSocket } = require('./harness.js');

// The status with which an upgrade was refused, or 101.
function upgradeStatus(url, protocols, headers = {}) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols, { headers, handshakeTimeout: 10_000 });
    socket.once('open', () => { socket.terminate(); resolve(101); });
    socket.once('unexpected-response', (request, response) => {
      request.destroy();
      resolve(response.statusCode);
    });
    socket.once('error', reject);
  });
}

describe('the wire', { timeout: 60_000 }, () => {
  let server;
  let url;

  before(async () => {
    server = await Server.start();
    [url] = server.ready.ws;
  });
  after(async () => { assert.equal(await server.stop(), 0); });

  it('negotiates no permessage-deflate although the library offers it', async () => {
    const peer = await Peer.session(url, await server.clientToken(), { perMessageDeflate: true });
    assert.equal(peer.socket.extensions, '');
    await peer.ping();
    peer.send(JSON.stringify({ t: 'ping', filler: 'x'.repeat(60_000) }));
    await peer.ping();
    await peer.close();
  });

  it('refuses an upgrade without a known subprotocol with 400', async () => {
    const headers = { authorization: `Bearer ${await server.clientToken()}` };
    assert.equal(await upgradeStatus(url, ['riser.v1'], headers), 101);
    assert.equal(await upgradeStatus(url, ['chat'], headers), 400);
    assert.equal(await upgradeStatus(url, [], headers), 400);
  });

  it('refuses a bad credential in the upgrade with 401', async () => {
    assert.equal(await upgradeStatus(url, ['riser.v1'], { authorization: 'Bearer nonsense' }), 401);
  });

  it('refuses a credential in the URL with 400', async () => {
    assert.equal(await upgradeStatus(`${url}?token=${await server.clientToken()}`, ['riser.v1']), 400);
  });

  it('closes with 4501 when the token in hello is bad', async () => {
    const peer = await Peer.connect(url);
    peer.send({ t: 'hello', token: 'nonsense' });
    assert.equal(await peer.end(), 4501);
  });

  it('closes with 4500 when something comes before hello', async () => {
    const peer = await Peer.connect(url);
    peer.send({ t: 'ping' });
    assert.equal(await peer.end(), 4500);
  });

  it('closes with 4005 when no hello comes', async () => {
    const peer = await Peer.connect(url);
    assert.equal(await peer.end(7_000), 4005);
  });

  it('closes with 1009 over the limit for text and for binary', async () => {
    for (const message of ['x'.repeat(65_537), Buffer.alloc(16_385)]) {
      const peer = await Peer.session(url, await server.clientToken());
      peer.send(message);
      assert.equal(await peer.end(), 1009);
    }
  });

  it('answers a close in kind', async () => {
    const peer = await Peer.session(url, await server.clientToken());
    assert.ok([1000, 4321].includes(await peer.close(4321, 'going')));
  });

  it('answers a WebSocket ping', async () => {
    const peer = await Peer.session(url, await server.clientToken());
    const pong = new Promise((resolve) => { peer.socket.once('pong', (data) => resolve(data.toString())); });
    peer.socket.ping('payload');
    assert.equal(await pong, 'payload');
    await peer.close();
  });

  it('takes a message in fragments', async () => {
    const peer = await Peer.session(url, await server.clientToken());
    peer.socket.send('{"t":', { fin: false });
    peer.socket.send('"pi', { fin: false });
    peer.socket.send('ng"}', { fin: true });
    await peer.receive((f) => f.t === 'pong', 'pong');
    await peer.close();
  });

  it('answers an unknown type and goes on', async () => {
    const peer = await Peer.session(url, await server.clientToken());
    const reply = await peer.ask({ t: 'levitate' });
    assert.equal(reply.code, 'unknown_type');
    await peer.ping();
    await peer.close();
  });
});
