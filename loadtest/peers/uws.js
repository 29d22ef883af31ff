// The uWebSockets peer, through bun, as bun's documentation shows publish and subscribe: native topics, no options but
// those that say where it listens. Who connects to /sub subscribes; what /pub sends goes to all of them; /echo answers.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch(request, server) {
    const path = new URL(request.url).pathname;
    return server.upgrade(request, { data: { path } }) ? undefined : new Response("no", { status: 426 });
  },
  websocket: {
    open(socket) {
      if (socket.data.path === "/sub") socket.subscribe("all");
    },
    message(socket, message) {
      if (socket.data.path === "/pub") {
        server.publish("all", message);
      } else {
        socket.send(message);
      }
    },
  },
});
console.log(server.port);
