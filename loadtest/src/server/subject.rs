//! What is measured, by name, with what each does.

use serde::{Deserialize, Serialize};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// `riser dev`.
    Riser,
    /// `riser edge`, on NATS and Redis.
    Cluster,
    /// Edges that were started elsewhere.
    Given,
    /// The NATS and Redis of a cluster, without its edges.
    Stores,
    /// uWebSockets through bun.
    Uws,
    /// npm's ws on node.
    Ws,
    /// Mosquitto over WebSocket.
    Mosquitto,
    /// Centrifugo.
    Centrifugo,
    /// An echo over TCP, which does nothing.
    Tcp,
}

impl Subject {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Riser,
        Self::Cluster,
        Self::Given,
        Self::Stores,
        Self::Uws,
        Self::Ws,
        Self::Mosquitto,
        Self::Centrifugo,
        Self::Tcp,
    ];

    /// Those that are started, each by itself.
    pub(crate) fn started() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|subject| !matches!(subject, Self::Given | Self::Stores))
    }

    /// Its name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Riser => "riser",
            Self::Cluster => "cluster",
            Self::Given => "given",
            Self::Stores => "stores",
            Self::Uws => "uws",
            Self::Ws => "ws",
            Self::Mosquitto => "mosquitto",
            Self::Centrifugo => "centrifugo",
            Self::Tcp => "tcp",
        }
    }

    /// Whether it is Riser, in one of its ways.
    pub(crate) fn is_riser(self) -> bool {
        matches!(self, Self::Riser | Self::Cluster | Self::Given)
    }

    /// What stands beside its figures.
    pub(crate) fn does(self) -> &'static str {
        match self {
            Self::Riser => {
                "`riser dev`: tokens verified, grants checked, presence fenced by epochs, state stored before it is \
                 acknowledged, sent through a bus, conflated for slow readers; all stores in its own memory"
            }
            Self::Cluster => {
                "edges (`riser edge`) that do the same over one NATS and one Redis on this machine; CPU and memory are \
                 those of the edges"
            }
            Self::Given => "a cluster that was started elsewhere: what peers see of it, and not what it costs",
            Self::Stores => {
                "the cluster's NATS and Redis without its edges: a request and its reply through NATS, a call of the \
                 script that the edges call, or both, one after the other"
            }
            Self::Uws => {
                "uWebSockets in bun: topics in native code; no credentials, presence, state or acknowledgements; what a \
                 slow reader does not take is dropped at a limit"
            }
            Self::Ws => "ws on node: a loop over sockets; no credentials, presence, state or acknowledgements",
            Self::Mosquitto => {
                "Mosquitto: MQTT 3.1.1 over WebSocket, anonymous; QoS 0 to listeners, QoS 1 where it is acknowledged; no \
                 presence but wills, no state but retained messages, nothing on disk"
            }
            Self::Centrifugo => {
                "Centrifugo, JSON over WebSocket, engine in its own memory: publications to the subscribers of a \
                 channel, anonymous; as it is used here without credentials, grants, history and presence"
            }
            Self::Tcp => "an echo over TCP: no WebSocket, no JSON, nothing but the sockets",
        }
    }
}
