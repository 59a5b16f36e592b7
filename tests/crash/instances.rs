//! Several real `serve` with one key on one PostgreSQL: killed, stopped and woken again, with the database crashing in between,
//! while buyers buy. Then the books are balanced as ever.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nostr_sdk::prelude::{EventBuilder, Keys, Kind, Tag};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tollkeeper::ledger::{Entry, EntryFilter, EntryState, Ledger, PostgresConfig, PostgresLedger};

use super::books::story;
use super::buyer::{Buyer, Group};
use super::faulty_relay::open;
use super::postgres::{End, PASSWORD, Postgres};
use super::run::sold;
use super::script::{Dice, Lifecycle, Script};
use super::shop::{PATIENCE, Serve, Shop};

/// How many instances there should be.
const INSTANCES: usize = 3;

async fn shop(server: &Postgres) -> (Shop, String) {
    let url = server.database();
    (Shop::with_ledger(url.clone(), Some(PASSWORD)).await, url)
}

async fn entries(url: &str) -> Vec<Entry> {
    let config = PostgresConfig::parse(url).unwrap().password(PASSWORD);
    let ledger = PostgresLedger::look(&config).await.unwrap();
    ledger
        .list(&EntryFilter::new(Vec::new(), 100_000))
        .await
        .unwrap()
}

fn group(call: u32) -> Group {
    Group {
        call,
        buyers: 1,
        keys: Keys::generate(),
        events: Mutex::default(),
        paid: Mutex::default(),
    }
}

/// Everything that is wrong with the books when everybody has been served.
fn balance(shop: &Shop, groups: &[Group], entries: &[Entry]) -> Vec<String> {
    let (mut wrongs, mut of_somebody) = (Vec::new(), 0);
    for group in groups {
        let mut sold = sold(shop, group, &[], entries);
        // Whatever was claimed and not delivered was given back.
        let moments = sold
            .entries
            .iter()
            .flat_map(|entry| entry.history.windows(2));
        let given_back = |pair: &&[tollkeeper::ledger::Moment]| {
            pair[0].state == EntryState::Claimed && pair[1].state == EntryState::Settled
        };
        sold.interrupted = moments.filter(given_back).count();
        of_somebody += sold.entries.len();
        let wrong = sold.wrongs();
        if !wrong.is_empty() {
            let stories: Vec<String> = sold.entries.iter().map(story).collect();
            wrongs.push(format!(
                "call {}: {}\n    {}",
                group.call,
                wrong.join("; "),
                stories.join("\n    ")
            ));
        }
    }
    if of_somebody != entries.len() {
        wrongs.push("there is an entry that nobody asked for".to_owned());
    }
    let paid: HashSet<String> = groups
        .iter()
        .flat_map(|group| group.paid.lock().unwrap().clone())
        .collect();
    if paid != shop.paid() {
        wrongs.push("the till was paid by somebody else".to_owned());
    }
    wrongs
}

/// What an instance goes through.
enum Fate {
    Runs,
    Killed { again_at: Instant },
    Stopped { until: Instant },
}

/// The instances, and what has happened to them.
struct Crew<'s> {
    shop: &'s Shop,
    words: Vec<String>,
    running: Vec<(Serve, Fate)>,
    started: usize,
    killed: usize,
    stopped: usize,
    /// Those that found themselves taken for gone, and ended.
    succeeded: usize,
}

impl<'s> Crew<'s> {
    async fn start(shop: &'s Shop) -> Self {
        let mut crew = Self {
            shop,
            words: shop.words(),
            running: Vec::new(),
            started: 0,
            killed: 0,
            stopped: 0,
            succeeded: 0,
        };
        for _ in 0..INSTANCES {
            let serve = crew.one_more();
            crew.running.push((serve, Fate::Runs));
        }
        for (serve, _) in &mut crew.running {
            assert!(serve.ready().await, "{}", shop.log(0));
        }
        crew
    }

    fn one_more(&mut self) -> Serve {
        self.started += 1;
        self.shop.start(self.started - 1, &self.words, None)
    }

