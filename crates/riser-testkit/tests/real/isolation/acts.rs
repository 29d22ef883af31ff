//! What each of the two tenants does, which is all that there is to do, with the same names as the other. The second one does
//! more: it also asks for what the first one has.

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::time::{Instant, timeout_at};

use super::malice;
use super::pair::{Finding, One, Pair};
use super::witness::{Witness, call, is};
use super::world::World;

/// A deadline that does not pass within a test, in milliseconds.
const FAR_MS: u64 = 3_600_000;

/// What one tenant has been given, for the other to ask for.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    /// A command that was decided, one that is held, and one that the gateway has and has not answered.
    pub(super) cmds: [String; 3],
    pub(super) cursor: String,
    pub(super) stream: u64,
}

/// Where the two meet, so that each does what it does while the other is at the same place.
pub(super) struct Meeting {
    barrier: Barrier,
    pub(super) given: Mutex<[Given; 2]>,
}

impl Meeting {
    pub(super) fn new() -> Self {
        Self { barrier: Barrier::new(2), given: Mutex::default() }
    }
}

/// One of the two, and its sessions: a client at one edge, the gateway at the other.
pub(super) struct Act<'w> {
    pub(super) world: &'w World,
    pub(super) pair: &'w Pair,
    pub(super) whose: usize,
    pub(super) until: Instant,
    pub(super) client: Witness<'w>,
    pub(super) gateway: Witness<'w>,
    meeting: &'w Meeting,
    given: Given,
}

fn text(value: &Value) -> Result<String, Finding> {
    value.as_str().map(str::to_owned).ok_or_else(|| Finding::Missing(format!("a text in {value}")))
}

fn ends(frame: &Value, cmd: &str, status: &str) -> bool {
    is(frame, "outcome") && frame["cmd"] == cmd && frame["final"] == true && frame["status"] == status
}

impl<'w> Act<'w> {
    /// Connects, and sees its own gateway come online.
    pub(super) async fn begin(
        world: &'w World,
        pair: &'w Pair,
        whose: usize,
        meeting: &'w Meeting,
        until: Instant,
    ) -> Result<Self, Finding> {
        let of = (pair, whose);
        let key = &pair.of[whose].key;
        let mut client = Witness::open((world, 1), of, key, until).await?;
        client.ask(json!({"t":"subscribe","to":"*/*","lanes":["state","event","presence","live"]})).await?;
        client.until("synced", |frame| is(frame, "synced")).await?;
        let order = r#"{"peer":"gateway","address":"b1/f1"}"#;
        let (status, body) = call((world, 1), of, key, ("POST", "/v1/tokens", order), until).await?;
        let token: Value = serde_json::from_str(&body).unwrap_or_default();
        let token = text(&token["token"]).map_err(|_| Finding::Missing(format!("a token: {status} {body}")))?;
        let mut gateway = Witness::open((world, 0), of, &token, until).await?;
        client.until("the gateway online", |frame| is(frame, "presence") && frame["online"] == true).await?;
        gateway.ask(json!({"t":"subscribe","to":"b1/_","lanes":["event"]})).await?;
        Ok(Self { world, pair, whose, until, client, gateway, meeting, given: Given::default() })
    }

