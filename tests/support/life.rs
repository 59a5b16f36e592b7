//! Random lives of a paid server: whatever happens in whatever order, the money adds up.
//!
//! A failing life shrinks to a short list of [`Step`]s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tollkeeper::RequestEventId;
use tollkeeper::ledger::{Entry, EntryState, Ledger, OpenLimits};
use tollkeeper::testing::{Answer, Harness, LookupScript, MintScript, RailEvent, RawClient};
use tollkeeper::transport::Prepared;

const PRICES: [&str; 1] = ["tool:add=7 sat"];
const CLIENTS: u8 = 2;
const LIMITS: OpenLimits = OpenLimits::new(3, 5);
const HOUR: Duration = Duration::from_secs(3600);

/// One thing that happens. Indices wrap around, so that every step means something once there is anything at all.
#[derive(Debug, Clone)]
enum Step {
    /// A client calls with one of few params.
    Call {
        client: u8,
        param: u8,
        explicit: bool,
    },
    /// An event is published again.
    Again(usize),
    /// A client takes a call back; sometimes one of somebody else.
    Cancel { call: usize, by: u8 },
    /// An invoice that some client has seen is paid, with or without a notice.
    Pay { invoice: usize, quiet: bool },
    /// Everything that the handler does from now on.
    Handler(HandlerDoes),
    /// How the wallet answers from now on.
    Lookups(LookupScript),
    /// How the wallet makes invoices from now on.
    Mints(MintDoes),
    /// Time passes.
    Wait(u64),
    /// The server's clock is set.
    Jump { ahead: bool },
    /// The process dies, and another takes over.
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum HandlerDoes {
    Echo,
    Lose,
    TakeLong,
}

#[derive(Debug, Clone, Copy)]
enum MintDoes {
    Honest,
    TakeLong,
    TakeTooLong,
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..CLIENTS, 0..2_u8, any::<bool>())
            .prop_map(|(client, param, explicit)| Step::Call { client, param, explicit }),
        3 => any::<usize>().prop_map(Step::Again),
        2 => (any::<usize>(), 0..CLIENTS).prop_map(|(call, by)| Step::Cancel { call, by }),
        6 => (any::<usize>(), any::<bool>())
            .prop_map(|(invoice, quiet)| Step::Pay { invoice, quiet }),
        1 => prop_oneof![Just(HandlerDoes::Echo), Just(HandlerDoes::Lose), Just(HandlerDoes::TakeLong)]
            .prop_map(Step::Handler),
        1 => prop_oneof![
            2 => Just(LookupScript::Honest),
            1 => Just(LookupScript::Fail),
            1 => Just(LookupScript::Hang),
            1 => Just(LookupScript::Expired),
        ]
        .prop_map(Step::Lookups),
        1 => prop_oneof![
            2 => Just(MintDoes::Honest),
            1 => Just(MintDoes::TakeLong),
            1 => Just(MintDoes::TakeTooLong),
            1 => Just(MintDoes::Fail),
        ]
        .prop_map(Step::Mints),
        5 => prop_oneof![Just(0), Just(1), Just(3), Just(15), Just(300), Just(625), Just(4_000)].prop_map(Step::Wait),
        1 => any::<bool>().prop_map(|ahead| Step::Jump { ahead }),
        1 => Just(Step::Restart),
    ]
}

/// A server in one of its lives, and what is remembered over all of them.
struct World {
    /// `None` only between two lives.
    life: Option<Harness>,
    clients: Vec<RawClient>,
    handler: Arc<AtomicU8>,
    /// Every event that was published: by whom, under which request id.
    events: Vec<(u8, i64, Prepared)>,
    /// The references that some client was asked to pay.
    offered: Vec<String>,
    /// What each event was asked to pay.
    asked: HashMap<RequestEventId, String>,
    executed_before: usize,
}

/// What a life begins with.
enum Before<'s> {
    Books(Arc<dyn Ledger>),
    Life(&'s tollkeeper::testing::Survivors),
}

async fn start(before: Before<'_>, handler: &Arc<AtomicU8>) -> Harness {
    let does = Arc::clone(handler);
    let mut builder = Harness::builder(&PRICES)
        .unwrap()
        .payments(|p| p.limits(LIMITS))
        .handler(move |_| {
            let does = does.load(Ordering::SeqCst);
            async move {
                match does {
                    1 => Answer::Lost,
                    2 => {
                        tokio::time::sleep(Duration::from_secs(20)).await;
                        Answer::Echo
                    }
                    _ => Answer::Echo,
                }
            }
        });
    builder = match before {
        Before::Books(ledger) => builder.ledger(ledger),
        Before::Life(crashed) => builder.after(crashed).unwrap(),
    };
    builder.start().await.unwrap()
}

