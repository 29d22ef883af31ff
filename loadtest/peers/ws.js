// The ws peer, as its README shows a server that broadcasts. Who connects to /sub hears what /pub sends; /echo answers.
const { WebSocketServer, WebSocket } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096 }, () => {
  console.log(server.address().port);
});
const listeners = new Set();
server.on("connection", (socket, request) => {
  socket.on("error", console.error);
  const path = request.url;
  if (path === "/sub") {
    listeners.add(socket);
    socket.on("close", () => listeners.delete(socket));
  }
  socket.on("message", (data, isBinary) => {
    if (path !== "/pub") {
      socket.send(data, { binary: isBinary });
      return;
    }
    for (const listener of listeners) {
      if (listener.readyState === WebSocket.OPEN) listener.send(data, { binary: isBinary });
    }
  });
});