    /// Starts what has ended, and wakes what has slept for long enough.
    async fn tend(&mut self) {
        for at in 0..self.running.len() {
            let ended = self.running[at].0.ends_within(Duration::ZERO).await;
            let now = Instant::now();
            let start = match (&self.running[at].1, ended) {
                (Fate::Killed { again_at }, Some(_)) => now >= *again_at,
                (Fate::Runs, Some(status)) => {
                    assert_eq!(status.code(), Some(1), "an instance ended by itself");
                    self.succeeded += 1;
                    true
                }
                (Fate::Stopped { until }, None) if now >= *until => {
                    self.running[at].0.go_on();
                    self.running[at].1 = Fate::Runs;
                    false
                }
                _ => false,
            };
            if start {
                let serve = self.one_more();
                self.running[at] = (serve, Fate::Runs);
            }
        }
    }

    /// Something bad happens to one of them; never to the last.
    fn harm(&mut self, dice: &mut Dice) {
        let up = |(_, fate): &&(Serve, Fate)| matches!(fate, Fate::Runs);
        if self.running.iter().filter(up).count() < 2 {
            return;
        }
        let at = usize::try_from(dice.below(INSTANCES as u64)).unwrap();
        let (serve, fate) = &mut self.running[at];
        if !matches!(fate, Fate::Runs) {
            return;
        }
        let now = Instant::now();
        match dice.below(2) {
            0 => {
                serve.kill();
                self.killed += 1;
                *fate = Fate::Killed {
                    again_at: now + Duration::from_millis(dice.below(6_000)),
                };
            }
            _ => {
                serve.stop();
                self.stopped += 1;
                // Shorter than the lease, or longer.
                *fate = Fate::Stopped {
                    until: now + Duration::from_millis(500 + dice.below(17_000)),
                };
            }
        }
    }

    /// Ends all in order, the sleeping ones too.
    async fn end(mut self) {
        for (serve, _) in &self.running {
            serve.go_on();
        }
        for (serve, _) in &mut self.running {
            serve.terminate();
        }
        for (serve, _) in &mut self.running {
            assert!(serve.ends_within(PATIENCE).await.is_some());
        }
    }
}

/// Buyers buy until they are told to stop; each has the result of everything that it began to buy.
async fn shopping(
    shop: &Shop,
    script: &Script,
    stories: &Mutex<Vec<String>>,
    enough: &AtomicBool,
    next: &AtomicU32,
) -> Result<Vec<Group>, String> {
    let mut bought = Vec::new();
    while !enough.load(Ordering::SeqCst) {
        let group = group(next.fetch_add(1, Ordering::SeqCst));
        let outcome = Buyer::new(shop, script, &group, group.call, stories)
            .buy()
            .await;
        bought.push(group);
        outcome?;
    }
    Ok(bought)
}

/// `TOLLKEEPER_CRASH_SECONDS` says how long; `TOLLKEEPER_CRASH_SEED` with which dice.
async fn live_dangerously(lifecycle: Lifecycle, seed: u64) {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let (shop, url) = shop(&server).await;
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
    };
    let seconds = number("TOLLKEEPER_CRASH_SECONDS", 40);
    let mut dice = Dice(number("TOLLKEEPER_CRASH_SEED", seed));
    let script = Script {
        busy_ms: 120,
        pay_ms: 50,
        ..Script::new(lifecycle, 1, &[])
    };
    let stories: Mutex<Vec<String>> = Mutex::default();
    let (enough, next) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut crew = Crew::start(&shop).await;
    let buyers = join_all((0..8).map(|_| shopping(&shop, &script, &stories, &enough, &next)));
    tokio::pin!(buyers);

    let until = Instant::now() + Duration::from_secs(seconds);
    let mut harm_at = Instant::now() + Duration::from_secs(2);
    let mut crash_at = Some(Instant::now() + Duration::from_secs(seconds / 2));
    let bought = loop {
        tokio::select! {
            bought = &mut buyers => break bought,
            () = sleep(Duration::from_millis(100)) => {}
        }
        crew.tend().await;
        let now = Instant::now();
        if now > until {
            enough.store(true, Ordering::SeqCst);
            continue;
        }
        if now > harm_at {
            crew.harm(&mut dice);
            harm_at = now + Duration::from_millis(1_000 + dice.below(4_000));
        }
        if crash_at.is_some_and(|at| now > at) {
            crash_at = None;
            tokio::task::block_in_place(|| {
                server.stop(End::Immediate);
                server.start_again();
            });
        }
    };
    let (started, killed, stopped, succeeded) =
        (crew.started, crew.killed, crew.stopped, crew.succeeded);
    crew.end().await;
    // Those of processes that were killed read what was written to them, to the end.
    sleep(Duration::from_secs(2)).await;
    let entries = entries(&url).await;
    let mut wrongs: Vec<String> = bought
        .iter()
        .filter_map(|it| it.as_ref().err().cloned())
        .collect();
    let groups: Vec<Group> = bought.into_iter().flatten().flatten().collect();
    println!(
        "{} calls bought from {started} processes; {killed} were killed, {stopped} stopped, {succeeded} found themselves succeeded",
        groups.len()
    );
    if wrongs.is_empty() {
        wrongs = balance(&shop, &groups, &entries);
    }
    if !wrongs.is_empty() {
        let logs: Vec<String> = (0..started)
            .map(|n| format!("log of {n}:\n    {}", shop.log(n)))
            .collect();
        let stories = stories.lock().unwrap().join("\n    ");
        panic!(
            "{}\n  what happened:\n    {stories}\n{}",
            wrongs.join("\n"),
            logs.join("\n")
        );
    }
    assert!(groups.len() >= 8, "everybody bought something");
}