impl World {
    async fn new(ledger: Arc<dyn Ledger>) -> Self {
        let handler = Arc::default();
        let harness = start(Before::Books(ledger), &handler).await;
        let clients = (0..CLIENTS).map(|n| harness.client(n + 1)).collect();
        Self {
            life: Some(harness),
            clients,
            handler,
            events: Vec::new(),
            offered: Vec::new(),
            asked: HashMap::new(),
            executed_before: 0,
        }
    }

    fn harness(&self) -> &Harness {
        self.life.as_ref().unwrap()
    }

    async fn call(&mut self, client: u8, param: u8, explicit: bool) {
        let id = i64::try_from(self.events.len()).unwrap();
        let caller = &mut self.clients[usize::from(client)];
        caller.introduction.interaction = Some(if explicit {
            tollkeeper::PaymentInteraction::ExplicitGating
        } else {
            tollkeeper::PaymentInteraction::Transparent
        });
        let sent = caller
            .call_tool(id, "add", json!({ "n": param }))
            .await
            .unwrap();
        self.events.push((client, id, sent));
    }

    async fn make(&mut self, step: &Step) {
        match *step {
            Step::Call {
                client,
                param,
                explicit,
            } => self.call(client, param, explicit).await,
            Step::Again(nth) if !self.events.is_empty() => {
                let (client, _, sent) = &self.events[nth % self.events.len()];
                self.clients[usize::from(*client)]
                    .send_again(sent)
                    .await
                    .unwrap();
            }
            Step::Cancel { call, by } if !self.events.is_empty() => {
                let (_, id, _) = self.events[call % self.events.len()];
                self.clients[usize::from(by)].cancel(id).await.unwrap();
            }
            Step::Pay { invoice, quiet } if !self.offered.is_empty() => {
                let reference = &self.offered[invoice % self.offered.len()];
                if quiet {
                    self.harness().rail.settle_quietly(reference);
                } else {
                    self.harness().rail.settle(reference).await;
                }
            }
            Step::Again(_) | Step::Cancel { .. } | Step::Pay { .. } => {}
            Step::Handler(does) => self.handler.store(does as u8, Ordering::SeqCst),
            Step::Lookups(script) => self.harness().rail.on_lookup(script),
            Step::Mints(does) => self.harness().rail.on_mint(match does {
                MintDoes::Honest => MintScript::Honest,
                MintDoes::TakeLong => MintScript::Slow(Duration::from_secs(4)),
                MintDoes::TakeTooLong => MintScript::Slow(Duration::from_secs(40)),
                MintDoes::Fail => MintScript::Fail("scripted".to_owned()),
            }),
            Step::Wait(secs) => {
                tokio::time::sleep(Duration::from_secs(secs) + Duration::from_millis(5)).await
            }
            Step::Jump { ahead: true } => self.harness().clock.jump(HOUR),
            Step::Jump { ahead: false } => self.harness().clock.jump_back(HOUR),
            Step::Restart => self.restart().await,
        }
        self.read_the_mail().await;
    }

    async fn restart(&mut self) {
        self.read_the_mail().await;
        self.executed_before += self.harness().executions();
        let left = self.life.take().unwrap().crash();
        let next = start(Before::Life(&left), &self.handler).await;
        self.clients = (0..CLIENTS).map(|n| next.client(n + 1)).collect();
        self.life = Some(next);
    }

    /// Invariant 3, as clients see it: one event is asked for one payment, for ever.
    async fn read_the_mail(&mut self) {
        for client in &self.clients {
            for (event, message) in client.collect(Duration::ZERO).await.unwrap() {
                for pay_req in pay_reqs(&message) {
                    let reference = pay_req.trim_start_matches("scripted:").to_owned();
                    // A poll is shown the offer that another event was made.
                    if message["error"]["code"] != -32043 {
                        let first = self
                            .asked
                            .entry(event.unwrap())
                            .or_insert_with(|| reference.clone());
                        assert_eq!(*first, reference, "two payment requests for one event");
                    }
                    if !self.offered.contains(&reference) {
                        self.offered.push(reference);
                    }
                }
            }
        }
    }

    fn executions(&self) -> usize {
        self.executed_before + self.harness().executions()
    }

