//! Live streams from the speaker's socket to the hearers', over two edges and their twins.

mod limits;
mod rights;
mod streams;
mod trouble;

use std::time::Duration;

use fastwebsockets::{Frame, OpCode, Payload};
use riser_bus::Subject;
use riser_bus::memory::Faults as BusFaults;
use riser_core::live::{Header, StreamId, StreamKind};
use riser_core::{Grant, Identity};
use riser_edge::Edge;
use riser_edge::auth::{TokenOrder, mint};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::harness::*;

const TENTH: Duration = Duration::from_millis(100);

/// What a peer is sent, in order.
#[derive(Debug, Clone, PartialEq)]
enum Got {
    Text(Value),
    Frame(Header, Vec<u8>),
}

impl Got {
    fn is(&self, t: &str) -> bool {
        matches!(self, Self::Text(frame) if frame["t"] == t)
    }

    fn seq(&self) -> Option<u32> {
        match self {
            Self::Frame(header, _) => Some(header.seq),
            Self::Text(_) => None,
        }
    }
}

async fn got(peer: &mut Peerling) -> Got {
    loop {
        let frame = timeout(PATIENCE, peer.ws.read_frame()).await.expect("in time").expect("a frame");
        match frame.opcode {
            OpCode::Text => return Got::Text(serde_json::from_slice(&frame.payload).expect("JSON")),
            OpCode::Binary => {
                let header = Header::parse(&frame.payload).expect("a header");
                return Got::Frame(header, frame.payload[16..].to_vec());
            }
            OpCode::Close => panic!("closed: {:?}", String::from_utf8_lossy(&frame.payload)),
            _ => {}
        }
    }
}

/// All that comes up to a text frame of this type, with it.
async fn up_to(peer: &mut Peerling, t: &str) -> Vec<Got> {
    let mut list = Vec::new();
    loop {
        list.push(got(peer).await);
        if list.last().is_some_and(|last| last.is(t)) {
            return list;
        }
    }
}

/// All that was sent to a peer before it asked.
async fn so_far(peer: &mut Peerling) -> Vec<Got> {
    peer.send(&json!({"t":"ping"})).await;
    let mut list = up_to(peer, "pong").await;
    list.pop();
    list
}

async fn answer(peer: &mut Peerling, n: u64) -> Value {
    loop {
        match got(peer).await {
            Got::Text(frame) if frame["n"] == n => return frame,
            _ => {}
        }
    }
}

async fn text(peer: &mut Peerling, t: &str) -> Value {
    match up_to(peer, t).await.pop() {
        Some(Got::Text(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

async fn open(peer: &mut Peerling, n: u64, more: &Value) -> Value {
    let mut frame = json!({"t":"open","n":n,"path":"talk/door","kind":"opus"});
    frame.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    peer.send(&frame).await;
    answer(peer, n).await
}

/// Opens a stream and gives its number.
async fn stream(peer: &mut Peerling, to: &str) -> StreamId {
    let ok = open(peer, 1, &json!({"to":to})).await;
    assert_eq!(ok["t"], "ok", "{ok}");
    StreamId(u32::try_from(ok["stream"].as_u64().expect("a number")).expect("32 bits"))
}

fn message(stream: StreamId, seq: u32, payload: usize) -> Vec<u8> {
    let header = Header { kind: StreamKind::Opus, last: false, stream, seq, clock_ms: 7 };
    let mut message = header.to_bytes().to_vec();
    message.resize(16 + payload, 0x5a);
    message
}

async fn binary(peer: &mut Peerling, message: Vec<u8>) {
    peer.ws.write_frame(Frame::binary(Payload::Owned(message))).await.expect("written");
}

async fn speak(peer: &mut Peerling, stream: StreamId, seq: u32) {
    binary(peer, message(stream, seq, 44)).await;
}

async fn listener(edge: &Edge, to: &str) -> Peerling {
    let (mut peer, _) = Peerling::open(edge, client_of("acme")).await;
    assert!(peer.subscribe(to, &["live"]).await.is_empty());
    peer
}

fn with_grants(grants: &Value) -> Identity {
    let grants: Vec<Grant> = serde_json::from_value(grants.clone()).expect("grants");
    Identity { grants, ..client_of("acme") }
}
