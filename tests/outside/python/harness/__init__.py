"""What the outside tests stand on: a broker process, peers that speak the protocol, and raw sockets.

Nothing here knows more about the broker than docs/PROTOCOL.md and the command line say.
"""