    /// What holds at every moment.
    async fn check(&self) {
        let entries = self.harness().entries().await.unwrap();
        let paid: HashSet<&str> = self
            .offered
            .iter()
            .map(String::as_str)
            .filter(|r| self.harness().rail.is_settled(r))
            .collect();
        let mut claims = 0;
        for entry in &entries {
            if entry.settlement.is_some() {
                let reference = reference(entry);
                assert!(paid.contains(reference), "not paid: {entry:?}");
            }
            claims += claims_of(entry);
            let restored = entry.history.iter().zip(entry.history.iter().skip(1));
            let restored = restored
                .filter(|(a, b)| a.state == EntryState::Claimed && b.state == EntryState::Settled)
                .count();
            assert!(
                claims_of(entry) <= 1 + restored,
                "claimed twice: {:?}",
                entry.history
            );
        }
        assert!(
            self.executions() <= claims,
            "{} executions, {claims} claims",
            self.executions()
        );
        for client in entries
            .iter()
            .map(|entry| entry.client)
            .collect::<HashSet<_>>()
        {
            let open = entries
                .iter()
                .filter(|e| e.client == client && e.state.is_open_offer())
                .count();
            assert!(
                open <= LIMITS.per_client,
                "{open} open offers of one client"
            );
        }
        let open = entries.iter().filter(|e| e.state.is_open_offer()).count();
        assert!(open <= LIMITS.total, "{open} open offers");
        let minted: Vec<RailEvent> = self
            .harness()
            .rail
            .log()
            .into_iter()
            .filter(|e| matches!(e, RailEvent::Minted(_)))
            .collect();
        let mut keys: Vec<&RailEvent> = Vec::new();
        for event in &minted {
            assert!(!keys.contains(&event), "ordered twice: {event:?}");
            keys.push(event);
        }
    }

    /// What holds once everything works again: each payment is on the books, and buys its one execution.
    async fn end(&mut self) {
        self.make(&Step::Handler(HandlerDoes::Echo)).await;
        self.make(&Step::Lookups(LookupScript::Honest)).await;
        self.make(&Step::Mints(MintDoes::Honest)).await;
        self.make(&Step::Restart).await;
        self.make(&Step::Wait(2 * 3600)).await;
        self.check().await;
        let entries = self.harness().entries().await.unwrap();
        let delivered = entries
            .iter()
            .filter(|e| e.state == EntryState::Delivered)
            .count();
        let authorizations: Vec<&Entry> = entries.iter().filter(|e| e.is_authorization()).collect();
        assert_eq!(
            self.harness().rail.settled(),
            delivered + authorizations.len(),
            "money is missing: {entries:?}"
        );
        assert!(
            entries.iter().all(|e| !e.state.is_open_offer()),
            "{entries:?}"
        );

        let (minted, executed) = (self.harness().rail.minted(), self.harness().executions());
        for client in 0..CLIENTS {
            for param in 0..2 {
                for _ in 0..self.live(client, param).await {
                    self.call(client, param, true).await;
                    self.make(&Step::Wait(0)).await;
                }
            }
        }
        let left = self.harness().entries().await.unwrap();
        assert!(
            left.iter().all(|e| !e.is_authorization()),
            "an authorization did not serve: {left:?}"
        );
        assert_eq!(
            self.harness().rail.minted(),
            minted,
            "asked to pay in spite of an authorization"
        );
        assert_eq!(self.harness().executions(), executed + authorizations.len());
        self.check().await;
    }

    /// How many authorizations a client has for a call, found by their identity.
    async fn live(&self, client: u8, param: u8) -> usize {
        let params = json!({"name": "add", "arguments": {"n": param}});
        let params = tollkeeper::wire::parse_strict(&params.to_string()).unwrap();
        let identity = tollkeeper::wire::invocation_identity("tools/call", Some(&params)).unwrap();
        let entries = self.harness().entries().await.unwrap();
        entries
            .iter()
            .filter(|e| {
                e.is_authorization()
                    && e.identity == identity
                    && e.client.as_bytes()[0] == client + 1
            })
            .count()
    }
}

fn reference(entry: &Entry) -> &str {
    entry
        .payment_request
        .as_ref()
        .map_or("none", |request| request.reference.as_str())
}

fn claims_of(entry: &Entry) -> usize {
    entry
        .history
        .iter()
        .filter(|moment| moment.state == EntryState::Claimed)
        .count()
}

fn pay_reqs(message: &Value) -> Vec<&str> {
    let options = message["error"]["data"]["payment_options"].as_array();
    let of_options = options
        .into_iter()
        .flatten()
        .filter_map(|option| option["pay_req"].as_str());
    message["params"]["pay_req"]
        .as_str()
        .into_iter()
        .chain(of_options)
        .collect()
}

/// Lives one life, and panics where the money does not add up.
fn live(steps: &[Step], ledger: Arc<dyn Ledger>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(ledger).await;
        for step in steps {
            world.make(step).await;
            world.check().await;
        }
        world.end().await;
    });
}

/// Lives so many lives, each with a new ledger.
pub(crate) fn live_all(cases: u32, shrink: u32, ledger: impl Fn() -> Arc<dyn Ledger>) {
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: shrink,
        ..Config::default()
    });
    runner
        .run(&proptest::collection::vec(step(), 1..40), |steps| {
            live(&steps, ledger());
            Ok(())
        })
        .unwrap();
}

/// `TOLLKEEPER_MODEL_CASES`, or so many.
pub(crate) fn cases(otherwise: u32) -> u32 {
    std::env::var("TOLLKEEPER_MODEL_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(otherwise)
}