#[tokio::test(flavor = "multi_thread")]
async fn transparent_calls_survive_instances_that_are_killed_and_stopped() {
    live_dangerously(Lifecycle::Transparent, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_calls_survive_instances_that_are_killed_and_stopped() {
    live_dangerously(Lifecycle::ExplicitGating, 2).await;
}

/// Every event reaches all instances, and is executed and answered by one.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_calls_that_reach_all_instances_are_executed_once_each() {
    const FREE: u32 = 300;
    const PAID: u32 = 100;
    let Some(server) = Postgres::start() else {
        return;
    };
    let (shop, url) = shop(&server).await;
    let crew = Crew::start(&shop).await;
    // A price for another tool: this one is free. And then the same with a price.
    let keys = Keys::generate();
    for n in 0..FREE {
        let content = json!({
            "jsonrpc": "2.0", "id": n, "method": "tools/call",
            "params": {"name": "echo", "arguments": {"text": n.to_string()}},
        });
        let event = EventBuilder::new(Kind::from(25910), content.to_string())
            .tag(Tag::public_key(shop.keys.public_key()))
            .sign_with_keys(&keys)
            .unwrap();
        shop.relay.inject(&event);
    }
    let script = Script::new(Lifecycle::Transparent, 1, &[]);
    let stories = Mutex::default();
    let groups: Vec<Group> = (0..PAID).map(group).collect();
    let buying = groups
        .iter()
        .map(|group| Buyer::new(&shop, &script, group, group.call, &stories).buy());
    for bought in join_all(buying).await {
        bought.unwrap();
    }
    let until = Instant::now() + PATIENCE;
    let answers = loop {
        let mut answers: HashMap<u64, usize> = HashMap::new();
        for event in shop
            .relay
            .events_after(0)
            .iter()
            .filter_map(|event| open(event, &keys))
        {
            let message: Value = serde_json::from_str(&event.content).unwrap();
            if message.get("result").is_some() || message.get("error").is_some() {
                *answers.entry(message["id"].as_u64().unwrap()).or_default() += 1;
            }
        }
        if answers.len() == FREE as usize || Instant::now() > until {
            break answers;
        }
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(answers.len(), FREE as usize, "every free call was answered");
    assert!(
        answers.values().all(|count| *count == 1),
        "and by one: {answers:?}"
    );
    let started = crew.started;
    crew.end().await;
    shop.closed().await.unwrap();
    let wrongs = balance(&shop, &groups, &entries(&url).await);
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
    let calls = shop.records();
    let mut executed: HashMap<u32, usize> = HashMap::new();
    let mut by: HashSet<usize> = HashSet::new();
    for record in calls.iter().filter(|record| record.what == "call") {
        *executed.entry(record.call.unwrap()).or_default() += 1;
        by.insert(record.process);
    }
    assert_eq!(executed.len(), PAID as usize);
    assert!(executed.values().all(|count| *count == 1), "{executed:?}");
    // Which of them is the first to take an event is the machine's affair.
    println!("{} of {started} instances took part", by.len());
    assert_eq!(
        shop.invoices(),
        PAID as usize,
        "and asked for money once for each"
    );
}