    pub(super) fn one(&self) -> &'w One {
        &self.pair.of[self.whose]
    }

    /// What is read over HTTP with the API key, checked, as JSON.
    pub(super) async fn read(&self, path: &str) -> Result<Value, Finding> {
        let asked = ("GET", path, "");
        let (status, body) = call((self.world, 0), (self.pair, self.whose), &self.one().key, asked, self.until).await?;
        let missing = || Finding::Missing(format!("{path}: {status} {body}"));
        if status == 200 { serde_json::from_str(&body).map_err(|_| missing()) } else { Err(missing()) }
    }

    /// Waits for the other, and gives what it was given.
    async fn meet(&self) -> Result<Given, Finding> {
        self.meeting.given.lock()[self.whose] = self.given.clone();
        timeout_at(self.until, self.meeting.barrier.wait()).await.map_err(|_| Finding::Missing("the other".into()))?;
        Ok(self.meeting.given.lock()[1 - self.whose].clone())
    }

    /// All of it.
    pub(super) async fn play(mut self) -> Result<Self, Finding> {
        self.state().await?;
        self.events().await?;
        self.commands().await?;
        self.live().await?;
        let others = self.meet().await?;
        self.reads(&others).await?;
        if self.whose == 1 {
            malice::asks(&mut self, &others).await?;
        }
        self.meet().await?;
        self.last_word().await?;
        self.client.settle().await?;
        self.gateway.settle().await?;
        self.meet().await?;
        Ok(self)
    }

    async fn state(&mut self) -> Result<(), Finding> {
        let canary = &self.one().canary;
        let full = json!({"t":"state","set":{"kitchen/light":{"is":canary},"hall/lock":canary},"full":true});
        self.gateway.ask(full).await?;
        let shows = |frame: &Value, kind| is(frame, kind) && frame["of"] == "b1/f1";
        let full = |frame: &Value| shows(frame, "snapshot") && frame["state"]["hall/lock"] == canary.as_str();
        self.client.until("a full state", |frame| full(frame) || shows(frame, "state")).await?;
        self.gateway.ask(json!({"t":"state","set":{"kitchen/light":{"was":canary}}})).await?;
        let change = |frame: &Value| frame["set"]["kitchen/light"]["was"] == canary.as_str();
        self.client.until("a change", |frame| shows(frame, "state") && change(frame)).await?;
        let devices = json!({"hall/lock":{"kind":"lock","name":canary,"actions":["unlock"]}});
        self.gateway.ask(json!({"t":"describe","devices":devices})).await?;
        let described = |frame: &Value| frame["devices"]["hall/lock"]["name"] == canary.as_str();
        self.client.until("a description", |frame| is(frame, "devices") && described(frame)).await?;
        Ok(())
    }

    /// Of the gateway, of the client, and a notice that is read.
    async fn events(&mut self) -> Result<(), Finding> {
        let data = json!({"says": self.one().canary});
        let ring = json!({"t":"event","id":"e1","path":"hall/bell","type":"ring","data":data});
        self.given.cursor = text(&self.gateway.ask(ring).await?["cursor"])?;
        let event = |frame: &Value, kind: &str| is(frame, "event") && frame["type"] == kind;
        self.client.until("an event", |frame| event(frame, "ring")).await?;
        self.client.ask(json!({"t":"event","to":"b1/_","id":"e1","type":"notice","data":data})).await?;
        self.gateway.until("a notice", |frame| event(frame, "notice")).await?;
        self.client.ask(json!({"t":"seen","of":"b1/_","id":"e1"})).await?;
        self.client.until("that it was seen", |frame| event(frame, "seen")).await?;
        Ok(())
    }

    async fn order(&mut self, to: &str, key: &str, hold: bool) -> Result<String, Finding> {
        let if_offline = if hold { "hold" } else { "fail" };
        let args = json!({"says": self.one().canary});
        let order = json!({
            "t":"command","to":to,"path":"hall/lock","action":"unlock","args":args,"key":key,"deadline_ms":FAR_MS,
            "if_offline":if_offline
        });
        let cmd = text(&self.client.ask(order).await?["cmd"])?;
        self.pair.mark_command(&cmd, self.whose)?;
        Ok(cmd)
    }

    /// The gateway is given a command, and answers.
    async fn answered(&mut self, cmd: &str, status: &str) -> Result<(), Finding> {
        let given = |frame: &Value| is(frame, "command") && frame["cmd"] == cmd;
        let command = self.gateway.until("a command", given).await?;
        let says = &command["args"]["says"];
        self.gateway.ask(json!({"t":"result","cmd":cmd,"status":status,"data":{"says":says}})).await?;
        let heard = |frame: &Value| is(frame, "outcome") && frame["cmd"] == cmd && frame["status"] == status;
        self.client.until("an outcome", heard).await?;
        Ok(())
    }

    /// One is done, one is held, one is cancelled before it was sent, one after; and one waits for its last word.
    async fn commands(&mut self) -> Result<(), Finding> {
        let done = self.order("b1/f1", "one", false).await?;
        self.answered(&done, "succeeded").await?;
        let again = self.order("b1/f1", "one", false).await?;
        if again != done {
            return Err(Finding::Missing(format!("{done} under its key: {again}")));
        }
        let held = self.order("b1/f9", "one", true).await?;
        let is_held = |frame: &Value| is(frame, "outcome") && frame["cmd"] == *held && frame["status"] == "held";
        self.client.until("held", is_held).await?;
        let unsent = self.order("b1/f9", "two", true).await?;
        self.client.ask(json!({"t":"cancel","cmd":unsent})).await?;
        self.client.until("cancelled", |frame| ends(frame, &unsent, "cancelled")).await?;
        let sent = self.order("b1/f1", "two", false).await?;
        self.answered(&sent, "received").await?;
        self.client.ask(json!({"t":"cancel","cmd":sent})).await?;
        self.gateway.until("a cancel", |frame| is(frame, "cancel") && frame["cmd"] == *sent).await?;
        self.answered(&sent, "cancelled").await?;
        let waits = self.order("b1/f1", "three", false).await?;
        self.answered(&waits, "received").await?;
        self.given.cmds = [done, held, waits];
        Ok(())
    }

    /// The client speaks to the gateway, and the gateway to all.
    async fn live(&mut self) -> Result<(), Finding> {
        let canary = self.one().canary.clone();
        let open = |path| json!({"t":"open","to":"b1/f1","path":path,"kind":"opus","params":{"says":canary}});
        let (client, gateway) = (&mut self.client, &mut self.gateway);
        for (number, path) in ["talk/down", "talk/up"].into_iter().enumerate() {
            let (speaker, listener) =
                if number == 0 { (&mut *client, &mut *gateway) } else { (&mut *gateway, &mut *client) };
            let stream = speaker.ask(open(path)).await?["stream"].as_u64();
            let stream = stream.ok_or_else(|| Finding::Missing("a stream's number".into()))?;
            self.pair.mark(stream.to_string(), self.whose)?;
            listener.until("a stream", |frame| is(frame, "opened") && frame["path"] == path).await?;
            speaker.say(stream, &canary).await?;
            listener.until("what was said", |frame| is(frame, "binary")).await?;
            self.given.stream = stream;
        }
        Ok(())
    }

    /// All that can be read, and all events after a position in the other's.
    async fn reads(&mut self, others: &Given) -> Result<(), Finding> {
        let canary = &self.one().canary;
        let expect = |what: &str, holds: bool, got: &Value| {
            if holds { Ok(()) } else { Err(Finding::Missing(format!("{what} in {got}"))) }
        };
        let state = self.read("/v1/state/b1/f1").await?;
        expect("its state", state["state"]["hall/lock"] == canary.as_str(), &state)?;
        let presence = self.read("/v1/presence?building=b1").await?;
        expect("its gateway", presence["gateways"].to_string().contains(r#""of":"b1/f1""#), &presence)?;
        let listed = self.read("/v1/commands?to=b1/f1").await?;
        expect("three commands", listed["commands"].as_array().map(Vec::len) == Some(3), &listed)?;
        for cmd in &self.given.cmds {
            let record = self.read(&format!("/v1/commands/{cmd}")).await?;
            expect("its command", record["cmd"] == *cmd, &record)?;
        }
        let events = self.read(&format!("/v1/events?to=b1/*&cursor={}", others.cursor)).await?;
        let kinds = events["events"].as_array().into_iter().flatten().map(|event| event["type"].as_str());
        expect("three events", kinds.eq([Some("ring"), Some("notice"), Some("seen")]), &events)?;
        expect("a gap", events["gap"] == true, &events)?;
        self.late(others).await
    }

    /// Who comes later, after a position in the other's events, is given what is kept.
    async fn late(&mut self, others: &Given) -> Result<(), Finding> {
        let of = (self.pair, self.whose);
        let (key, canary) = (&self.one().key, self.one().canary.as_str());
        let mut late = Witness::open((self.world, 0), of, key, self.until).await?;
        let lanes = ["state", "event", "presence", "live"];
        late.ask(json!({"t":"subscribe","to":"*/*","lanes":lanes,"cursor":others.cursor})).await?;
        late.until("all of it", |frame| is(frame, "synced")).await?;
        late.until("a gap", |frame| is(frame, "gap")).await?;
        let shows = |frame: &Value| is(frame, "snapshot") && frame["state"]["hall/lock"] == canary;
        late.until("a snapshot", shows).await?;
        for kind in ["ring", "notice", "seen"] {
            late.until(kind, |frame| is(frame, "event") && frame["type"] == kind).await?;
        }
        for path in ["talk/down", "talk/up"] {
            late.until(path, |frame| is(frame, "opened") && frame["path"] == path).await?;
        }
        late.settle().await
    }

    /// The command that waited has the outcome that its own gateway gives it.
    async fn last_word(&mut self) -> Result<(), Finding> {
        let cmd = self.given.cmds[2].clone();
        self.answered(&cmd, "succeeded").await?;
        let heard =
            self.client.until("an end", |frame| is(frame, "outcome") && frame["cmd"] == *cmd && frame["final"] == true);
        let end = heard.await?;
        let own = end["status"] == "succeeded" && end["data"]["says"] == self.one().canary.as_str();
        if own { Ok(()) } else { Err(Finding::Foreign(format!("{cmd} ended as {end}"))) }
    }
}
